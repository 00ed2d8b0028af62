"""Names that data and files bring along, such as those of classes and runs: which can be shown, and how in Markdown."""

import re
from collections.abc import Iterable

from lightning_priors.errors import PriorError

JOINERS = "\u200c\u200d"
"""Two that are seen as nothing, and that words of several languages and some pictographs are written with."""


def check_names(names: Iterable[str], kind: str) -> None:
    r"""Checks that names can be shown as they are: in a terminal, a picture or a page, where some characters do things.

    Args:
        names: Such as those of the classes.
        kind: What has the names, for the message.

    Raises:
        PriorError: If a name has a character that moves the cursor, turns the direction of the text or is unseen.

    >>> check_names(["kākāpō", "kea & co"], "class")
    >>> check_names(["kea\x1b[2J"], "class")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: the name of a class has characters that cannot be shown: 'kea\x1b[2J'
    """
    for name in names:
        if not all(character.isprintable() or character in JOINERS for character in name):
            raise PriorError(f"the name of a {kind} has characters that cannot be shown: {name!r}")


def in_markdown(text: str) -> str:
    r"""Writes a text so that Markdown shows it as it is: no tag, link, emphasis or cell of a table is made of it.

    Args:
        text: Any.

    Returns:
        One line.

    >>> print(in_markdown("<b>kea</b> | [all](https://x) *1*"))
    \<b>kea\</b> \| [all]\(https://x) \*1\*
    """
    return re.sub(r"([\\`*<|]|(?<=\])[(\[:])", r"\\\1", " ".join(text.split()))
