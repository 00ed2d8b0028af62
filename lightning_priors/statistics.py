"""The numbers of a comparison: spread over runs, paired differences with their intervals and tests.

Runs with the same split of the data are alike, so a difference is judged over the splits: what is resampled, and what
changes its sign in the test, is the mean of a split. With one split the seeds take this place.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, norm, permutation_test, t

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
NUMBERS_AT_ONCE = 10_000_000  # that are resampled: memory does not grow with the number of units
LEVEL = 1 - CONFIDENCE
MINIMUM_UNITS = 3  # two differences can only be resampled to themselves and their mean: no interval
RESAMPLES = 9999  # with fewer than 14 units the test tries all signs


class Spread(NamedTuple):
    """Mean and standard deviation of a number over runs."""

    runs: int
    """How many have the number."""
    mean: float
    """Not a number where no run has it."""
    std: float
    """Of the sample (divisor ``runs - 1``); not a number for fewer than two runs."""


class Difference(NamedTuple):
    """How much a config differs from the first one, run by run."""

    pairs: int
    """Splits and seeds in which both have the number."""
    mean: float
    """Mean of the differences; of each split first, where there are several."""
    low: float
    """Lower end of the interval; not a number where there is none."""
    high: float
    """Upper end of the interval."""
    note: str
    """Why there is no interval, or an empty string."""
    units: int
    """Splits over which it is judged, or seeds where there is one split."""
    p: float
    """Of the hypothesis that there is no difference; not a number where there is no interval."""

    @property
    def least_p(self) -> float:
        """The smallest p that so many units can give."""
        return float(2.0 ** (1 - self.units))


def spread(values: Sequence[float]) -> Spread:
    """Computes mean and standard deviation; values that are not a number are left out.

    Args:
        values: One number for each run.

    Returns:
        Number of runs, mean and standard deviation.

    >>> spread([1.0, 2.0, 3.0, float("nan")])
    Spread(runs=3, mean=2.0, std=1.0)
    """
    present = np.asarray(values, dtype=np.float64)
    present = present[~np.isnan(present)]
    mean = float(present.mean()) if len(present) else np.nan
    std = float(present.std(ddof=1)) if len(present) > 1 else np.nan
    return Spread(len(present), mean, std)


def paired_difference(
    values: Sequence[float], reference: Sequence[float], splits: Sequence[int] | None = None
) -> Difference:
    """Computes the mean difference with its interval and test, over the splits or over the seeds of one split.

    The interval is a percentile bootstrap of the units (Efron and Tibshirani 1993, "An Introduction to the Bootstrap",
    chapter 13; only the upper level of nested units is resampled: Davison and Hinkley 1997, "Bootstrap Methods and
    their Application", section 3.8), widened for few units as Student's t is (Hesterberg 2015, "What Teachers Should
    Know about the Bootstrap", section 5.3). The test changes the signs of the units. The units are resampled with a
    fixed seed, so the same runs give the same interval.

    Args:
        values: One number for each split and seed, or for whatever else is paired.
        reference: The same splits' and seeds' numbers of the config to compare with. Pairs with a gap are left out.
        splits: The split of each pair; None if they have one split.

    Returns:
        The difference ``values - reference``; without an interval, and a note that says so, for fewer than three units
        or where all units differ by the same amount.

    Raises:
        ValueError: If they have different lengths.

    >>> difference = paired_difference([0.9, 0.8, 0.7, 0.9], [0.5, 0.6, 0.4, 0.6])
    >>> round(difference.mean, 3), round(difference.low, 3), round(difference.high, 3), difference.p
    (0.3, 0.159, 0.441, 0.125)
    >>> paired_difference([0.9, 0.8], [0.5, 0.6], splits=[0, 0]).note
    '2 pairs: no interval'
    """
    differences, kept = _complete_pairs(values, reference, [0] * len(values) if splits is None else splits)
    units, kind = differences, "pair"
    if len(numbers := np.unique(kept)) > 1:
        units, kind = np.array([differences[kept == number].mean() for number in numbers]), "split"
    mean = float(units.mean()) if len(units) else np.nan
    none = Difference(len(differences), mean, np.nan, np.nan, "", len(units), np.nan)
    if len(units) < MINIMUM_UNITS:
        return none._replace(note=f"{len(units)} {kind}{'' if len(units) == 1 else 's'}: no interval")
    if np.ptp(units) == 0:
        return none._replace(note=f"the same in all {len(units)} {kind}s: no interval")
    low, high = _interval(units)
    return none._replace(low=low, high=high, p=_sign_test(units))


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects the p of several tests, so that one of them errs with the stated probability (Holm 1979).

    Args:
        p_values: Those that are not a number are no tests.

    Returns:
        The corrected ones, in the same order.

    >>> holm([0.01, 0.04, 0.03, float("nan")])
    [0.03, 0.06, 0.06, nan]
    """
    corrected, least = list(p_values), 0.0
    order = sorted((number for number, p in enumerate(p_values) if p == p), key=lambda number: p_values[number])
    for rank, number in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p_values[number]))
        corrected[number] = least
    return corrected


def _interval(units: Floats) -> tuple[float, float]:
    """The ends of the interval of the mean of units."""
    count = len(units)
    found = bootstrap(
        (units,),
        _mean,
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        batch=max(1, NUMBERS_AT_ONCE // count),
        random_state=np.random.default_rng(0),
    ).confidence_interval
    # the bootstrap takes the deviations for normal and their scale for known, by a divisor that is one too large
    wider = t.ppf(1 - LEVEL / 2, count - 1) / norm.ppf(1 - LEVEL / 2) * np.sqrt(count / (count - 1))
    mean = units.mean()
    return float(mean + wider * (found.low - mean)), float(mean + wider * (found.high - mean))


def _sign_test(units: Floats) -> float:
    """The p of the hypothesis that each unit might as well have the other sign."""
    tested = permutation_test(
        (units,),
        _mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        batch=max(1, NUMBERS_AT_ONCE // len(units)),
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return float(tested.pvalue)


def _complete_pairs(
    values: Sequence[float], reference: Sequence[float], splits: Sequence[int]
) -> tuple[Floats, NDArray[np.int64]]:
    """The differences of the pairs without a gap, and their splits."""
    after, before = np.asarray(values, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if not len(after) == len(before) == len(splits):
        raise ValueError(f"pairs need lists of the same length, not {len(after)}, {len(before)} and {len(splits)}")
    present = ~(np.isnan(after) | np.isnan(before))
    return (after - before)[present], np.asarray(splits, dtype=np.int64)[present]


def _mean(units: Floats, axis: int) -> Floats:
    return np.asarray(units.mean(axis=axis))
