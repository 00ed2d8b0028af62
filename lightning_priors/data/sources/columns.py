"""The columns of a table of many rows: a few arrays each, and no Python object for each cell."""

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lightning_priors.data.sources.paths import existing_file
from lightning_priors.data.sources.reading import parse_json, read_cells, read_text
from lightning_priors.errors import PriorError

AT_ONCE = 256
"""Rows that are Python objects at a time; 700 new ones start the garbage collector, which doubles the time."""
Chunk = tuple[Sequence[int], Mapping[str, Sequence[str]]]
"""The lines of some rows, and their cells by column."""
Item = TypeVar("Item")


class Texts(Sequence[str]):
    """A column of texts that are mostly different, such as paths.

    Example:
        >>> texts = Texts()
        >>> texts.add(["kea.png", "", "kākāpō.png"])
        >>> texts[2], len(texts), list(texts)
        ('kākāpō.png', 3, ['kea.png', '', 'kākāpō.png'])
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])

    def add(self, cells: Sequence[str]) -> None:
        """Adds the cells of further rows."""
        # surrogates, which the escapes of JSON can make, are kept for the message that there is no such file
        encoded = [cell.encode("utf-8", "surrogatepass") for cell in cells]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        self._ends.frombytes((np.cumsum(lengths) + self._ends[-1]).tobytes())
        self._bytes += b"".join(encoded)

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # no slices
        """Returns the text of a row."""
        return self._bytes[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogatepass")


class Categories:
    """A column of texts that occur often, such as classes: each row has the position of its text among all of them.

    Example:
        >>> kinds = Categories()
        >>> kinds.add(["kea", "kakapo", "kea"])
        >>> list(kinds.positions), kinds.array([10, 20])
        (['kea', 'kakapo'], array([10, 20, 10]))
    """

    def __init__(self) -> None:
        self.positions: dict[str, int] = {}
        """The position of each text, in the order in which they occur."""
        self._codes = array("i")

    def add(self, cells: Sequence[str]) -> None:
        """Adds the cells of further rows."""
        for name in dict.fromkeys(cells):
            self.positions.setdefault(name, len(self.positions))
        self._codes.extend(map(self.positions.__getitem__, cells))

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self._codes)

    def array(self, values: Sequence[int]) -> NDArray[np.int64]:
        """Returns for each row the value that belongs to its text.

        Args:
            values: For each text, in the order of `positions`.
        """
        return np.array(values, np.int64)[np.frombuffer(self._codes, np.intc)]

    def index(self, name: str) -> int:
        """Returns the first row with a text that occurs."""
        return self._codes.index(self.positions[name])


class Numbers:
    """A column of numbers; NaN where the cell is empty.

    Example:
        >>> numbers = Numbers()
        >>> numbers.add(["2.5", "", "1"])
        >>> numbers.add(["x"])
        >>> numbers.values, numbers.wrong
        (array('d', [2.5, nan, 1.0, nan]), (3, 'x'))
    """

    def __init__(self) -> None:
        self.values = array("d")
        self.wrong: tuple[int, str] | None = None
        """The first row whose cell is no finite number, and this cell."""

    def add(self, cells: Sequence[str]) -> None:
        """Adds the cells of further rows."""
        try:
            values = [float(cell) if cell else math.nan for cell in cells]
        except ValueError:
            values = [_number(cell) for cell in cells]
        finite = int(np.isfinite(values).sum())
        if self.wrong is None and finite + cells.count("") < len(cells):
            position = next(n for n, cell in enumerate(cells) if cell and not math.isfinite(values[n]))
            self.wrong = len(self.values) + position, cells[position]
        self.values.extend(values)

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.values)


@dataclass
class Columns:
    """Some columns of a table."""

    path: Path
    """The file."""
    names: dict[str, None] = field(default_factory=dict)
    """All columns of the file, in their order."""
    lines: "array[int]" = field(default_factory=lambda: array("q"))
    """The line of each row in the file."""
    texts: dict[str, Texts] = field(default_factory=dict)
    categories: dict[str, Categories] = field(default_factory=dict)
    numbers: dict[str, Numbers] = field(default_factory=dict)

    def row(self, index: int) -> str:
        """Returns the name of a row in messages, such as "row 2 of table.csv"."""
        return f"row {self.lines[index]} of {self.path.name}"


def read_columns_of(path: Path, texts: Iterable[str], categories: Iterable[str], numbers: Iterable[str]) -> Columns:
    r"""Reads columns of a table: CSV with a header, or JSON Lines.

    The cells have no spaces around them. A cell that a line of JSON leaves out is empty.

    Args:
        path: The file, in UTF-8; with the suffix ``.jsonl`` it has one flat JSON object per line.
        texts: Columns of texts that are mostly different; the file may lack any column.
        categories: Columns of texts that occur often.
        numbers: Columns of numbers.

    Raises:
        PriorError: If the file cannot be read.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "birds.csv"
    >>> _ = path.write_text("path,label\na.png,cat\n")
    >>> columns = read_columns_of(path, ["path"], ["label"], [])
    >>> columns.row(0), columns.texts["path"][0]
    ('row 2 of birds.csv', 'a.png')
    """
    columns = Columns(
        path,
        texts={name: Texts() for name in texts},
        categories={name: Categories() for name in categories},
        numbers={name: Numbers() for name in numbers},
    )
    kept: list[tuple[str, Texts | Categories | Numbers]] = [
        *columns.texts.items(),
        *columns.categories.items(),
        *columns.numbers.items(),
    ]
    for lines, chunk in (_json_chunks if path.suffix == ".jsonl" else _csv_chunks)(existing_file(path)):
        columns.names |= dict.fromkeys(chunk)
        for name, column in kept:
            if name in chunk:
                _fill(column, len(columns.lines))
                column.add([cell.strip() for cell in chunk[name]])
        columns.lines.extend(lines)
    for name, column in kept:
        if name in columns.names:
            _fill(column, len(columns.lines))
    return columns


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    r"""Reads a file with one flat JSON object per line.

    Args:
        path: The file, in UTF-8.

    Yields:
        For each line its number, and its values as text, empty for null.

    Raises:
        PriorError: If a line is no flat JSON object.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "birds.jsonl"
    >>> _ = path.write_text('{"path": "a.png", "label": 1, "mask": null}\n')
    >>> list(read_json_lines(path))
    [(1, {'path': 'a.png', 'label': '1', 'mask': ''})]
    """
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for count, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row = f"row {count} of {path.name}"
                entry = parse_json(line.rstrip("\n"), row)
                if not isinstance(entry, dict) or any(isinstance(value, dict | list) for value in entry.values()):
                    raise PriorError(f"{row} is no flat JSON object: {line.strip()[:60]}")
                yield count, {name: "" if value is None else str(value) for name, value in entry.items()}
    except (UnicodeDecodeError, OSError):
        read_text(path)  # says which byte it is
        raise


def _csv_chunks(path: Path) -> Iterator[Chunk]:
    rows = read_cells(path)
    _, header = next(rows)
    for chunk in _chunks(rows):
        lines, cells = zip(*chunk, strict=True)
        yield lines, dict(zip(header, zip(*cells, strict=True), strict=True))


def _json_chunks(path: Path) -> Iterator[Chunk]:
    for chunk in _chunks(read_json_lines(path)):
        lines, entries = zip(*chunk, strict=True)
        names = {name: None for entry in entries for name in entry}
        yield lines, {name: [entry.get(name, "") for entry in entries] for name in names}


def _chunks(rows: Iterator[Item]) -> Iterator[list[Item]]:
    while chunk := list(islice(rows, AT_ONCE)):
        yield chunk


def _fill(column: Texts | Categories | Numbers, rows: int) -> None:
    """Adds empty cells for rows whose objects of JSON lack the column."""
    if len(column) < rows:
        column.add([""] * (rows - len(column)))


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
