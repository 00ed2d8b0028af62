"""Finding the pictures that a command is given: files, folders, patterns, lists, tables, or names on the input."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from lightning_priors.data.sources.paths import existing_file, hint_beside
from lightning_priors.data.sources.reading import read_table
from lightning_priors.errors import PriorError

LIST, TABLE, INPUT = ".txt", ".csv", "-"
PATH_COLUMNS = ("path", "file", "file_name")
"""The columns of a table that may name the pictures; the first that it has does."""

NOT_DECODED = frozenset({"BUFR", "GRIB", "HDF5", "MPEG", "WMF"})
"""Formats that Pillow knows by sight but does not decode by itself."""


class Found(NamedTuple):
    """A picture that was found."""

    path: Path
    """Its file, which may be missing or broken."""
    columns: Mapping[str, str]
    """What a table says of it besides its path."""


def find_pictures(given: Sequence[str], names: Iterable[str] | None = None) -> list[Found]:
    """Finds pictures; nothing is opened but lists and tables.

    Args:
        given: Files, which are taken as they are; folders, with what lies below them; patterns such as
            ``birds/**/*.jpg``; text files (``.txt``) with one path a line; tables (``.csv``) with a column path, file
            or file_name; ``-`` for the paths in `names`. Paths in lists and tables are relative to the file.
        names: Paths, one each; by default the lines of the standard input.

    Returns:
        The pictures in the order in which they are given; those of folders and patterns by name.

    Raises:
        PriorError: If something given is not there or holds no picture.

    >>> [str(found.path) for found in find_pictures(["-"], names=["a.jpg", "", "b.png"])]
    ['a.jpg', 'b.png']
    """
    found = [picture for each in given for picture in _pictures_of(each, sys.stdin if names is None else names)]
    if not found:
        raise PriorError(f"there is no picture in {', '.join(given)}")
    return found


def suffixes() -> list[str]:
    """Lists the suffixes of the formats that Pillow decodes, in lower case.

    >>> {".jpg", ".png", ".webp"} <= set(suffixes()), ".pdf" in suffixes()
    (True, False)
    """
    known = Image.registered_extensions()
    return sorted(suffix for suffix, kind in known.items() if kind in Image.OPEN and kind not in NOT_DECODED)


def names_below(pictures: Sequence[Found]) -> list[Path]:
    """Names pictures by their place below the deepest folder that holds all of them; no two files get the same name.

    Args:
        pictures: At least one.

    Returns:
        A relative path for each, with its suffix.

    >>> names_below([Found(Path("birds/a/1.jpg"), {}), Found(Path("birds/b/1.jpg"), {})])
    [PosixPath('a/1.jpg'), PosixPath('b/1.jpg')]
    """
    files = [os.path.abspath(picture.path) for picture in pictures]
    root = os.path.commonpath([os.path.dirname(file) for file in files])
    return [Path(os.path.relpath(file, root)) for file in files]


def _pictures_of(given: str, names: Iterable[str]) -> Iterator[Found]:
    """The pictures that one argument stands for."""
    path = Path(given)
    if given == INPUT:
        yield from _listed(names, Path())
    elif path.is_dir():
        yield from _below(path)
    elif not path.exists() and glob.has_magic(given):
        yield from _matching(given)
    elif not path.is_file():
        raise PriorError(f"there is no picture or folder {path}{hint_beside(path)}")
    elif path.suffix.lower() == TABLE:
        yield from _rows(path)
    elif path.suffix.lower() == LIST:
        try:
            yield from _listed(path.read_text(encoding="utf-8-sig").splitlines(), path.parent)
        except UnicodeDecodeError as error:
            raise PriorError(f"{path} cannot be read as a list of paths: {error}") from error
    else:
        yield Found(path, {})


def _below(folder: Path) -> Iterator[Found]:
    """The pictures in a folder and the folders in it; hidden ones are none."""
    wanted = set(suffixes())
    files = (path for path in folder.rglob("*") if path.suffix.lower() in wanted and path.is_file())
    seen = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not seen:
        raise PriorError(f"there is no picture in the folder {folder}; looked for {', '.join(sorted(wanted))}")
    yield from (Found(path, {}) for path in sorted(seen))


def _matching(pattern: str) -> Iterator[Found]:
    """The pictures that a pattern stands for; files of other kinds and folders are passed over."""
    wanted = set(suffixes())
    files = (Path(name) for name in glob.iglob(pattern, recursive=True))
    seen = sorted(path for path in files if path.suffix.lower() in wanted and path.is_file())
    if not seen:
        raise PriorError(f"no picture matches {pattern}; looked for {', '.join(sorted(wanted))}")
    yield from (Found(path, {}) for path in seen)


def _listed(lines: Iterable[str], folder: Path) -> Iterator[Found]:
    """A picture for each line that is not empty."""
    names = (line.strip() for line in lines)
    yield from (Found(folder / name, {}) for name in names if name)


def _rows(path: Path) -> Iterator[Found]:
    """A picture for each row of a table."""
    for row, cells in read_table(existing_file(path)):
        column = next((name for name in PATH_COLUMNS if name in cells), None)
        if column is None:
            raise PriorError(
                f"{path} needs a column {', '.join(PATH_COLUMNS[:-1])} or {PATH_COLUMNS[-1]} with the files"
            )
        if not cells[column]:
            raise PriorError(f"{row} names no file in the column {column} ({path})")
        further = {name: cell for name, cell in cells.items() if name != column}
        yield Found(path.parent / cells[column], further)
