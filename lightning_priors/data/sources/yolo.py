"""YOLO labels: one text file for each picture, with boxes, polygons or keypoints as shares of the picture's sides."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_priors.data.sources.annotated import Annotated
from lightning_priors.data.sources.annotation_table import SPLIT_NAMES, AnnotationTable, Picture, Region
from lightning_priors.data.sources.finding import relative
from lightning_priors.data.sources.layouts import name_the_right_source
from lightning_priors.data.sources.paths import existing_file, hint_beside, stays_inside
from lightning_priors.data.sources.pictures import SUFFIXES
from lightning_priors.data.sources.reading import look_up, number_in, read_text
from lightning_priors.errors import PriorError
from lightning_priors.yaml_file import read_yaml

DESCRIPTIONS = ("data.yaml", "dataset.yaml", "*.yaml", "*.yml")


class Yolo(Annotated):
    r"""Reads YOLO labels as Ultralytics describes them; the options are those of `Annotated`.

    ``data.yaml`` names the classes and, for each split, the folder or the list of pictures; an export without it has
    ``classes.txt`` beside ``images/`` and ``labels/`` (Label Studio). The labels of ``images/a.jpg`` stand in
    ``labels/a.txt``, or beside the picture: in each line a class and a box, a polygon, or with ``kpt_shape`` a box and
    keypoints, which are called as ``kpt_names`` says, otherwise by their numbers. A picture without labels has no
    annotation.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("images/train/a.jpg", "labels/train/a.txt", "images/train/b.jpg", "labels/train/b.txt"):
        ...     (root / name).parent.mkdir(parents=True, exist_ok=True)
        ...     _ = (root / name).write_text("1 0.5 0.5 0.2 0.4" if "a.txt" in name else "0 0.5 0.5 0.2 0.4")
        >>> _ = (root / "data.yaml").write_text("train: images/train\nnames: [kakapo, kea]")
        >>> source = Yolo(str(root))
        >>> source.classes, source.label(0), source.part_names
        (['kakapo', 'kea'], 1, ['target'])
    """

    def read(self) -> AnnotationTable:
        """Reads the description and the labels.

        Raises:
            PriorError: If a file is missing or a line is wrong.
        """
        path = self._description()
        content = _content(path)
        if self.images is not None:
            raise PriorError(f"Yolo finds the pictures by {path.name}: leave images out")
        names, points = content["names"], _point_names(content)
        pictures = []
        for file, key in self._files(content, path):
            labels = _labels_of(file)
            regions = list(_regions(labels, names, points, len(points) and content["kpt_shape"][1]))
            where = f"{key or 'images'} of {path.name}"
            pictures.append(Picture(relative(file, self.root), where, regions, SPLIT_NAMES.get(key), shares=True))
        return AnnotationTable(pictures, dict.fromkeys(names, ""), points)

    def _description(self) -> Path:
        """The file that names the classes."""
        if isinstance(self.annotations, str):
            return existing_file(self.root / self.annotations)
        if self.annotations is not None:
            raise PriorError("Yolo takes one file that describes all splits: annotations is its name")
        for pattern in (*DESCRIPTIONS, "classes.txt"):
            for path in sorted(self.root.glob(pattern)):
                return path
        name_the_right_source(self.root, "Yolo")
        raise PriorError(f"{self.root} has no data.yaml that names the classes")

    def _files(self, content: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, str]]:
        """All pictures, each with the entry that names it."""
        base = path.parent / str(content.get("path") or "")
        bases = [base, path.parent] if base.is_dir() else [path.parent]
        for key in SPLIT_NAMES:
            entries = content.get(key) or ()
            for entry in [entries] if isinstance(entries, str) else entries:
                for file in _listed(_place(str(entry), bases, path, self.root)):
                    yield file, key
        if path.suffix == ".txt":
            for file in _listed(self.root / "images"):
                yield file, ""


def _content(path: Path) -> dict[str, Any]:
    """The description, with the names as a list."""
    if path.suffix == ".txt":
        return {"names": [line.strip() for line in read_text(path).splitlines() if line.strip()]}
    content = read_yaml(path)
    if not isinstance(content, dict) or not isinstance(content.get("names"), list | dict):
        raise PriorError(f"{path} describes no YOLO data: it has no list 'names'")
    names = content["names"]
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise PriorError(f"the names of {path} are not numbered 0, 1, 2, ...: {', '.join(map(str, names))}")
        names = [names[number] for number in range(len(names))]
    return {**content, "names": [str(name) for name in names]}


def _point_names(content: Mapping[str, Any]) -> list[str]:
    """The names of the keypoints."""
    if not content.get("kpt_shape"):
        return []
    names = content.get("kpt_names")
    if isinstance(names, dict):  # one list for each class
        names = next(iter(names.values()))
    return [str(name) for name in names or range(content["kpt_shape"][0])]


def _place(entry: str, bases: Sequence[Path], path: Path, root: Path) -> Path:
    """Where the pictures of a split are; Roboflow writes ``../train/images`` for ``train/images``."""
    inside = entry
    while inside.startswith(("../", "./")):
        inside = inside.partition("/")[2]
    for name in (entry, inside):
        for base in bases:
            if (base / name).exists() and stays_inside(os.path.abspath(base / name), root):
                return base / name
    raise PriorError(f"no {entry} ({path}){hint_beside(bases[0] / inside)}")


def _listed(place: Path) -> Iterator[Path]:
    """The pictures of a folder, or those that a list names."""
    if place.is_dir():
        yield from (path for path in sorted(place.rglob("*")) if path.suffix.lower() in SUFFIXES)
        return
    if not place.is_file():
        raise PriorError(f"no folder {place}{hint_beside(place)}")
    for line in read_text(place).splitlines():
        if line.strip():
            yield place.parent / line.strip()


def _labels_of(picture: Path) -> Path:
    """The file of a picture's labels: the last folder ``images`` of its path is called ``labels``, or beside it."""
    parts = list(picture.parts)
    for number in reversed(range(len(parts) - 1)):
        if parts[number] == "images":
            beside = Path(*parts[:number], "labels", *parts[number + 1 :]).with_suffix(".txt")
            if beside.is_file():
                return beside
            break
    return picture.with_suffix(".txt")


