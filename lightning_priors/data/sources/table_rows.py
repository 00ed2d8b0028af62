"""What a table says of each row, in arrays, and the search for the first row that says something wrong."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_priors.data.sources.columns import Categories, Columns, Numbers, Texts
from lightning_priors.data.sources.reading import number_in
from lightning_priors.errors import PriorError

SPLIT_NUMBERS = {"train": 0, "val": 1, "test": 2}
Place = Sequence[tuple[str, Numbers]]
"""The columns of a box or a keypoint, by name."""
Mistake = tuple[int, Callable[[str], object]]
"""A row, and what raises its error when it is given the row's name."""


@dataclass(frozen=True)
class TableRows:
    """The rows of a table, one array for each property."""

    paths: Texts
    splits: NDArray[np.int8]
    """A number of `SPLIT_NUMBERS`."""
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None
    """None if the table has no groups."""
    aux_labels: Sequence[NDArray[np.int64]]
    masks: Texts | None
    """Their files, empty where a picture has no mask; None if the table has no masks."""
    boxes: Sequence[Place]
    points: Sequence[Place]


def place_in(place: Place, index: int) -> list[float] | None:
    """Returns the numbers of a box or keypoint, or None where it is not annotated.

    Args:
        place: Its columns, without mistakes.
        index: The row.

    >>> x, y = Numbers(), Numbers()
    >>> x.add(["3", ""])
    >>> y.add(["4.5", ""])
    >>> [place_in([("x", x), ("y", y)], row) for row in range(2)]
    [[3.0, 4.5], None]
    """
    numbers = [column.values[index] for _, column in place]
    return None if math.isnan(numbers[0]) else numbers


def mistakes_in(column: Texts | Categories, check: Callable[[str, str], object]) -> list[Mistake]:
    """Finds the first row whose cell a check refuses.

    Args:
        column: The cells.
        check: Raises the error of a cell, given the cell and the name of its row.

    Returns:
        The mistake of this row; nothing if there is none.

    >>> from lightning_priors.data.sources.reading import look_up
    >>> splits = Categories()
    >>> splits.add(["train", "train", "tset"])
    >>> [index for index, _ in mistakes_in(splits, lambda cell, row: look_up(SPLIT_NUMBERS, cell, "split", row))]
    [2]
    """
    for cell in column.positions if isinstance(column, Categories) else column:
        try:
            check(cell, "")
        except PriorError:
            return [(column.index(cell), partial(check, cell))]
    return []


def mistakes_in_places(places: Iterable[Place]) -> list[Mistake]:
    """Finds the first row of each box or keypoint that is not all numbers, or of which only some cells are empty.

    Args:
        places: The columns of each.

    Returns:
        The mistakes of these rows.

    >>> x, y = Numbers(), Numbers()
    >>> x.add(["3", "", "2"])
    >>> y.add(["4.5", "", ""])
    >>> [index for index, _ in mistakes_in_places([[("x", x), ("y", y)]])]
    [2]
    """
    mistakes: list[Mistake] = []
    for place in places:
        empty = sum(np.isnan(np.frombuffer(column.values)).astype(np.int8) for _, column in place)
        found = np.flatnonzero((empty > 0) & (empty < len(place)))[:1].tolist()
        found += [column.wrong[0] for _, column in place if column.wrong]
        if found:
            mistakes.append((min(found), partial(_check_place, place, min(found))))
    return mistakes


def _check_place(place: Place, index: int, row: str) -> None:
    """Raises the error of the first cell of a box or keypoint that is no number."""
    for name, column in place:
        wrong, cell = column.wrong or (None, "")
        if wrong == index:
            number_in(cell, name, row)
        elif math.isnan(column.values[index]):
            number_in("", name, row)


def check_splits(rows: TableRows, columns: Columns) -> None:
    """Checks that no picture is in two splits.

    Args:
        rows: The rows.
        columns: The table, for the message.

    Raises:
        PriorError: Names the first row whose picture an earlier row has in another split.
    """
    if rows.splits.min() == rows.splits.max():
        return
    # paths with the same hash may be the same, others are not: the few that may be are compared as they are
    hashes = np.fromiter(map(hash, rows.paths), np.int64, len(rows.paths))
    _, which, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    first: dict[str, int] = {}
    for index in np.flatnonzero(counts[which] > 1).tolist():
        path = rows.paths[index]
        other = first.setdefault(path, index)
        if rows.splits[other] != rows.splits[index]:
            before, here = (list(SPLIT_NUMBERS)[rows.splits[each]] for each in (other, index))
            raise PriorError(
                f"{path} is in the {before} split ({columns.row(other)}) and in {here} ({columns.row(index)})"
            )


def refuse_misspelt(columns: Collection[str], optional: Iterable[str], path: Path) -> None:
    """Checks that no optional column is there in other letters only, such as "Split" for "split".

    Args:
        columns: The columns of the table.
        optional: The columns that it may have.
        path: The file, for the message.

    Raises:
        PriorError: Names the column.

    >>> refuse_misspelt(["path", "Split"], ["split"], Path("birds.csv"))
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: birds.csv has no column 'split', did you mean 'Split'?
    """
    for column in optional:
        for other in columns:
            if column not in columns and other.lower() == column.lower():
                raise PriorError(f"{path} has no column {column!r}, did you mean {other!r}?")
