"""The exceptions that the command line answers with a single line: a user's mistake, and the end by a signal."""

import difflib
from collections.abc import Iterable


class PriorError(ValueError):
    """Says a mistake in options, files or labels in one line that names the thing and the nearest right one."""


class Terminated(BaseException):
    """Tells that SIGTERM ended a command; like KeyboardInterrupt, no failure that a handler of errors should take."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Writes the hint that ends an error line: the closest choice, or all of them when nothing is close.

    Args:
        name: What the user wrote.
        choices: What would have been right.

    Returns:
        ``"did you mean 'x'?"``, ``"choose from a, b"``, or ``""`` when there is nothing to choose from.

    >>> nearest("energi", ["energy", "l1", "ppce"])
    "did you mean 'energy'?"
    >>> nearest("zzz", ["energy", "l1"])
    'choose from energy, l1'
    """
    known = [str(choice) for choice in choices]
    close = difflib.get_close_matches(str(name), known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return f"choose from {shown}" if known else ""
