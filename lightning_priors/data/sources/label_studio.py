"""Label Studio's own JSON export."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from lightning.pytorch.utilities import rank_zero_info

from lightning_priors.data.sources.annotated import Annotated
from lightning_priors.data.sources.annotation_table import AnnotationTable, Picture, Region, as_text, size_of
from lightning_priors.data.sources.base import Split
from lightning_priors.data.sources.finding import annotation_files, picture_file
from lightning_priors.data.sources.layouts import json_kind
from lightning_priors.data.sources.outlines import ellipse, turned
from lightning_priors.data.sources.pictures import SUFFIXES
from lightning_priors.data.sources.reading import parse_json, read_text, sorted_names
from lightning_priors.errors import PriorError

BRUSH = (
    "is painted with the brush, whose code is not read from JSON; export the project as 'Brush labels to COCO' and "
    "take the source Coco"
)
NUMBERS = ("number", "rating")


class LabelStudio(Annotated):
    """Reads the tasks that Label Studio exports as JSON; the options are those of `Annotated`.

    Choices about the whole picture are tags, and attributes by the name of their control, so that with several
    controls one of them can be the `label` and the others `aux`. Choices about a region, numbers and ratings are
    attributes; so are the further columns of a task. Rectangles are boxes, turned ones, polygons and ellipses are
    outlines, and keypoints are called by their labels. Of several annotations of one task the ground truth is read,
    otherwise the last one that was not cancelled. The pictures are looked for in the root, its folder ``images``, and
    in `images`, by the names in the tasks, with or without the eight characters that an upload adds.

    Example:
        >>> import json, tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> tasks = []
        >>> for name, bird in (("a.jpg", "kakapo"), ("b.jpg", "kea")):
        ...     _ = (root / name).write_text("")
        ...     result = [{"id": "1", "from_name": "bird", "type": "choices", "value": {"choices": [bird]}}]
        ...     address = f"/data/upload/1/3f2504e0-{name}"
        ...     tasks.append({"id": 7, "data": {"image": address}, "annotations": [{"result": result}]})
        >>> _ = (root / "project-1.json").write_text(json.dumps(tasks))
        >>> source = LabelStudio(str(root))
        >>> source.classes, source.file(1)
        (['kakapo', 'kea'], 'b.jpg')
    """

    def read(self) -> AnnotationTable:
        """Reads all tasks.

        Raises:
            PriorError: If the file is missing, is another export, or has masks of the brush.
        """
        pictures, several = [], 0
        for path, split in annotation_files(
            self.root, self.annotations, (("*.json",),), lambda path: json_kind(path) == "label_studio", "LabelStudio"
        ):
            for task in _tasks(path):
                known = [each for each in task["annotations"] if not each.get("was_cancelled")]
                several += len(known) > 1
                chosen = next((each for each in known if each.get("ground_truth")), known[-1] if known else {})
                pictures.append(self._picture(task, chosen.get("result") or (), path, split))
        if several:
            rank_zero_info(f"{several} tasks have several annotations; of each the ground truth or the last is taken")
        regions = [region for picture in pictures for region in picture.regions]
        categories = sorted_names({region.category for region in regions if region.category is not None})
        points = sorted({name for region in regions for name in region.points})
        return AnnotationTable(pictures, dict.fromkeys(categories, ""), points)

    def _picture(
        self, task: Mapping[str, Any], result: Sequence[Mapping[str, Any]], path: Path, split: Split | None
    ) -> Picture:
        where = f"task {task.get('id')} of {path.name}"
        key = _picture_key(task["data"], where)
        sizes = [(each["original_width"], each["original_height"]) for each in result if "original_width" in each]
        attributes = as_text({name: value for name, value in task["data"].items() if name != key})
        regions: list[Region] = []
        for entries in _by_region(result):
            attributes |= _said_of_all(entries)
            regions += _regions(entries, where)
        return Picture(
            file=picture_file(file_in(task["data"][key]), self.root, self.images, [self.root / "images", self.root]),
            where=where,
            regions=regions,
            split=split,
            size=size_of(*sizes[0], where) if sizes else None,
            attributes=attributes,
        )


def file_in(address: str) -> str:
    """Finds the file that an address of Label Studio names.

    Args:
        address: A path, a link, or the address of a file in a local folder.

    Returns:
        The file.

    >>> file_in("/data/local-files/?d=birds/a%20b.jpg"), file_in("s3://bucket/birds/c.jpg"), file_in("images/d.jpg")
    ('birds/a b.jpg', 'birds/c.jpg', 'images/d.jpg')
    """
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    return local[0] if local else unquote(parts.path).lstrip("/")


def _tasks(path: Path) -> Iterator[Mapping[str, Any]]:
    tasks = parse_json(read_text(path), str(path))
    for task in tasks if isinstance(tasks, list) else [tasks]:
        if not isinstance(task, dict) or not {"data", "annotations"} <= set(task):
            raise PriorError(f"{path} has no tasks with data and annotations; export the project as JSON, not JSON-MIN")
        yield task


def _picture_key(data: Mapping[str, Any], where: str) -> str:
    """The column of the picture."""
    for name, value in data.items():
        if isinstance(value, str) and PurePosixPath(file_in(value)).suffix.lower() in SUFFIXES:
            return name
    raise PriorError(f"{where} has no column with a picture, but {', '.join(data)}")


def _by_region(result: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The entries of a result, those of one region together."""
    regions: dict[Any, list[Mapping[str, Any]]] = {}
    for number, entry in enumerate(result):
        if "value" in entry:  # not a relation between regions
            regions.setdefault(entry.get("id", number), []).append(entry)
    return list(regions.values())


