"""Your own pictures in one table: CSV with a header, or JSON Lines."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_priors.data.sources.base import Known, RawSample, Source, Split, raw_sample
from lightning_priors.data.sources.pictures import MaskKind, empty_mask, read_image, read_mask
from lightning_priors.data.sources.places import checked_boxes, checked_points
from lightning_priors.data.sources.table_file import TableFile
from lightning_priors.data.sources.table_rows import SPLIT_NUMBERS, place_in


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
        anywhere: Whether the table may name files outside of the root, by ``..`` or a full path.

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
        anywhere: bool = False,
    ) -> None:
        self.root = Path(root)
        self.masks = masks
        self._file = TableFile(
            self.root,
            self.root / table,
            path=path,
            label=label,
            classes=classes,
            split=split,
            mask=mask,
            with_masks=masks != "none",
            group=group,
            aux=list(aux),
            boxes=boxes,
            keypoints=dict(keypoints or {}),
            anywhere=anywhere,
        )

    @property
    def classes(self) -> list[str]:
        """The listed classes, or those that occur in the label column."""
        return list(self._file.class_numbers)

    @property
    def aux_classes(self) -> dict[str, list[str]]:
        """The classes that occur in each auxiliary column."""
        return {column: list(numbers) for column, numbers in self._file.aux_numbers.items()}

    @property
    def group_names(self) -> list[str]:
        """The groups that occur in the group column."""
        return list(self._file.group_numbers)

    @property
    def part_names(self) -> list[str]:
        """The names of the boxes."""
        return list(self._file.part_columns)

    @property
    def keypoint_names(self) -> list[str]:
        """The names of the keypoints."""
        return list(self._file.keypoints)

    @property
    def file_folder(self) -> Path | None:
        """The folder that the names of `file` are relative to."""
        return self.root

    def setup(self) -> None:
        """Reads the table.

        Raises:
            PriorError: If the table or a column is missing, or a cell is wrong.
        """
        _ = self._file.rows

    def indices(self, split: Split) -> list[int]:
        """Returns the rows of a split, counted from 0 without the header."""
        chosen: list[int] = np.flatnonzero(self._file.rows.splits == SPLIT_NUMBERS[split]).tolist()
        return chosen

    def label(self, index: int) -> int:
        """Returns the primary class of the row."""
        return int(self._file.rows.labels[index])

    def labels(self, indices: Sequence[int]) -> NDArray[np.int64]:
        """Returns the primary classes of many rows."""
        return self._file.rows.labels[np.asarray(indices, np.int64)]

    def known(self, index: int) -> Known:
        """Returns the label, auxiliary labels and group of the row."""
        rows = self._file.rows
        known = Known(label=self.label(index))
        if rows.aux_labels:
            known["aux_labels"] = [int(numbers[index]) for numbers in rows.aux_labels]
        if rows.groups is not None:
            known["group"] = int(rows.groups[index])
        return known

    def file(self, index: int) -> str:
        """Returns the file of a picture as the table names it."""
        return self._file.rows.paths[index]

    def load(self, index: int) -> RawSample:
        """Reads a picture, and its mask if the row names one."""
        rows, row = self._file.rows, self._file.columns.row(index)
        image = read_image(self.root / rows.paths[index], row)
        sample = raw_sample(image, self.known(index))
        if rows.masks is not None:
            mask = rows.masks[index]
            sample["mask"] = read_mask(self.root / mask, row, image, self.masks) if mask else empty_mask(image)
            sample["mask_valid"] = bool(mask)
        if rows.boxes:
            boxes = [place_in(columns, index) for columns in rows.boxes]
            sample["part_boxes"], sample["part_valid"] = checked_boxes(boxes, image, self.part_names, row)
        if rows.points:
            points = [place_in(columns, index) for columns in rows.points]
            sample["keypoints"], sample["keypoint_valid"] = checked_points(points, image, self.keypoint_names, row)
        return sample
