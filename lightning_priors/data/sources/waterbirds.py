"""Waterbirds: birds of CUB-200-2011 on backgrounds that agree with the label in 95 % of the training images.

Sagawa, Koh, Hashimoto, Liang: Distributionally Robust Neural Networks for Group Shifts. ICLR 2020, section 4.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lightning_priors.data.sources.base import Known, RawSample, Source, Split, raw_sample
from lightning_priors.data.sources.cub200 import Bird, BoxName, CUBFolder, keypoints, part_boxes
from lightning_priors.data.sources.paths import check_inside, existing_folder
from lightning_priors.data.sources.pictures import MaskKind, read_image, read_mask
from lightning_priors.data.sources.places import checked_boxes
from lightning_priors.data.sources.reading import look_up, number_in, read_table
from lightning_priors.errors import PriorError

SPLIT_CODES: dict[str, Split] = {"0": "train", "1": "val", "2": "test"}
BINARY = {"0": 0, "1": 1}
COLUMNS = ("img_id", "img_filename", "y", "split", "place")
HEAD_COLUMNS = ("img_id", "x0", "y0", "x1", "y1")


@dataclass(frozen=True)
class WaterbirdsRow:
    """One row of metadata.csv."""

    row: str
    """Its name in messages, such as "row 2 of metadata.csv"."""
    identity: str
    """img_id, the same as in CUB-200-2011."""
    name: str
    """The image's file below the root."""
    label: int
    split: Split
    place: int

    @property
    def species(self) -> str:
        """The folder of the image, such as "001.Black_footed_Albatross"."""
        return Path(self.name).parent.name

    @property
    def cub_name(self) -> str:
        """The file's name in CUB-200-2011."""
        return f"{self.species}/{Path(self.name).name}"


