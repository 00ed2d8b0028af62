"""The numbers of a comparison: spread over seeds, paired differences with their intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
NUMBERS_AT_ONCE = 10_000_000  # that are resampled: memory does not grow with the number of pairs
MINIMUM_PAIRS = 3  # two differences can only be resampled to themselves and their mean: no interval


class Spread(NamedTuple):
    """Mean and standard deviation of a number over seeds."""

    seeds: int
    """How many have the number."""
    mean: float
    """Not a number where no seed has it."""
    std: float
    """Of the sample (divisor ``seeds - 1``); not a number for fewer than two seeds."""


class Difference(NamedTuple):
    """How much a config differs from the first one, seed by seed."""

    pairs: int
    """Seeds in which both have the number."""
    mean: float
    """Mean of the differences."""
    low: float
    """Lower end of the interval; not a number where there is none."""
    high: float
    """Upper end of the interval."""
    note: str
    """Why there is no interval, or an empty string."""


def spread(values: Sequence[float]) -> Spread:
    """Computes mean and standard deviation; values that are not a number are left out.

    Args:
        values: One number for each seed.

    Returns:
        Number of seeds, mean and standard deviation.

    >>> spread([1.0, 2.0, 3.0, float("nan")])
    Spread(seeds=3, mean=2.0, std=1.0)
    """
    present = np.asarray(values, dtype=np.float64)
    present = present[~np.isnan(present)]
    mean = float(present.mean()) if len(present) else np.nan
    std = float(present.std(ddof=1)) if len(present) > 1 else np.nan
    return Spread(len(present), mean, std)


def paired_difference(values: Sequence[float], reference: Sequence[float]) -> Difference:
    """Computes the mean difference with its percentile bootstrap interval over the pairs.

    Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13. The pairs are resampled with a fixed
    seed, so the same runs give the same interval. With three pairs the interval is the range of the differences, which
    covers less than the nominal share.

    Args:
        values: One number for each seed, or for whatever else is paired.
        reference: The same seeds' numbers of the config to compare with. Pairs with a gap are left out.

    Returns:
        The difference ``values - reference``; without an interval, and a note that says so, for fewer than three pairs
        or where all pairs differ by the same amount.

    Raises:
        ValueError: If the two have different lengths.

    >>> difference = paired_difference([0.9, 0.8, 0.7], [0.5, 0.6, 0.4])
    >>> round(difference.mean, 3), round(difference.low, 3), round(difference.high, 3)
    (0.3, 0.2, 0.4)
    >>> paired_difference([0.9], [0.5]).note
    '1 pair: no interval'
    """
    after, before = _complete_pairs(values, reference)
    pairs = len(after)
    mean = float((after - before).mean()) if pairs else np.nan
    if pairs < MINIMUM_PAIRS:
        return Difference(pairs, mean, np.nan, np.nan, f"{pairs} pair{'' if pairs == 1 else 's'}: no interval")
    if np.ptp(after - before) == 0:
        return Difference(pairs, mean, np.nan, np.nan, f"the same in all {pairs} pairs: no interval")
    interval = bootstrap(
        (after, before),
        _mean_difference,
        paired=True,
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        batch=max(1, NUMBERS_AT_ONCE // pairs),
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return Difference(pairs, mean, float(interval.low), float(interval.high), "")


def _complete_pairs(values: Sequence[float], reference: Sequence[float]) -> tuple[Floats, Floats]:
    after, before = np.asarray(values, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if after.shape != before.shape:
        raise ValueError(f"pairs need two lists of the same length, not {len(after)} and {len(before)}")
    present = ~(np.isnan(after) | np.isnan(before))
    return after[present], before[present]


def _mean_difference(after: Floats, before: Floats, axis: int) -> Floats:
    return np.asarray(after.mean(axis=axis) - before.mean(axis=axis))
