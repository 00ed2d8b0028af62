"""COCO annotations: as Label Studio, CVAT, FiftyOne, Roboflow and COCO itself write them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_priors.data.sources.annotated import Annotated
from lightning_priors.data.sources.annotation_table import (
    AnnotationTable,
    Box,
    Picture,
    Point,
    Region,
    as_text,
    size_of,
)
from lightning_priors.data.sources.base import Split
from lightning_priors.data.sources.finding import annotation_files, picture_file
from lightning_priors.data.sources.layouts import json_kind, name_the_right_source
from lightning_priors.data.sources.outlines import Outline
from lightning_priors.data.sources.reading import parse_json, read_text
from lightning_priors.errors import PriorError

PATTERNS = (
    ("_annotations.coco.json", "*/_annotations.coco.json"),  # Roboflow
    ("labels.json", "*/labels.json"),  # FiftyOne
    ("annotations/instances_*.json",),  # COCO, CVAT, Datumaro
    ("annotations/person_keypoints_*.json",),
    ("annotations/labels_*.json",),  # Datumaro: tags
    ("annotations/*.json",),
    ("result.json", "result_coco.json"),  # Label Studio
    ("*.json",),
)
PICTURE_KEYS = {"id", "file_name", "width", "height", "license", "flickr_url", "coco_url", "date_captured", "extra"}
REGION_KEYS = {"id", "image_id", "category_id", "bbox", "segmentation", "area", "iscrowd", "keypoints", "num_keypoints"}


class Coco(Annotated):
    """Reads COCO annotations; the options are those of `Annotated`.

    These layouts are found by themselves: ``_annotations.coco.json`` in the root or in each split's folder (Roboflow),
    ``labels.json`` and ``data/`` (FiftyOne), ``annotations/instances_*.json`` and ``images/`` (COCO, CVAT),
    ``result.json`` and ``images/`` (Label Studio), and any other COCO file in the root. Attributes are the entries
    that a tool adds to pictures and annotations, there or in ``attributes``. Keypoints are those that are labelled,
    seen (2) or hidden (1).

    Example:
        >>> import json, tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "images").mkdir()
        >>> _ = [(root / "images" / name).write_text("") for name in ("a.jpg", "b.jpg")]
        >>> _ = (root / "result.json").write_text(json.dumps({
        ...     "images": [{"id": 0, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}],
        ...     "categories": [{"id": 3, "name": "kakapo"}, {"id": 8, "name": "kea"}],
        ...     "annotations": [{"id": 0, "image_id": 0, "category_id": 8, "bbox": [2, 3, 9, 9]},
        ...                     {"id": 1, "image_id": 1, "category_id": 3, "bbox": [4, 4, 8, 8]}]}))
        >>> source = Coco(str(root))
        >>> source.classes, source.label(0), source.part_names
        (['kakapo', 'kea'], 1, ['target'])
    """

    def read(self) -> AnnotationTable:
        """Reads the files of all splits.

        Raises:
            PriorError: If a file is missing, is no COCO file, or contradicts itself.
        """
        pictures: list[Picture] = []
        categories: dict[str, str] = {}
        keypoints: dict[str, None] = {}
        for path, split in annotation_files(
            self.root, self.annotations, PATTERNS, lambda path: json_kind(path) == "coco", "Coco"
        ):
            content = _content(path)
            known = _by_id(content["categories"], "category", path)
            for entry in known.values():
                above = str(entry.get("supercategory") or "")
                categories.setdefault(entry["name"], "" if above == "none" else above)
                keypoints |= dict.fromkeys(entry.get("keypoints") or ())
            folders = self._folders(path)
            for entry, regions in _joined(content, known, path):
                file = picture_file(entry["file_name"], self.root, self.images, folders)
                pictures.append(_picture(entry, file, regions, split, path))
        return AnnotationTable(pictures, categories, list(keypoints))

    def _folders(self, path: Path) -> list[Path]:
        """Where the pictures of an annotation file may be: the part of its name after instances_ is a folder's."""
        subset = path.stem.rpartition("_")[2]
        return [
            *(folder / subset for folder in (self.root / "images", self.root)),
            *(path.parent / "data", path.parent / "images", self.root / "images", self.root / "data"),
            *(path.parent, self.root),
        ]


