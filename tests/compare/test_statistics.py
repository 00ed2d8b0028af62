"""The statistics against closed forms, numpy by hand and an exhaustive bootstrap."""

import itertools
import math

import numpy as np
import pytest

from lightning_priors.compare.statistics import paired_difference, spread


def exhaustive_interval(differences: list[float]) -> tuple[float, float]:
    """All n^n resamples of the pairs: what the random resampling approximates."""
    means = [np.mean(resample) for resample in itertools.product(differences, repeat=len(differences))]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def test_spread_is_the_sample_standard_deviation() -> None:
    seeds, mean, std = spread([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])
    assert (seeds, mean) == (8, 5.0)
    assert std == pytest.approx(math.sqrt(32 / 7), abs=1e-12)


def test_spread_leaves_gaps_out() -> None:
    gap = float("nan")
    assert spread([gap, 1.0, gap, 3.0]) == (2, 2.0, pytest.approx(math.sqrt(2)))
    one, none = spread([gap, 4.0]), spread([gap])
    assert one[:2] == (1, 4.0)
    assert math.isnan(one.std)
    assert none.seeds == 0
    assert math.isnan(none.mean)
    assert math.isnan(none.std)


def test_the_interval_of_three_pairs_is_their_range() -> None:
    # all three resampled to the smallest: 1 of 27 ways, more than 2.5 %
    difference = paired_difference([0.91, 0.85, 0.80], [0.70, 0.75, 0.79])
    assert difference.pairs == 3
    assert difference.mean == pytest.approx((0.21 + 0.10 + 0.01) / 3)
    assert (difference.low, difference.high) == (pytest.approx(0.01), pytest.approx(0.21))
    assert difference.note == ""


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_agrees_with_all_resamples(seed: int) -> None:
    generator = np.random.default_rng(seed)
    before = generator.normal(0.7, 0.1, size=6)
    after = before + generator.normal(0.05, 0.02, size=6)
    difference = paired_difference(list(after), list(before))
    low, high = exhaustive_interval(list(after - before))
    width = high - low
    assert difference.low == pytest.approx(low, abs=0.05 * width)
    assert difference.high == pytest.approx(high, abs=0.05 * width)


def test_the_interval_is_paired() -> None:
    """Seeds that differ a lot from each other, and alike in both configs, do not widen the interval."""
    before = [0.1, 0.5, 0.9, 0.3]
    after = [0.21, 0.60, 1.01, 0.40]
    difference = paired_difference(after, before)
    assert difference.low >= 0.1 - 1e-9
    assert difference.high <= 0.11 + 1e-9


def test_the_interval_is_the_same_each_time_and_moves_with_the_difference() -> None:
    before, after = [0.5, 0.4, 0.7, 0.6], [0.6, 0.7, 0.75, 0.8]
    first, second = paired_difference(after, before), paired_difference(after, before)
    assert first == second
    shifted = paired_difference([value + 1 for value in after], before)
    assert shifted.low == pytest.approx(first.low + 1)
    swapped = paired_difference(before, after)
    assert swapped.mean == pytest.approx(-first.mean)


@pytest.mark.parametrize(
    ("after", "before", "pairs", "note"),
    [
        ([], [], 0, "0 pairs: no interval"),
        ([0.9, float("nan")], [0.5, 0.1], 1, "1 pair: no interval"),
        ([0.9, 0.8, 0.7], [0.5, float("nan"), 0.4], 2, "2 pairs: no interval"),
        ([1.0, 1.0, 1.0], [0.5, 0.5, 0.5], 3, "the same in all 3 pairs: no interval"),
    ],
)
def test_no_interval_is_said(after: list[float], before: list[float], pairs: int, note: str) -> None:
    difference = paired_difference(after, before)
    assert (difference.pairs, difference.note) == (pairs, note)
    assert math.isnan(difference.low)
    assert math.isnan(difference.high)
    assert math.isnan(difference.mean) == (pairs == 0)


def test_unequal_lengths_are_a_programming_error() -> None:
    with pytest.raises(ValueError, match="same length, not 2 and 1"):
        paired_difference([1.0, 2.0], [1.0])
