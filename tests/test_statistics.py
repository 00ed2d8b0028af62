"""The statistics against closed forms, numpy by hand and an exhaustive bootstrap."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from lightning_priors.statistics import RESAMPLES, holm, paired_difference, spread


def exhaustive_interval(differences: list[float]) -> tuple[float, float]:
    """All n^n resamples of the pairs, what the random resampling approximates, widened for their small number."""
    means = [np.mean(resample) for resample in itertools.product(differences, repeat=len(differences))]
    low, high = np.percentile(means, [2.5, 97.5])
    mean, count = np.mean(differences), len(differences)
    wider = stats.t.ppf(0.975, count - 1) / stats.norm.ppf(0.975) * math.sqrt(count / (count - 1))
    return float(mean + wider * (low - mean)), float(mean + wider * (high - mean))


def test_spread_is_the_sample_standard_deviation() -> None:
    runs, mean, std = spread([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])
    assert (runs, mean) == (8, 5.0)
    assert std == pytest.approx(math.sqrt(32 / 7), abs=1e-12)


def test_spread_leaves_gaps_out() -> None:
    gap = float("nan")
    assert spread([gap, 1.0, gap, 3.0]) == (2, 2.0, pytest.approx(math.sqrt(2)))
    one, none = spread([gap, 4.0]), spread([gap])
    assert one[:2] == (1, 4.0)
    assert math.isnan(one.std)
    assert none.runs == 0
    assert math.isnan(none.mean)
    assert math.isnan(none.std)


def test_the_interval_of_three_pairs_is_their_range_widened() -> None:
    # all three resampled to the smallest: 1 of 27 ways, more than 2.5 %
    difference = paired_difference([0.91, 0.85, 0.80], [0.70, 0.75, 0.79])
    wider = 4.302653 / 1.959964 * math.sqrt(3 / 2)
    mean = (0.21 + 0.10 + 0.01) / 3
    assert (difference.pairs, difference.units, difference.note) == (3, 3, "")
    assert difference.mean == pytest.approx(mean)
    expected = (mean + wider * (0.01 - mean), mean + wider * (0.21 - mean))
    assert (difference.low, difference.high) == (pytest.approx(expected[0]), pytest.approx(expected[1]))


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
    assert difference.low > 0.08
    assert difference.high < 0.13


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
    with pytest.raises(ValueError, match="same length, not 2, 1 and 2"):
        paired_difference([1.0, 2.0], [1.0])


# ---- over splits


def hierarchical(generator: np.random.Generator, splits: int, seeds: int, between: float) -> list[float]:
    """Differences of two equal techniques: each split favours one of them, and each seed too."""
    of_split = generator.normal(scale=between, size=(splits, 1))
    return list((of_split + generator.normal(size=(splits, seeds))).ravel())


@pytest.mark.parametrize(("splits", "seeds", "between"), [(3, 2, 1.0), (5, 2, 2.0), (6, 1, 0.0), (1, 5, 0.0)])
def test_intervals_of_equal_techniques_hold_0_in_95_percent(splits: int, seeds: int, between: float) -> None:
    """The tolerance is that of a binomial count (4 standard deviations), and a little for so small samples."""
    generator, comparisons = np.random.default_rng(splits), 400
    of_pair = np.repeat(np.arange(splits), seeds)
    held = 0
    for _ in range(comparisons):
        differences = hierarchical(generator, splits, seeds, between)
        found = paired_difference(differences, [0.0] * len(differences), of_pair)
        held += found.low <= 0 <= found.high
    share, tolerance = held / comparisons, 4 * math.sqrt(0.95 * 0.05 / comparisons)
    assert 0.95 - tolerance - 0.015 < share < 0.95 + tolerance


def test_pairs_that_are_taken_for_independent_would_hold_0_too_seldom() -> None:
    generator, of_pair = np.random.default_rng(0), np.repeat(np.arange(5), 4)
    held = 0
    for _ in range(200):
        differences = hierarchical(generator, 5, 4, between=2.0)
        naive = paired_difference(differences, [0.0] * 20)
        assert naive.units == 20
        held += naive.low <= 0 <= naive.high
        assert paired_difference(differences, [0.0] * 20, of_pair).units == 5
    assert held / 200 < 0.8


def test_the_seeds_of_a_split_count_as_their_mean() -> None:
    values, splits = [1.0, 3.0, 5.0, 5.0, 0.0, 2.0], [0, 0, 1, 1, 2, 2]
    grouped, means = paired_difference(values, [0.0] * 6, splits), paired_difference([2.0, 5.0, 1.0], [0.0] * 3)
    assert (grouped.low, grouped.high, grouped.p, grouped.mean) == (means.low, means.high, means.p, means.mean)
    assert (grouped.pairs, grouped.units) == (6, 3)
    uneven = paired_difference([*values[:5], float("nan")], [0.0] * 6, splits)
    assert uneven.mean == pytest.approx((2 + 5 + 0) / 3), "a missing run gives its split no lower weight"


def test_two_splits_have_no_interval_however_many_seeds() -> None:
    assert paired_difference([1.0, 2.0, 3.0, 4.0], [0.0] * 4, [0, 0, 1, 1]).note == "2 splits: no interval"


def test_p_is_the_share_of_all_signs() -> None:
    differences = [0.3, 0.1, -0.05, 0.2, 0.4]
    means = [np.mean(np.multiply(signs, differences)) for signs in itertools.product([-1, 1], repeat=5)]
    expected = np.mean(np.abs(means) >= np.mean(differences) - 1e-12)
    found = paired_difference(differences, [0.0] * 5)
    assert found.p == pytest.approx(expected)
    assert found.least_p == 1 / 16
    assert paired_difference([1.0, 2.0, 3.0], [0.0] * 3).p == 0.25 == 2 * (1 / 2) ** 3
    assert 2**13 <= RESAMPLES < 2**14


def test_equal_techniques_are_told_apart_in_5_percent_at_most() -> None:
    generator = np.random.default_rng(1)
    p = [paired_difference(list(generator.normal(size=6)), [0.0] * 6).p for _ in range(300)]
    assert np.mean(np.array(p) <= 0.05) < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 300)


def test_holm_by_hand_and_its_bounds() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # Holm 1979
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    p = np.random.default_rng(0).uniform(size=7)
    assert (np.array(holm(list(p))) >= p).all()
    assert (np.array(holm(list(p))) <= np.minimum(1, 7 * p) + 1e-12).all(), "never worse than Bonferroni"


def test_holm_errs_in_5_percent_of_families() -> None:
    generator = np.random.default_rng(2)
    wrong = [min(holm(list(generator.uniform(size=5)))) <= 0.05 for _ in range(2000)]
    assert np.mean(wrong) == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 2000))
