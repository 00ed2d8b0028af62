"""Writing annotations as a table that the source `Table` reads, and the configuration that reads it."""

import csv
import inspect
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from torch import Tensor

from lightning_priors.annotation.annotate import Record, lacks
from lightning_priors.annotation.annotator import Annotation
from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import RawSample, Source, Table, UnreadableImageError
from lightning_priors.data.sources.pictures import read_image
from lightning_priors.errors import PriorError

FILLED, POOR, NOTHING = "filled in", "below the least score", "not found"
USED_UP = ("source", "train_fraction", "images_per_class", "annotated_fraction")
"""Options of the data module that the table already answers: which images it has and what is known of them."""
OWN_COLUMNS = ("path", "label", "split", "group", "mask", "score")


class TableWriter:
    """Collects pictures with their annotation and writes them.

    Known masks, boxes and keypoints are written as they are; where the mask or a box is not known, what the annotator
    says stands in its place, unless its score is too low. Masks are written with 256 levels, at once; the table and the
    configuration at the end. Pictures stay where they are, named by their full path; those that are no files, or that
    the source shows otherwise than `Table` reads them, are written as PNG. `Table` numbers groups and auxiliary classes
    by the names that occur.

    Args:
        folder: A folder without a table; it is made.
        data: After ``setup(None)``.
        part_names: The parts whose boxes the annotator gives; empty for one that gives masks.
        least_score: Annotations with a lower score are left out.

    Raises:
        PriorError: If the folder has a table already, or an auxiliary task has the name of another column.
    """

    def __init__(self, folder: Path, data: PriorDataModule, part_names: list[str], least_score: float) -> None:
        if (folder / "table.csv").exists():
            raise PriorError(f"{folder / 'table.csv'} is there already; give another folder")
        self.folder, self.data, self.found_parts, self.least_score = folder.absolute(), data, part_names, least_score
        self.parts = list(dict.fromkeys([*data.source.part_names, *part_names]))
        self.counts: Counter[str] = Counter()
        self.copied = 0
        self._rows: list[dict[str, str]] = []
        if taken := set(data.source.aux_classes) & set(self._columns([])):
            raise PriorError(f"the auxiliary task {min(taken)!r} has the name of a column of the table")
        (self.folder / "masks").mkdir(parents=True, exist_ok=True)

    def add(self, record: Record) -> None:
        """Adds a picture."""
        sample, source = record.known, self.data.source
        cells = {
            "path": str(self._picture(record)),
            "label": self.data.classes[sample["label"]],
            "split": record.split,
        }
        if "group" in sample:
            cells["group"] = source.group_names[sample["group"]]
        for (task, names), label in zip(source.aux_classes.items(), sample.get("aux_labels", []), strict=False):
            cells[task] = names[label] if label >= 0 else ""
        accepted = self._accepted(record)
        cells |= self._mask_cells(record, accepted) | self._box_cells(sample, accepted) | self._point_cells(sample)
        if record.found is not None:
            cells["score"] = f"{record.found.score:.6g}"
        self._rows.append(cells)

    def finish(self) -> tuple[Path, Path]:
        """Writes ``table.csv`` and ``data.yaml``; gives their paths."""
        used = {name for row in self._rows for name in row}
        columns = [name for name in self._columns(list(self.data.source.aux_classes)) if name in used]
        table, configuration = self.folder / "table.csv", self.folder / "data.yaml"
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self._rows)
        text = yaml.safe_dump({"data": self._configuration()}, sort_keys=False, allow_unicode=True)
        head = (
            "# Written by lightning-priors annotate; the column score of table.csv says how far to trust what is new.\n"
        )
        configuration.write_text(head + text, encoding="utf-8")
        return table, configuration

    def _columns(self, aux: list[str]) -> list[str]:
        boxes = [column for part in self.parts for column in box_columns(part)]
        points = [column for name in self.data.source.keypoint_names for column in point_columns(name)]
        return [*OWN_COLUMNS[:-1], *aux, *boxes, *points, OWN_COLUMNS[-1]]

    def _picture(self, record: Record) -> Path:
        image = record.known["image"].as_subclass(Tensor)
        stored = stored_file(self.data.source, record.number, image)
        if stored is not None:
            return stored
        self.copied += 1
        path = self.folder / "images" / f"{record.number:06d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
        return path

    def _accepted(self, record: Record) -> Annotation | None:
        """What the annotator says, if it is to be written; counts it."""
        found, known = record.found, record.known
        if found is None or not lacks(known, self.found_parts, self.data.source.part_names):
            return None
        if not is_something(found):
            self.counts[NOTHING] += 1
        elif found.score < self.least_score:
            self.counts[POOR] += 1
        else:
            self.counts[FILLED] += 1
            return found
        return None

    def _mask_cells(self, record: Record, accepted: Annotation | None) -> dict[str, str]:
        mask: Tensor | None = None if accepted is None else accepted.mask
        if record.known.get("mask_valid", False):
            mask = record.known["mask"].as_subclass(Tensor)[0]
        if mask is None:
            return {"mask": ""} if "mask" in record.known or not self.found_parts else {}
        name = f"masks/{record.number:06d}.png"
        levels = (mask * 255).round().to(torch.uint8)
        Image.fromarray(levels.numpy()).save(self.folder / name)
        return {"mask": name}

    def _box_cells(self, sample: RawSample, accepted: Annotation | None) -> dict[str, str]:
        boxes: dict[str, Any] = {}
        if accepted is not None and self.found_parts:
            boxes = {part: box for part, box in zip(self.found_parts, accepted.boxes, strict=True) if box is not None}
        if "part_boxes" in sample:
            known = zip(self.data.source.part_names, sample["part_boxes"].tolist(), sample["part_valid"], strict=True)
            boxes |= {part: box for part, box, valid in known if valid}
        cells = dict.fromkeys((column for part in self.parts for column in box_columns(part)), "")
        for part, box in boxes.items():
            cells |= {column: f"{side:.9g}" for column, side in zip(box_columns(part), box, strict=True)}
        return cells

    def _point_cells(self, sample: RawSample) -> dict[str, str]:
        if "keypoints" not in sample:
            return {}
        names, valid = self.data.source.keypoint_names, sample["keypoint_valid"].tolist()
        cells: dict[str, str] = {}
        for name, point, known in zip(names, sample["keypoints"].tolist(), valid, strict=True):
            values = [f"{value:.9g}" for value in point] if known else ["", ""]
            cells |= dict(zip(point_columns(name), values, strict=True))
        return cells

    def _configuration(self) -> dict[str, Any]:
        source, aux = self.data.source, list(self.data.source.aux_classes)
        options: dict[str, Any] = {"root": str(self.folder), "classes": list(source.classes)}
        if aux:
            options["aux"] = aux
        if any(Path(row["path"]).is_absolute() for row in self._rows):  # pictures that were not copied
            options["anywhere"] = True
        if self.parts:
            options["boxes"] = {part: box_columns(part) for part in self.parts}
        if source.keypoint_names:
            options["keypoints"] = {name: point_columns(name) for name in source.keypoint_names}
        entries = {"source": {"class_path": Table.__name__, "init_args": options}, **kept_options(self.data)}
        if not any(row["split"] == "val" for row in self._rows):
            entries["val_fraction"] = 0.0
        return entries


