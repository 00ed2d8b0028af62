"""The exceptions that the command line answers with a single line: a user's mistake, and the end by a signal."""

import difflib
from collections.abc import Iterable

LONGEST_LINE = 800
"""Characters of an error line; of a longer one the middle is left out."""


class PriorError(ValueError):
    r"""Says a mistake in options, files or labels in one line that names the thing and the nearest right one.

    What a file holds may be in the line. Characters that would move a terminal's cursor are written out, and a long
    text loses its middle.

    >>> print(PriorError("no class '\x1b[2J'"))
    no class '\x1b[2J'
    """

    def __init__(self, message: object = "") -> None:
        text = "".join(_shown(character) for character in str(message))
        half = LONGEST_LINE // 2
        super().__init__(text if len(text) <= LONGEST_LINE else f"{text[:half]} ... {text[-half:]}")


def _shown(character: str) -> str:
    """A character as a terminal can be given it; line breaks are left to those who put them into a message."""
    return character if character.isprintable() or character in "\n\t" else ascii(character)[1:-1]


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
