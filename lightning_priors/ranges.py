"""Checks of numeric options: one line that names the option, its range and what was given."""

import math
from collections.abc import Mapping

from lightning_priors.errors import PriorError


def check_positive(options: Mapping[str, float | None]) -> None:
    """Refuses rates, factors and widths that are not above 0.

    Args:
        options: Values by the name of their option; None is an option that is not used.

    Raises:
        PriorError: For the first that is 0, negative, infinite or no number.

    >>> check_positive({"lr": -1})
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: lr is above 0, not -1
    """
    for name, value in options.items():
        if value is not None and not (0 < value < math.inf):
            raise PriorError(f"{name} is above 0, not {value}")


def check_not_negative(options: Mapping[str, float | None]) -> None:
    """Refuses weights and lengths that are below 0.

    Args:
        options: Values by the name of their option; None is an option that is not used.

    Raises:
        PriorError: For the first that is negative, infinite or no number.

    >>> check_not_negative({"weight": 0.0, "dilation": -0.5})
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: dilation is 0 or more, not -0.5
    """
    for name, value in options.items():
        if value is not None and not (0 <= value < math.inf):
            raise PriorError(f"{name} is 0 or more, not {value}")


def check_counts(options: Mapping[str, int | None], most: float = math.inf) -> None:
    """Refuses counts below 1, and those that no memory has room for.

    Args:
        options: Values by the name of their option; None is an option that is not used.
        most: The greatest that makes sense.

    Raises:
        PriorError: For the first that is below 1 or above the greatest.

    >>> check_counts({"num_parts": 0})
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: num_parts is at least 1, not 0
    """
    for name, value in options.items():
        if value is not None and not value >= 1:
            raise PriorError(f"{name} is at least 1, not {value}")
        if value is not None and value > most:
            raise PriorError(f"{name} is at most {most:,}, not {value:,}")


def check_shares(options: Mapping[str, float | None]) -> None:
    """Refuses shares and probabilities outside of [0, 1].

    Args:
        options: Values by the name of their option; None is an option that is not used.

    Raises:
        PriorError: For the first that is outside.

    >>> check_shares({"peak_threshold": 1.5})
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: peak_threshold is between 0 and 1, not 1.5
    """
    for name, value in options.items():
        if value is not None and not 0 <= value <= 1:
            raise PriorError(f"{name} is between 0 and 1, not {value}")