def kept_options(data: PriorDataModule) -> dict[str, Any]:
    """Lists the options of a data module that mean the same for its table, where they are not at their default.

    >>> from lightning_priors.data.sources import Kakapo
    >>> kept_options(PriorDataModule(Kakapo(), image_size=64, train_fraction=0.5))
    {'image_size': 64}
    """
    defaults = {name: each.default for name, each in inspect.signature(PriorDataModule.__init__).parameters.items()}
    names = [name for name in defaults if name not in ("self", *USED_UP)]
    return {name: getattr(data, name) for name in names if getattr(data, name) != defaults[name]}


def stored_file(source: Source, index: int, image: Tensor) -> Path | None:
    """Finds the file of a picture, if `Table` reads from it what the source shows.

    Args:
        source: The source of the picture.
        index: Of the picture.
        image: (3, H, W) uint8, as the source shows it; one that was turned or drawn is not what its file holds.

    Returns:
        Its full path, or None.

    >>> from lightning_priors.data.sources import Kakapo
    >>> stored_file(Kakapo(size=32), 0, torch.zeros(3, 32, 32, dtype=torch.uint8)) is None
    True
    """
    folder, name = source.file_folder, source.file(index)
    if folder is None or not name:
        return None
    path = (folder / name).absolute()
    try:
        same = torch.equal(read_image(path, name).as_subclass(Tensor), image)
    except UnreadableImageError:  # the source reads it in a way of its own
        return None
    return path if same else None


def is_something(annotation: Annotation) -> bool:
    """Says whether an annotation has a box, or a mask that reaches 0.5 somewhere.

    >>> is_something(Annotation(0.9, mask=torch.full((2, 2), 0.4)))
    False
    """
    has_box = any(box is not None for box in annotation.boxes)
    return has_box or (annotation.mask is not None and bool((annotation.mask >= 0.5).any()))


def box_columns(part: str) -> list[str]:
    """Names the columns of a box.

    >>> box_columns("head")
    ['head_x0', 'head_y0', 'head_x1', 'head_y1']
    """
    return [f"{part}_{side}" for side in ("x0", "y0", "x1", "y1")]


def point_columns(name: str) -> list[str]:
    """Names the columns of a keypoint.

    >>> point_columns("left eye")
    ['left eye_x', 'left eye_y']
    """
    return [f"{name}_x", f"{name}_y"]
