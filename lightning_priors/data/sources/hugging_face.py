"""Image folders of Hugging Face's datasets: pictures with ``metadata.jsonl`` or ``metadata.csv``."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_priors.data.sources.annotated import Annotated
from lightning_priors.data.sources.annotation_table import AnnotationTable, Picture, Region, as_text
from lightning_priors.data.sources.finding import annotation_files, picture_file, split_in
from lightning_priors.data.sources.layouts import name_the_right_source
from lightning_priors.data.sources.reading import parse_json, read_table, read_text, sorted_names
from lightning_priors.errors import PriorError

FILES = ("metadata.jsonl", "*/metadata.jsonl", "metadata.csv", "*/metadata.csv")
CATEGORY_KEYS = ("categories", "category", "labels", "label")


class HuggingFaceFolder(Annotated):
    r"""Reads image folders with metadata; the options are those of `Annotated`.

    A file of metadata in the root or in each split's folder has a column ``file_name``. The column ``label`` speaks
    for the whole picture; all columns are attributes, so that another one can be the `label`. ``objects`` with
    ``bbox`` (x, y, width, height in pixels) and ``categories`` are boxes. The folder of a picture tells its split.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "train").mkdir()
        >>> _ = [(root / "train" / name).write_text("") for name in ("a.jpg", "b.jpg")]
        >>> _ = (root / "train" / "metadata.csv").write_text("file_name,label,sex\na.jpg,kea,f\nb.jpg,kakapo,m\n")
        >>> source = HuggingFaceFolder(str(root))
        >>> source.classes, source.label(0), source.indices("train")
        (['kakapo', 'kea'], 1, [0, 1])
    """

    def read(self) -> AnnotationTable:
        """Reads the metadata.

        Raises:
            PriorError: If there are none, or a row is wrong.
        """
        pictures = []
        for path, split in annotation_files(
            self.root, self.annotations, (FILES,), lambda path: True, "HuggingFaceFolder"
        ):
            for where, row in _rows(path):
                if "file_name" not in row:
                    name_the_right_source(self.root, "HuggingFaceFolder")
                    raise PriorError(f"{where} has no file_name, but {', '.join(row)}")
                file = picture_file(str(row["file_name"]), self.root, self.images, [path.parent])
                columns = as_text({name: value for name, value in row.items() if name != "file_name"})
                tags = [Region(f"label of {where}", columns["label"])] if "label" in columns else []
                regions = [*tags, *_boxes(row.get("objects") or {}, where)]
                folder = Path(file).parent / "picture"
                pictures.append(Picture(file, where, regions, split or split_in(folder), attributes=columns))
        names = sorted_names({str(region.category) for picture in pictures for region in picture.regions})
        return AnnotationTable(pictures, dict.fromkeys(names, ""))


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows with their names."""
    if path.suffix == ".csv":
        yield from read_table(path, ["file_name"])
        return
    for count, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"row {count} of {path.name}"
        row = parse_json(line, where)
        if not isinstance(row, dict):
            raise PriorError(f"{where} is no JSON object: {line[:60]}")
        yield where, row


def _boxes(objects: Any, where: str) -> list[Region]:
    """The boxes, which stand in lists by their keys, or each with its keys."""
    if isinstance(objects, list):
        objects = {key: [each.get(key) for each in objects] for key in {key for each in objects for key in each}}
    boxes = objects.get("bbox") or []
    names: list[Any] = next((objects[key] for key in CATEGORY_KEYS if key in objects), [])
    if len(boxes) != len(names) or any(len(box) != 4 for box in boxes):
        raise PriorError(f"objects of {where} has {len(boxes)} boxes and {len(names)} categories; a box has 4 numbers")
    return [
        Region(f"object {number} of {where}", str(name), box=(x, y, x + width, y + height))
        for number, ((x, y, width, height), name) in enumerate(zip(boxes, names, strict=True))
    ]