def _regions(path: Path, names: Sequence[str], points: Sequence[str], dimensions: int) -> Iterator[Region]:
    """The regions of a picture; none if it has no file of labels."""
    if not path.is_file():
        return
    numbered = {str(number): name for number, name in enumerate(names)}
    for count, line in enumerate(read_text(path).splitlines(), 1):
        if cells := line.split():
            where = f"line {count} of {path.name}"
            category = look_up(numbered, cells[0], "class", where)
            numbers = [number_in(cell, "a coordinate", where) for cell in cells[1:]]
            yield _region(where, category, numbers, points, dimensions)


def _region(where: str, category: str, numbers: list[float], points: Sequence[str], dimensions: int) -> Region:
    if points and len(numbers) == 4 + dimensions * len(points):
        found = {}
        for place, name in enumerate(points):
            x, y, *seen = numbers[4 + dimensions * place : 4 + dimensions * (place + 1)]
            if seen[0] > 0 if seen else (x, y) != (0, 0):
                found[name] = (x, y)
        return Region(where, category, box=_box(numbers), points=found)
    if len(numbers) == 4:
        return Region(where, category, box=_box(numbers))
    if len(numbers) >= 6 and len(numbers) % 2 == 0:
        return Region(where, category, outline=[numbers])
    raise PriorError(f"{where} has {len(numbers)} numbers, which are neither a box nor a polygon")


def _box(numbers: Sequence[float]) -> tuple[float, float, float, float]:
    """The corners of a box that is given by its centre and its sides."""
    x, y, width, height = numbers[:4]
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2
