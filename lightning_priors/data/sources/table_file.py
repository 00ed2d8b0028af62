"""The file of a table, as its options say what the columns mean."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from pathlib import Path

import numpy as np

from lightning_priors.data.sources.columns import Categories, Columns, Texts, read_columns_of
from lightning_priors.data.sources.layouts import name_the_right_source
from lightning_priors.data.sources.paths import check_inside, existing_folder
from lightning_priors.data.sources.reading import first_gap, look_up, named_once, require_columns, sorted_names
from lightning_priors.data.sources.table_rows import (
    SPLIT_NUMBERS,
    Place,
    TableRows,
    check_splits,
    mistakes_in,
    mistakes_in_places,
    refuse_misspelt,
)
from lightning_priors.errors import PriorError

DEFAULT_BOX = {"box": ("x0", "y0", "x1", "y1")}
NOT_LABELLED = {"", "-1"}


@dataclass(frozen=True, eq=False)
class TableFile:
    r"""Reads and checks a table; the options are those of `lightning_priors.data.sources.Table`.

    Everything is read when it is first asked for, and raises a `PriorError` if it is wrong.

    Args:
        root: The folder that paths in the table are relative to.
        file: The table.
        with_masks: Whether the masks' files are wanted.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> _ = (root / "table.csv").write_text("path,label\na.png,cat\nb.png,dog\n")
        >>> table = TableFile(root, root / "table.csv")
        >>> list(table.class_numbers), table.rows.labels
        (['cat', 'dog'], array([0, 1]))
    """

    root: Path
    file: Path
    path: str = "path"
    label: str = "label"
    classes: Sequence[str] | None = None
    split: str = "split"
    mask: str = "mask"
    with_masks: bool = True
    group: str = "group"
    aux: Sequence[str] = ()
    boxes: Mapping[str, Sequence[str]] | None = None
    keypoints: Mapping[str, Sequence[str]] = field(default_factory=dict)
    anywhere: bool = False

    @cached_property
    def columns(self) -> Columns:
        """The columns that are used; checks that the named ones are there."""
        existing_folder(self.root)
        if not self.file.is_file():
            name_the_right_source(self.root, "Table")
        places = [*(DEFAULT_BOX if self.boxes is None else self.boxes).values(), *self.keypoints.values()]
        columns = read_columns_of(
            self.file,
            texts=[self.path, self.mask] if self.with_masks else [self.path],
            categories=[self.label, self.split, self.group, *self.aux],
            numbers=[column for names in places for column in names],
        )
        if not columns.lines:
            raise PriorError(f"{self.file} has no rows")
        optional = {self.split: "split", self.mask: "mask", self.group: "group"}
        named = [column for columns in [*self.keypoints.values(), *(self.boxes or {}).values()] for column in columns]
        renamed = [column for column, default in optional.items() if column != default]
        require_columns(columns.names, [self.path, self.label, *self.aux, *named, *renamed], self.file)
        refuse_misspelt(columns.names, optional, self.file)
        return columns

    @cached_property
    def part_columns(self) -> dict[str, Sequence[str]]:
        """The columns of each part's box."""
        if self.boxes is not None:
            return dict(self.boxes)
        (columns,) = DEFAULT_BOX.values()
        if not any(column in self.columns.names for column in columns):
            return {}
        require_columns(self.columns.names, columns, self.file)
        return dict(DEFAULT_BOX)

    @cached_property
    def class_numbers(self) -> dict[str, int]:
        """The label of each class: of the listed ones, or of those in the label column."""
        if self.classes is not None:
            return named_once(self.classes, "class")
        labels = self.columns.categories[self.label]
        if "" in labels.positions:
            raise PriorError(f"no {self.label} in {self.columns.row(labels.index(''))}")
        names = self._names_in(self.label)
        if wrong := first_gap(names):
            raise PriorError(
                f"{self.label} {wrong} ({self.columns.row(labels.index(wrong))}) is out of range: the labels "
                "have a gap before it; list the classes if it is right"
            )
        return {name: number for number, name in enumerate(names)}

    @cached_property
    def aux_numbers(self) -> dict[str, dict[str, int]]:
        """The label of each class of each auxiliary task."""
        return {column: {name: number for number, name in enumerate(self._names_in(column))} for column in self.aux}

    @cached_property
    def group_numbers(self) -> dict[str, int]:
        """The number of each group."""
        return {name: number for number, name in enumerate(self._names_in(self.group))} if self._has(self.group) else {}

    def _names_in(self, column: str) -> list[str]:
        """Returns the names in a column."""
        return sorted_names(set(self.columns.categories[column].positions) - NOT_LABELLED)

    def _has(self, column: str) -> bool:
        return column in self.columns.names

    @cached_property
    def rows(self) -> TableRows:
        """What the rows say, without mistakes."""
        columns = self.columns
        for option, count in ((self.part_columns, 4), (self.keypoints, 2)):
            for name, wanted in option.items():
                if len(wanted) != count:
                    raise PriorError(f"{name!r} needs {count} columns, not {len(wanted)}: {', '.join(wanted)}")
        categories = columns.categories
        self._check_cells()
        numbers = {
            key: cells.array([number(cell, "") for cell in cells.positions])
            for key, (cells, number) in self._numbered.items()
        }
        rows = TableRows(
            paths=columns.texts[self.path],
            splits=numbers.get("split", np.zeros(len(columns.lines))).astype(np.int8),
            labels=numbers["label"],
            groups=numbers.get("group"),
            aux_labels=[
                categories[column].array([known.get(cell, -1) for cell in categories[column].positions])
                for column, known in self.aux_numbers.items()
            ],
            masks=self._masks,
            boxes=self._places(self.part_columns),
            points=self._places(self.keypoints),
        )
        check_splits(rows, columns)
        return rows

    def _check_cells(self) -> None:
        """Raises the error of the first row that has one, and of several in one row the first in this order."""
        paths, masks = self.columns.texts[self.path], self._masks
        mistakes = [
            *mistakes_in(paths, self._check_path),
            *(mistakes_in(masks, self._check_inside) if masks is not None else []),
            *(mistake for cells, number in self._numbered.values() for mistake in mistakes_in(cells, number)),
            *mistakes_in_places([*self._places(self.part_columns), *self._places(self.keypoints)]),
        ]
        if mistakes:
            index, say = min(mistakes, key=itemgetter(0))
            say(self.columns.row(index))

    @property
    def _numbered(self) -> dict[str, tuple[Categories, Callable[[str, str], int]]]:
        """The columns whose cells stand for numbers, and what gives the number of a cell or raises the row's error."""
        columns = {
            "split": (self.split, self._split_number),
            "label": (self.label, self._label_number),
            "group": (self.group, self._group_number),
        }
        return {
            key: (self.columns.categories[column], number)
            for key, (column, number) in columns.items()
            if self._has(column)
        }

    @property
    def _masks(self) -> Texts | None:
        return self.columns.texts[self.mask] if self.with_masks and self._has(self.mask) else None

    def _places(self, named: Mapping[str, Sequence[str]]) -> list[Place]:
        return [[(column, self.columns.numbers[column]) for column in columns] for columns in named.values()]

    def _check_path(self, cell: str, row: str) -> None:
        if not cell:
            raise PriorError(f"no {self.path} in {row}")
        self._check_inside(cell, row)

    def _check_inside(self, cell: str, row: str) -> None:
        if not self.anywhere:
            check_inside(cell, self.root, row, "if that is right, set anywhere: true")

    def _split_number(self, cell: str, row: str) -> int:
        return look_up(SPLIT_NUMBERS, cell, "split", row)

    def _group_number(self, cell: str, row: str) -> int:
        return look_up(self.group_numbers, cell, "group", row)

    def _label_number(self, cell: str, row: str) -> int:
        """Returns the label of a cell, which has the name of a class or its number."""
        numbers = self.class_numbers
        if cell in numbers or not cell.removeprefix("-").isdecimal():
            return look_up(numbers, cell, self.label, row)
        if not 0 <= int(cell) < len(numbers):
            raise PriorError(f"{self.label} {cell} ({row}) is out of range: there are {len(numbers)} classes")
        return int(cell)