def _placed(value: Mapping[str, Any]) -> bool:
    return any(key in value for key in ("x", "points", "rle"))


def _said_of_all(entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The attributes that the entries give the whole picture."""
    return {} if any(_placed(entry["value"]) for entry in entries) else _attributes(entries)


def _attributes(entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    found = {}
    for entry in entries:
        value = entry["value"]
        if len(value.get("choices", ())) == 1:
            found[str(entry["from_name"])] = str(value["choices"][0])
        for key in NUMBERS:
            if key in value:
                found[str(entry["from_name"])] = str(value[key])
    return found


def _regions(entries: Sequence[Mapping[str, Any]], where: str) -> Iterator[Region]:
    """The region of some entries, or a tag for each choice about the whole picture."""
    placed = next((entry for entry in entries if _placed(entry["value"])), None)
    if placed is None:
        for entry in entries:
            for choice in entry["value"].get("choices", ()):
                yield Region(f"{entry['from_name']} of {where}", str(choice))
        return
    values = [item for entry in entries for item in entry["value"].items()]
    labels = [label for key, value in values if key.endswith("labels") for label in value]
    named = f"{placed.get('type')} {labels[0] if labels else ''} of {where}"
    if placed.get("image_rotation"):
        raise PriorError(f"{named} lies in a picture that was turned in Label Studio; turn the file instead")
    yield _region(placed, str(labels[0]) if labels else None, _attributes(entries), named)


def _region(entry: Mapping[str, Any], category: str | None, attributes: dict[str, str], where: str) -> Region:
    """One region in pixels; the export has percent of the picture's sides."""
    value, kind = entry["value"], str(entry.get("type", ""))
    across, down = entry["original_width"] / 100, entry["original_height"] / 100
    if "rle" in value:
        raise PriorError(f"{where} {BRUSH}")
    if "points" in value:
        corners = [number for x, y in value["points"] for number in (x * across, y * down)]
        return Region(where, category, outline=[corners], attributes=attributes)
    x, y, degrees = value["x"] * across, value["y"] * down, value.get("rotation") or 0
    if kind.startswith("keypoint"):
        return Region(where, None, points={category or "point": (x, y)})
    if "radiusX" in value:
        corners = ellipse((x, y), value["radiusX"] * across, value["radiusY"] * down, degrees)
        return Region(where, category, outline=[corners], attributes=attributes)
    if "width" not in value:
        raise PriorError(f"{where} is of a kind that is not read; export the project as COCO")
    x1, y1 = x + value["width"] * across, y + value["height"] * down
    if degrees:
        corners = turned([x, y, x1, y, x1, y1, x, y1], (x, y), degrees)
        return Region(where, category, outline=[corners], attributes=attributes)
    return Region(where, category, box=(x, y, x1, y1), attributes=attributes)