def _content(path: Path) -> Mapping[str, Any]:
    """The file, of which the three lists are there."""
    content = parse_json(read_text(path), str(path))
    if not isinstance(content, dict):
        name_the_right_source(path.parent, "Coco")
        raise PriorError(f"{path} is no COCO file: it has a list where images, annotations and categories are wanted")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise PriorError(f"{path} is no COCO file: it has no list {key!r}, but {', '.join(content)}")
    return content


def _by_id(entries: Sequence[Mapping[str, Any]], what: str, path: Path) -> dict[Any, Mapping[str, Any]]:
    known: dict[Any, Mapping[str, Any]] = {}
    for entry in entries:
        if entry["id"] in known:
            raise PriorError(f"two entries of {path} are {what} {entry['id']}")
        known[entry["id"]] = entry
    return known


def _joined(
    content: Mapping[str, Any], categories: Mapping[Any, Mapping[str, Any]], path: Path
) -> Iterator[tuple[Mapping[str, Any], list[Region]]]:
    """Each picture with its regions."""
    pictures = _by_id(content["images"], "image", path)
    regions: dict[Any, list[Region]] = {identity: [] for identity in pictures}
    for entry in _by_id(content["annotations"], "annotation", path).values():
        where = f"annotation {entry['id']} of {path.name}"
        for key, known in (("image_id", pictures), ("category_id", categories)):
            if entry.get(key) not in known:
                raise PriorError(f"{where} has the {key} {entry.get(key)}, which {path} does not have")
        regions[entry["image_id"]].append(_region(entry, categories[entry["category_id"]], where))
    for identity, entry in pictures.items():
        yield entry, regions[identity]


def _picture(
    entry: Mapping[str, Any], file: str, regions: Sequence[Region], split: Split | None, path: Path
) -> Picture:
    further = {name: value for name, value in entry.items() if name not in PICTURE_KEYS}
    where = f"image {entry['id']} of {path.name}"
    return Picture(
        file=file,
        where=where,
        regions=regions,
        split=split,
        size=size_of(entry.get("width"), entry.get("height"), where),
        attributes=as_text({**further, **(entry.get("attributes") or {})}),
    )


def _region(entry: Mapping[str, Any], category: Mapping[str, Any], where: str) -> Region:
    further = {name: value for name, value in entry.items() if name not in REGION_KEYS}
    return Region(
        where=where,
        category=category["name"],
        box=_box(entry.get("bbox"), where),
        outline=_outline(entry.get("segmentation"), where),
        points=_points(entry.get("keypoints") or (), category.get("keypoints") or (), where),
        crowd=bool(entry.get("iscrowd")),
        attributes=as_text({**further, **(entry.get("attributes") or {})}),
    )


def _box(numbers: Sequence[float] | None, where: str) -> Box | None:
    if not numbers:
        return None
    if len(numbers) != 4:
        raise PriorError(f"bbox of {where} has {len(numbers)} numbers, but x, y, width, height are wanted")
    x, y, width, height = map(float, numbers)
    return x, y, x + width, y + height


def _outline(segmentation: object, where: str) -> Outline | None:
    """Polygons or a run-length code; None for none."""
    if not segmentation:
        return None
    if isinstance(segmentation, Mapping):
        if not {"size", "counts"} <= set(segmentation):
            raise PriorError(f"segmentation of {where} has no size and counts, but {', '.join(segmentation)}")
        return segmentation
    if not isinstance(segmentation, list) or any(not isinstance(p, list) or len(p) % 2 for p in segmentation):
        raise PriorError(f"segmentation of {where} is neither a list of polygons x, y, x, y, ... nor a run-length code")
    return segmentation


def _points(numbers: Sequence[float], names: Sequence[str], where: str) -> dict[str, Point]:
    if numbers and len(numbers) != 3 * len(names):
        raise PriorError(f"keypoints of {where} are {len(numbers)} numbers, not three for each of {len(names)} names")
    triples = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
    return {name: (x, y) for name, (x, y, seen) in zip(names, triples, strict=bool(numbers)) if seen > 0}
