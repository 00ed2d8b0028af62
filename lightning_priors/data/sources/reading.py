"""Readers of data set files; their errors name the file and the row."""

import csv
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lightning_priors.data.sources.paths import existing_file
from lightning_priors.errors import PriorError, nearest

Known = TypeVar("Known")


def read_table(path: Path, wanted: Iterable[str] = ()) -> Iterator[tuple[str, dict[str, str]]]:
    r"""Reads a CSV file with a header.

    Args:
        path: The file, in UTF-8.
        wanted: Columns that it must have.

    Yields:
        For each row its name, such as "row 2 of metadata.csv", and its cells by column. The header is row 1, as in
        an editor or a spreadsheet.

    Raises:
        PriorError: If the file is missing, is no text or lacks a column, or a row has more or fewer cells than the
            header.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "birds.csv"
    >>> _ = path.write_text("path,label\na.png,cat\n")
    >>> list(read_table(path, ["path"]))
    [('row 2 of birds.csv', {'path': 'a.png', 'label': 'cat'})]
    """
    rows = read_cells(path)
    _, header = next(rows)
    require_columns(header, wanted, path)
    for line, cells in rows:
        yield f"row {line} of {path.name}", {name: cell.strip() for name, cell in zip(header, cells, strict=True)}


def read_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    r"""Reads the rows of a CSV file, the header first.

    Args:
        path: The file, in UTF-8.

    Yields:
        The line that a row ends in, and its cells. The names of the header have no spaces around them, other cells may.
        Empty lines are left out; the header of an empty file has no cells.

    Raises:
        PriorError: If the file is missing or is no text, a column occurs twice, or a row has more or fewer cells than
            the header.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "birds.csv"
    >>> _ = path.write_text("path, label\n\na.png, cat\n")
    >>> list(read_cells(path))
    [(1, ['path', 'label']), (3, ['a.png', ' cat'])]
    """
    existing_file(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.reader(lines)
            header = [name.strip() for name in next(reader, [])]
            named_once(header, f"column of {path.name}")
            yield reader.line_num, header
            width = len(header)
            for cells in reader:
                if len(cells) not in (0, width):
                    row = f"row {reader.line_num} of {path.name}"
                    raise PriorError(f"{row} has {len(cells)} cells, the header {width} ({path})")
                if cells:
                    yield reader.line_num, cells
    except (UnicodeDecodeError, csv.Error) as error:
        raise PriorError(f"{path} cannot be read as CSV: {error}") from error


def require_columns(columns: Collection[str], wanted: Iterable[str], path: Path) -> None:
    """Checks that a table has certain columns.

    Args:
        columns: The columns of the table.
        wanted: The columns that it must have.
        path: The file, for the message.

    Raises:
        PriorError: If one is missing.

    >>> require_columns(["path", "lable"], ["path", "label"], Path("birds.csv"))
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: birds.csv has no column 'label', did you mean 'lable'?
    """
    for name in wanted:
        if name not in columns:
            raise PriorError(f"{path} has no column {name!r}, {nearest(name, columns)}")


def read_columns(path: Path, number: int) -> Iterator[tuple[str, list[str]]]:
    r"""Reads a file whose cells are separated by spaces, as the files of CUB-200-2011 are.

    Args:
        path: The file.
        number: Number of cells in a line. The last cell takes the rest of the line, spaces included.

    Yields:
        For each line its name, such as "row 1 of images.txt", and its cells.

    Raises:
        PriorError: If the file is missing or a line has fewer cells.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "parts.txt"
    >>> _ = path.write_text("1 left eye\n2 beak\n")
    >>> list(read_columns(path, 2))
    [('row 1 of parts.txt', ['1', 'left eye']), ('row 2 of parts.txt', ['2', 'beak'])]
    """
    for count, line in enumerate(read_text(path).split("\n"), 1):
        cells = line.split(maxsplit=number - 1)
        if not cells:
            continue
        row = f"row {count} of {path.name}"
        if len(cells) < number:
            raise PriorError(f"{row} has {len(cells)} of {number} cells: {line.strip()!r} ({path})")
        yield row, [*cells[:-1], cells[-1].strip()]


def read_text(path: Path) -> str:
    """Reads a text file.

    Args:
        path: The file, in UTF-8, with or without a byte order mark.

    Raises:
        PriorError: If the file is missing, cannot be read, or is no text.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "names.txt"
    >>> _ = path.write_text("kakapo")
    >>> read_text(path)
    'kakapo'
    """
    try:
        return existing_file(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PriorError(f"{path} is not a text file in UTF-8: byte {error.start + 1} fits no character") from error
    except OSError as error:
        raise PriorError(f"cannot read {path}: {error.strerror}") from error


def parse_json(text: str, what: str) -> Any:
    """Reads JSON.

    Args:
        text: The text.
        what: What it is the content of, such as "row 2 of birds.jsonl"; for the message.

    Returns:
        Its value.

    Raises:
        PriorError: If it is no JSON, or nested deeper or of longer numbers than Python reads.

    >>> parse_json("[1, 2", "birds.json")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: birds.json is no JSON: Expecting ',' delimiter at character 6
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise PriorError(f"{what} is no JSON: {error.msg} at character {error.pos + 1}") from error
    except ValueError as error:
        raise PriorError(f"{what} has a number of thousands of digits") from error
    except RecursionError as error:
        raise PriorError(f"{what} is nested too deeply") from error


def number_in(cell: str, column: str, row: str) -> float:
    """Converts the text of a cell to a finite number.

    Args:
        cell: The text.
        column: The column of the cell, for the message.
        row: The row of the cell, for the message.

    Raises:
        PriorError: If the text is no finite number.

    >>> number_in("3.5", "x0", "row 2 of birds.csv")
    3.5
    """
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise PriorError(f"{column} in {row} is {cell!r}, not a number")
    return number


def look_up(known: Mapping[str, Known], name: str, what: str, row: str) -> Known:
    """Looks up what belongs to a name.

    Args:
        known: The possible names, and what belongs to each.
        name: The name to look up.
        what: What the names stand for, such as "class"; for the message.
        row: Where the name stands, for the message.

    Raises:
        PriorError: If the name is not known; names the nearest one.

    >>> look_up({"cat": 0, "dog": 1}, "dgo", "class", "row 3 of pets.csv")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: no class 'dgo' (row 3 of pets.csv), did you mean 'dog'?
    """
    if name not in known:
        raise PriorError(f"no {what} {name!r} ({row}), {nearest(name, known)}")
    return known[name]


def named_once(names: Iterable[str], what: str) -> dict[str, int]:
    """Numbers names in their order and checks that each occurs once.

    Args:
        names: The names.
        what: What they stand for, such as "class"; for the message.

    Returns:
        The position of each name, from 0.

    Raises:
        PriorError: If a name occurs twice.

    >>> named_once(["cat", "dog"], "class")
    {'cat': 0, 'dog': 1}
    """
    positions: dict[str, int] = {}
    for position, name in enumerate(names):
        if name in positions:
            raise PriorError(f"the {what} {name!r} occurs twice")
        positions[name] = position
    return positions


def sorted_names(names: Iterable[str]) -> list[str]:
    """Brings names into the order of their labels: numbers in their order, other names alphabetically.

    Args:
        names: The names.

    >>> sorted_names(["10", "9"]), sorted_names(["10", "9", "b"])
    (['9', '10'], ['10', '9', 'b'])
    """
    names = list(names)
    try:
        return sorted(names, key=int)
    except ValueError:
        return sorted(names)


def first_gap(names: Sequence[str]) -> str | None:
    """Finds the first number that follows a gap in the labels 0, 1, 2, ... or 1, 2, 3, ...

    Args:
        names: The labels as text, in order. Names that are no numbers have no gap.

    Returns:
        The number after the gap, or None.

    >>> first_gap(["0", "1", "7"]), first_gap(["1", "2"]), first_gap(["cat", "dog"])
    ('7', None, None)
    """
    if not all(name.removeprefix("-").isdecimal() for name in names):
        return None
    start = 1 if names[:1] == ["1"] else 0
    return next((name for expected, name in enumerate(names, start) if int(name) != expected), None)
