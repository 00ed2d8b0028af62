"""Your own pictures in one table: CSV with a header, or JSON Lines."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lightning_priors.data.sources.base import RawSample, Source, Split
from lightning_priors.data.sources.layouts import name_the_right_source
from lightning_priors.data.sources.reading import (
    MaskKind,
    checked_boxes,
    checked_points,
    empty_mask,
    existing_file,
    existing_folder,
    look_up,
    named_once,
    number_in,
    parse_json,
    read_image,
    read_mask,
    read_table,
    read_text,
    require_columns,
    sorted_names,
)
from lightning_priors.errors import PriorError

SPLITS: dict[str, Split] = {"train": "train", "val": "val", "test": "test"}
DEFAULT_BOX = {"box": ("x0", "y0", "x1", "y1")}
NOT_LABELLED = {"", "-1"}
Cells = Mapping[str, str]


@dataclass(frozen=True)
class TableRow:
    """One row of the table."""

    row: str
    """Its name in messages, such as "row 2 of table.csv"."""
    path: str
    split: Split
    label: int
    group: int | None
    """None if the table has no groups."""
    aux_labels: list[int]
    mask: str | None
    """Its file, empty if this picture has no mask; None if the table has no masks."""
    boxes: list[list[float] | None]
    points: list[list[float] | None]


class Table(Source):
    r"""Reads pictures and their annotation from one table with a row for each picture.

    The columns `split`, `mask` and `group` may be missing unless you rename them; every other column that you name
    must be there. An empty cell means "not annotated": no mask, no box, no keypoint, no auxiliary label (-1 also
    means no auxiliary label). Boxes and keypoints are in pixels of the picture, from (0, 0) in the upper left corner
    to (W, H) in the lower right one. Unless you list the primary classes, they are the names that occur in the
    column: numbers in their order, other names alphabetically. So are the auxiliary classes and the groups.

    Args:
        root: The folder of the table; paths in the table are relative to it.
        table: The file of the table: ``.csv`` with a header, or ``.jsonl`` for JSON Lines.
        path: Column of the picture's file.
        label: Column of the primary class: its name, or its number if you list the classes.
        classes: The primary classes in the order of their labels.
        split: Column with train, val or test. Without it every row is for training, and the data module sets some
            aside for validation.
        mask: Column of the mask's file, a grey picture of the same size with 255 on the target.
        masks: How masks are read: "soft" divides grey levels by 255, "hard" gives 1 from the level 128 on, "none"
            reads no masks.
        group: Column of the group, such as a pair of label and background.
        aux: Columns of auxiliary classes; each is one auxiliary task.
        boxes: For each part the four columns of x0, y0, x1, y1. By default one part "box" with the columns x0, y0, x1
            and y1, if the table has them.
        keypoints: For each keypoint the two columns of x and y.

    Raises:
        PriorError: In `setup` and in properties such as `classes`, if the table or a column is missing, or a cell is
            wrong.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> _ = (root / "table.csv").write_text("path,label,split\na.png,cat,train\nb.png,dog,test\n")
        >>> source = Table(str(root))
        >>> source.classes, source.indices("test"), source.label(1)
        (['cat', 'dog'], [1], 1)
    """

    def __init__(
        self,
        root: str,
        table: str = "table.csv",
        path: str = "path",
        label: str = "label",
        classes: Sequence[str] | None = None,
        split: str = "split",
        mask: str = "mask",
        masks: MaskKind = "soft",
        group: str = "group",
        aux: Sequence[str] = (),
        boxes: Mapping[str, Sequence[str]] | None = None,
        keypoints: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.root = Path(root)
        self.table = self.root / table
        self.path = path
        self.label_column = label
        self.class_names = classes
        self.split = split
        self.mask = mask
        self.masks = masks
        self.group = group
        self.aux = list(aux)
        self.boxes = boxes
        self.keypoints = dict(keypoints or {})

    @property
    def classes(self) -> list[str]:
        """The listed classes, or those that occur in the label column."""
        return list(self._class_numbers)

    @property
    def aux_classes(self) -> dict[str, list[str]]:
        """The classes that occur in each auxiliary column."""
        return {column: list(numbers) for column, numbers in self._aux_numbers.items()}

    @property
    def group_names(self) -> list[str]:
        """The groups that occur in the group column."""
        return list(self._group_numbers)

    @property
    def part_names(self) -> list[str]:
        """The names of the boxes."""
        return list(self._boxes)

    @property
    def keypoint_names(self) -> list[str]:
        """The names of the keypoints."""
        return list(self.keypoints)

    @property
    def file_folder(self) -> Path | None:
        """The folder that the names of `file` are relative to."""
        return self.root

    def setup(self) -> None:
        """Reads the table.

        Raises:
            PriorError: If the table or a column is missing, or a cell is wrong.
        """
        _ = self._rows

    def indices(self, split: Split) -> list[int]:
        """Returns the rows of a split, counted from 0 without the header."""
        return [index for index, row in enumerate(self._rows) if row.split == split]

    def label(self, index: int) -> int:
        """Returns the primary class of the row."""
        return self._rows[index].label

    def file(self, index: int) -> str:
        """Returns the file of a picture as the table names it."""
        return self._rows[index].path

    def load(self, index: int) -> RawSample:
        """Reads a picture, and its mask if the row names one."""
        row = self._rows[index]
        image = read_image(self.root / row.path, row.row)
        sample = RawSample(image=image, label=row.label)
        if self.aux:
            sample["aux_labels"] = row.aux_labels
        if row.group is not None:
            sample["group"] = row.group
        if row.mask is not None:
            sample["mask"] = empty_mask(image)
            if row.mask:
                sample["mask"] = read_mask(self.root / row.mask, row.row, image, self.masks)
            sample["mask_valid"] = bool(row.mask)
        if row.boxes:
            sample["part_boxes"], sample["part_valid"] = checked_boxes(row.boxes, image, self.part_names, row.row)
        if row.points:
            sample["keypoints"], sample["keypoint_valid"] = checked_points(
                row.points, image, self.keypoint_names, row.row
            )
        return sample

    @cached_property
    def _records(self) -> list[tuple[str, Cells]]:
        """The name and the cells of each row."""
        existing_folder(self.root)
        if not self.table.is_file():
            name_the_right_source(self.root, "Table")
        read = read_json_lines if self.table.suffix == ".jsonl" else read_table
        records = list(read(existing_file(self.table)))
        if not records:
            raise PriorError(f"{self.table} has no rows")
        return records

    @cached_property
    def _columns(self) -> dict[str, None]:
        """The columns in their order; checks that the named ones are there."""
        columns = {column: None for _, cells in self._records for column in cells}
        named = [*self.aux, *(column for columns in self.keypoints.values() for column in columns)]
        named += [column for columns in (self.boxes or {}).values() for column in columns]
        optional = {self.split: "split", self.mask: "mask", self.group: "group"}
        named += [column for column, default in optional.items() if column != default]
        require_columns(columns, [self.path, self.label_column, *named], self.table)
        for column in optional:
            for other in columns:
                if column not in columns and other.lower() == column.lower():
                    raise PriorError(f"{self.table} has no column {column!r}, did you mean {other!r}?")
        return columns

    @cached_property
    def _boxes(self) -> dict[str, Sequence[str]]:
        """The columns of each part's box."""
        if self.boxes is not None:
            return dict(self.boxes)
        (columns,) = DEFAULT_BOX.values()
        if not any(column in self._columns for column in columns):
            return {}
        require_columns(self._columns, columns, self.table)
        return dict(DEFAULT_BOX)

    @cached_property
    def _class_numbers(self) -> dict[str, int]:
        if self.class_names is not None:
            return named_once(self.class_names, "class")
        _ = self._columns
        for row, cells in self._records:
            if not cells.get(self.label_column):
                raise PriorError(f"no {self.label_column} in {row}")
        names = self._names_in(self.label_column)
        if wrong := first_gap(names):
            row = next(row for row, cells in self._records if cells[self.label_column] == wrong)
            raise PriorError(
                f"{self.label_column} {wrong} ({row}) is out of range: the labels have a gap before it; "
                "list the classes if it is right"
            )
        return {name: number for number, name in enumerate(names)}

    @cached_property
    def _aux_numbers(self) -> dict[str, dict[str, int]]:
        _ = self._columns
        return {column: {name: number for number, name in enumerate(self._names_in(column))} for column in self.aux}

    @cached_property
    def _group_numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self._names_in(self.group))} if self._has(self.group) else {}

    def _names_in(self, column: str) -> list[str]:
        """Returns the names in a column."""
        return sorted_names({cells.get(column, "") for _, cells in self._records} - NOT_LABELLED)

    def _has(self, column: str) -> bool:
        return column in self._columns

    @cached_property
    def _rows(self) -> list[TableRow]:
        _ = self._columns
        for option, count in ((self._boxes, 4), (self.keypoints, 2)):
            for name, columns in option.items():
                if len(columns) != count:
                    raise PriorError(f"{name!r} needs {count} columns, not {len(columns)}: {', '.join(columns)}")
        rows = [self._row(row, cells) for row, cells in self._records]
        first: dict[str, TableRow] = {}
        for row in rows:
            other = first.setdefault(row.path, row)
            if other.split != row.split:
                raise PriorError(
                    f"{row.path} is in the {other.split} split ({other.row}) and in {row.split} ({row.row})"
                )
        return rows

    def _row(self, row: str, cells: Cells) -> TableRow:
        if not cells.get(self.path):
            raise PriorError(f"no {self.path} in {row}")
        has_masks = self.masks != "none" and self._has(self.mask)
        return TableRow(
            row=row,
            path=cells[self.path],
            split=look_up(SPLITS, cells.get(self.split, ""), "split", row) if self._has(self.split) else "train",
            label=self._label(cells.get(self.label_column, ""), row),
            group=look_up(self._group_numbers, cells.get(self.group, ""), "group", row)
            if self._has(self.group)
            else None,
            aux_labels=[numbers.get(cells.get(column, ""), -1) for column, numbers in self._aux_numbers.items()],
            mask=cells.get(self.mask, "") if has_masks else None,
            boxes=[numbers_in(cells, columns, row) for columns in self._boxes.values()],
            points=[numbers_in(cells, columns, row) for columns in self.keypoints.values()],
        )

    def _label(self, cell: str, row: str) -> int:
        """Returns the label of a cell, which has the name of a class or its number."""
        numbers = self._class_numbers
        if cell in numbers or not cell.removeprefix("-").isdecimal():
            return look_up(numbers, cell, self.label_column, row)
        if not 0 <= int(cell) < len(numbers):
            raise PriorError(f"{self.label_column} {cell} ({row}) is out of range: there are {len(numbers)} classes")
        return int(cell)