class Waterbirds(Source):
    """Reads Waterbirds as its authors ship it, or other data in that layout: landbird (0) or waterbird (1)?

    The group of an image is 2 * label + place. The species is an auxiliary task; its name is the folder of the image.
    Waterbirds itself has no masks, boxes or keypoints. They are read from a CUB-200-2011 folder, by the name of the
    image file; without such a folder the batches have none of them.

    Args:
        root: The folder with metadata.csv.
        cub_root: The folder of CUB-200-2011; None looks for ``CUB_200_2011/`` in the root.
        masks: How the segmentations of CUB-200-2011 are read: "soft", "hard" or "none", see `CUB200`.
        boxes: The part boxes: "head", "bird". If the root has a file ``head_boxes.csv`` (columns img_id, x0, y0, x1,
            y1 in pixels), heads are read from it, otherwise they are computed from the parts of CUB-200-2011.
        head_margin: Margin of the computed head box, see `CUB200`.

    Raises:
        PriorError: In `setup` and in properties such as `classes`, if a file is missing or wrong.

    Example:
        >>> Waterbirds("/nowhere").classes, Waterbirds("/nowhere").group_names[1]
        (['landbird', 'waterbird'], 'landbird on water')
    """

    def __init__(
        self,
        root: str,
        cub_root: str | None = None,
        masks: MaskKind = "soft",
        boxes: Sequence[BoxName] = ("head",),
        head_margin: float = 0.2,
    ) -> None:
        self.root = Path(root)
        self.cub_root = cub_root
        self.masks = masks
        self.boxes = list(boxes)
        self.head_margin = head_margin

    @property
    def classes(self) -> list[str]:
        """Landbird and waterbird, in the order of the column y."""
        return ["landbird", "waterbird"]

    @property
    def group_names(self) -> list[str]:
        """The four pairs of label and place."""
        return [f"{bird} on {place}" for bird in self.classes for place in ("land", "water")]

    @property
    def aux_classes(self) -> dict[str, list[str]]:
        """One auxiliary task: the species."""
        return {"species": list(self._species)}

    @property
    def part_names(self) -> list[str]:
        """The names in the option `boxes`, if there is a CUB-200-2011 folder."""
        return list(self.boxes) if self._cub else []

    @property
    def keypoint_names(self) -> list[str]:
        """The parts of CUB-200-2011, if there is such a folder."""
        return self._cub.part_names if self._cub else []

    @property
    def file_folder(self) -> Path | None:
        """The folder that the names of `file` are relative to."""
        return self.root

    def setup(self) -> None:
        """Reads metadata.csv, the index files of CUB-200-2011 and head_boxes.csv.

        Raises:
            PriorError: If a file, a column or an image's entry is missing or wrong.
        """
        _ = self._rows, self._species, self._heads
        if self._cub is not None:
            for row in self._rows:
                self._annotation(row)
            if self.masks != "none":
                _ = self._cub.segmentations

    def indices(self, split: Split) -> list[int]:
        """Returns the rows of metadata.csv in a split, counted from 0."""
        return [index for index, row in enumerate(self._rows) if row.split == split]

    def label(self, index: int) -> int:
        """Returns the column y."""
        return self._rows[index].label

    def known(self, index: int) -> Known:
        """Returns the label, the species and the group, from metadata.csv."""
        row = self._rows[index]
        return Known(label=row.label, aux_labels=[self._species[row.species]], group=2 * row.label + row.place)

    def file(self, index: int) -> str:
        """Returns the file of an image, relative to the root."""
        return self._rows[index].name

    def load(self, index: int) -> RawSample:
        """Reads an image and what CUB-200-2011 knows about it."""
        row = self._rows[index]
        image = read_image(self.root / row.name, row.row)
        sample = raw_sample(image, self.known(index))
        if self._cub is None:
            return sample
        if self.masks != "none":
            sample["mask"] = read_mask(self._cub.mask_path(row.cub_name), row.row, image, self.masks)
            sample["mask_valid"] = True
        bird = self._annotation(row)
        boxes, where = part_boxes(bird, self._cub.part_names, self.boxes, self.head_margin, image), row.row
        if self._heads is not None and "head" in self.boxes:
            boxes[self.boxes.index("head")] = self._heads.get(row.identity)
            where = f"{where}, img_id {row.identity} of head_boxes.csv"
        sample["part_boxes"], sample["part_valid"] = checked_boxes(boxes, image, self.boxes, where)
        sample["keypoints"], sample["keypoint_valid"] = keypoints(bird, len(self._cub.part_names))
        return sample

    @cached_property
    def _rows(self) -> list[WaterbirdsRow]:
        existing_folder(self.root)
        rows = []
        for row, cells in read_table(self.root / "metadata.csv", COLUMNS):
            check_inside(cells["img_filename"], self.root, row, "its pictures lie below the root")
            rows.append(
                WaterbirdsRow(
                    row=row,
                    identity=cells["img_id"],
                    name=cells["img_filename"],
                    label=look_up(BINARY, cells["y"], "label y", row),
                    split=look_up(SPLIT_CODES, cells["split"], "split", row),
                    place=look_up(BINARY, cells["place"], "place", row),
                )
            )
        return rows

    @cached_property
    def _species(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(sorted({row.species for row in self._rows}))}

    @cached_property
    def _cub(self) -> CUBFolder | None:
        if self.cub_root is not None:
            return CUBFolder(self.cub_root)
        beside = self.root / "CUB_200_2011"
        return CUBFolder(str(beside)) if beside.is_dir() else None

    @cached_property
    def _by_name(self) -> dict[str, Bird]:
        return {bird.name: bird for bird in self._cub.birds} if self._cub else {}

    @cached_property
    def _heads(self) -> dict[str, list[float]] | None:
        """The head boxes by img_id, or None where the root has no such file."""
        path = self.root / "head_boxes.csv"
        if not path.is_file():
            return None
        heads = {}
        for row, cells in read_table(path, HEAD_COLUMNS):
            heads[cells["img_id"]] = [number_in(cells[side], side, row) for side in HEAD_COLUMNS[1:]]
        return heads

    def _annotation(self, row: WaterbirdsRow) -> Bird:
        if row.cub_name not in self._by_name:
            raise PriorError(f"CUB-200-2011 has no image {row.cub_name} ({row.row})")
        return self._by_name[row.cub_name]
