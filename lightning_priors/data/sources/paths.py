"""Checks of files, folders and the names that tables give them."""

import os
from itertools import islice
from pathlib import Path

from lightning_priors.errors import PriorError, nearest

COMPARED_NAMES = 5000  # files that a missing name is compared with; more would take seconds


def existing_file(path: Path) -> Path:
    """Checks that a file exists, and returns its path.

    Raises:
        PriorError: If it does not exist; names the nearest file or folder that does.

    >>> existing_file(Path("/nowhere/at/all.csv"))
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: no file /nowhere/at/all.csv: / has no 'nowhere', choose from ...
    """
    if not is_file(path):
        raise PriorError(f"no file {path}{hint_beside(path)}")
    return path


def stays_inside(name: str, folder: Path) -> bool:
    """Says whether a name that a file gives leads to a place in a folder; links in the folder are followed.

    Args:
        name: A path as the file has it, relative to the folder or absolute.
        folder: The folder.

    >>> [stays_inside(name, Path("birds")) for name in ("a.png", "x/../a.png", "../a.png", "/home/me/a.png")]
    [True, True, False, False]
    """
    if not name.startswith(os.sep) and ".." not in name:
        return True
    top = os.path.abspath(folder)
    return os.path.commonpath([top, os.path.abspath(os.path.join(top, name))]) == top


def check_inside(name: str, folder: Path, row: str, cure: str) -> None:
    """Checks that a file's name leads to a place in a folder, so that a foreign table cannot show private pictures.

    Args:
        name: A path as the file has it.
        folder: The folder.
        row: Where the name stands, for the message.
        cure: What to do if it is right, for the message.

    Raises:
        PriorError: If it leads elsewhere.

    >>> check_inside("../a.png", Path("birds"), "row 2", "choose another root")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: ../a.png (row 2) leads out of birds; choose another root
    """
    if not stays_inside(name, folder):
        raise PriorError(f"{name} ({row}) leads out of {folder}; {cure}")


def existing_folder(path: Path) -> Path:
    """Checks that a folder exists, and returns its path.

    Raises:
        PriorError: If it does not exist; names the nearest file or folder that does.

    >>> existing_folder(Path("/")) == Path("/")
    True
    """
    if not path.is_dir():
        raise PriorError(f"no folder {path}{hint_beside(path)}")
    return path


def hint_beside(path: Path) -> str:
    """Writes the end of an error line about a missing path: how far the path exists, and what is there.

    Args:
        path: A path that does not exist.

    >>> hint_beside(Path("/nowhere/at/all.csv")).startswith(": / has no 'nowhere', ")
    True
    """
    missing = Path(os.path.abspath(path))  # which also resolves ".."
    while not missing.parent.is_dir():
        missing = missing.parent
    beside = islice((entry.name for entry in missing.parent.iterdir()), COMPARED_NAMES)
    hint = nearest(missing.name, sorted(beside))
    return f": {missing.parent} has no {missing.name!r}, {hint}" if hint else f": {missing.parent} is empty"


def is_file(path: Path) -> bool:
    r"""Says whether a path is a file; a name that no file can have is none.

    >>> is_file(Path("/")), is_file(Path("\0"))
    (False, False)
    """
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