def read_json_lines(path: Path) -> Iterator[tuple[str, Cells]]:
    r"""Reads a file with one flat JSON object per line.

    Args:
        path: The file, in UTF-8.

    Yields:
        For each line its name, such as "row 1 of birds.jsonl", and its values as text, empty for null.

    Raises:
        PriorError: If a line is no flat JSON object.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "birds.jsonl"
    >>> _ = path.write_text('{"path": "a.png", "label": 1, "mask": null}\n')
    >>> list(read_json_lines(path))
    [('row 1 of birds.jsonl', {'path': 'a.png', 'label': '1', 'mask': ''})]
    """
    for count, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        row = f"row {count} of {path.name}"
        entry = parse_json(line, row)
        if not isinstance(entry, dict) or any(isinstance(value, dict | list) for value in entry.values()):
            raise PriorError(f"{row} is no flat JSON object: {line.strip()[:60]}")
        yield row, {name: "" if value is None else str(value).strip() for name, value in entry.items()}


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


def numbers_in(cells: Cells, columns: Sequence[str], row: str) -> list[float] | None:
    """Reads the numbers of a box or keypoint.

    Args:
        cells: The cells of the row by column.
        columns: The columns of the numbers.
        row: The row, for the message.

    Returns:
        The numbers, or None when all cells are empty.

    Raises:
        PriorError: If only some are empty, or one is not a number.

    >>> numbers_in({"x": "3", "y": "4.5"}, ["x", "y"], "row 2"), numbers_in({"x": "", "y": ""}, ["x", "y"], "row 3")
    ([3.0, 4.5], None)
    """
    if not any(cells.get(column) for column in columns):
        return None
    return [number_in(cells.get(column, ""), column, row) for column in columns]
