"""One row for each finished run, kept in a CSV file that is never half written."""

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lightning_priors.errors import PriorError
from lightning_priors.whole_files import write_table

AT = "@"
"""Between a test metric and the monitor that selected the tested checkpoint: ``test/worst_group_acc@val/acc``."""

FIRST, LAST = ("run", "split", "seed"), ("folder", "checkpoint", "digest")


@dataclass(frozen=True)
class Row:
    """What one finished run gave.

    Args:
        run: Name of the config.
        seed: Seed of the run.
        values: The numbers, by column: the selecting validation metric, the test metrics, times and sizes.
        folder: The run's folder.
        checkpoint: The checkpoint that was selected and tested.
        digest: Identifies the resolved config, the split, the seed and the selection rule.
        split: Number of the drawn split of the data.
    """

    run: str
    seed: int
    values: dict[str, float] = field(default_factory=dict)
    folder: str = ""
    checkpoint: str = ""
    digest: str = ""
    split: int = 0

    @property
    def key(self) -> tuple[str, int, str]:
        """What a run is known by: a changed configuration makes it another run."""
        return self.run, self.seed, self.digest


def read_rows(path: Path) -> list[Row]:
    """Reads the rows; none if there is no file yet.

    Args:
        path: The CSV file.

    Returns:
        The rows in the order of the file; an empty cell is not a number.

    Raises:
        PriorError: If the file is not one that `write_rows` wrote.
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in ("run", "seed", *LAST) if name not in (reader.fieldnames or ())]
        if missing:
            raise PriorError(f"{path} has no column {missing[0]!r}: it is no table of runs; move it away")
        rows = []
        for number, cells in enumerate(reader, start=2):
            try:
                rows.append(_row(cells))
            except (TypeError, ValueError) as error:
                raise PriorError(f"{path}, line {number}: {error}; correct the line or remove it") from None
    return rows


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes all rows: beside the file first, then in its place, so that a kill leaves the old file or the new one.

    Args:
        path: The CSV file; its folder exists.
        rows: The rows. A number that is not a number becomes an empty cell.
    """
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row.values))
    table: list[list[object]] = [[*FIRST, *columns, *LAST]]
    for row in rows:
        cells = [_cell(row.values.get(name, math.nan)) for name in columns]
        table.append([row.run, row.split, row.seed, *cells, row.folder, row.checkpoint, row.digest])
    write_table(path, table)


def with_row(rows: Iterable[Row], new: Row) -> list[Row]:
    """Adds a row, which takes the place of an older one of the same run, split and seed.

    >>> with_row([Row("plain", 0, digest="old"), Row("plain", 1)], Row("plain", 0, digest="new"))[-1].digest
    'new'
    """
    return [row for row in rows if (row.run, row.split, row.seed) != (new.run, new.split, new.seed)] + [new]


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Reads what a run has logged.

    Args:
        folder: The run's folder, with ``metrics.csv``.

    Returns:
        Its lines, each with the columns that it has; none where there is no such file.
    """
    file = folder / "metrics.csv"
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return [{name: float(cell) for name, cell in line.items() if cell} for line in csv.DictReader(lines)]


def _row(cells: dict[str, str]) -> Row:
    if None in cells or None in cells.values():
        raise ValueError("the line is longer or shorter than the header")
    numbers = {name: cell for name, cell in cells.items() if name not in (*FIRST, *LAST)}
    values = {name: float(cell) if cell else math.nan for name, cell in numbers.items()}
    rest = cells["folder"], cells["checkpoint"], cells["digest"]
    return Row(
        cells["run"], int(cells["seed"]), values, *rest, int(cells.get("split", "0"))
    )  # tables from before there were splits have none


def _cell(value: float) -> str:
    if math.isnan(value):
        return ""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
