"""LabelMe annotations: one JSON file beside each picture."""

import base64
import binascii
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lightning_priors.data.sources.annotated import Annotated
from lightning_priors.data.sources.annotation_table import AnnotationTable, Picture, Region, as_text, size_of
from lightning_priors.data.sources.finding import annotation_files, picture_file
from lightning_priors.data.sources.layouts import json_kind
from lightning_priors.data.sources.outlines import RunLengths, ellipse, run_lengths
from lightning_priors.data.sources.reading import parse_json, read_text, sorted_names
from lightning_priors.errors import PriorError

LINES = ("line", "linestrip")


class LabelMe(Annotated):
    """Reads the JSON files of LabelMe; the options are those of `Annotated`.

    All JSON files below the root are read; folders such as ``train`` are splits.
    Rectangles are boxes; polygons, circles and masks are outlines; points are keypoints, called by their labels. A
    flag that is set is a tag of the picture, so that it can be the class. Lines are no places and are left out.

    Example:
        >>> import json, tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name, label in (("a", "kakapo"), ("b", "kea")):
        ...     _ = (root / f"{name}.jpg").write_text("")
        ...     shape = {"label": label, "points": [[1, 2], [5, 6]], "shape_type": "rectangle"}
        ...     _ = (root / f"{name}.json").write_text(json.dumps({"imagePath": f"{name}.jpg", "shapes": [shape]}))
        >>> source = LabelMe(str(root))
        >>> source.classes, source.label(1), source.part_names
        (['kakapo', 'kea'], 1, ['target'])
    """

    def read(self) -> AnnotationTable:
        """Reads all files.

        Raises:
            PriorError: If there are none, or one is wrong.
        """
        if self.annotations is not None:
            raise PriorError("LabelMe has a file for each picture and finds them: leave annotations out")
        files = annotation_files(
            self.root, self.annotations, (("**/*.json",),), lambda path: json_kind(path) == "labelme", "LabelMe"
        )
        pictures = []
        for path, split in files:
            content = _content(path)
            name = str(content.get("imagePath") or path.with_suffix(".jpg").name)
            file = picture_file(name, self.root, self.images, [path.parent, self.root / "images", self.root])
            pictures.append(
                Picture(
                    file=file,
                    where=path.name,
                    regions=[*_tags(content, path), *_regions(content, path)],
                    split=split,
                    size=_size(content, path.name),
                    attributes=as_text(content.get("flags") or {}),
                )
            )
        regions = [region for picture in pictures for region in picture.regions]
        categories = sorted_names({region.category for region in regions if region.category is not None})
        points = sorted({name for region in regions for name in region.points})
        return AnnotationTable(pictures, dict.fromkeys(categories, ""), points)


def _content(path: Path) -> Mapping[str, Any]:
    content = parse_json(read_text(path), str(path))
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise PriorError(f"{path} is no file of LabelMe: it has no list 'shapes'")
    return content


def _size(content: Mapping[str, Any], where: str) -> tuple[int, int] | None:
    return size_of(content.get("imageWidth"), content.get("imageHeight"), where)


def _tags(content: Mapping[str, Any], path: Path) -> list[Region]:
    return [Region(f"flag {name} of {path.name}", name) for name, on in (content.get("flags") or {}).items() if on]


def _regions(content: Mapping[str, Any], path: Path) -> list[Region]:
    regions = []
    for number, shape in enumerate(content["shapes"]):
        where = f"shape {number} of {path.name}"
        if shape.get("shape_type", "polygon") not in LINES:
            regions.append(_region(shape, content, where))
    return regions


def _region(shape: Mapping[str, Any], content: Mapping[str, Any], where: str) -> Region:
    kind, label, points = shape.get("shape_type", "polygon"), str(shape["label"]), shape["points"]
    attributes = as_text(shape.get("flags") or {})
    if kind == "point":
        return Region(where, None, points={label: (float(points[0][0]), float(points[0][1]))})
    if kind == "rectangle":
        (xa, ya), (xb, yb) = points[0], points[-1]
        return Region(where, label, box=(min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb)), attributes=attributes)
    if kind == "polygon":
        return Region(where, label, outline=[[value for point in points for value in point]], attributes=attributes)
    if kind == "circle":
        radius = math.dist(*points)
        return Region(where, label, outline=[ellipse(tuple(points[0]), radius, radius)], attributes=attributes)
    if kind == "mask":
        return Region(where, label, outline=_mask(shape, content, where), attributes=attributes)
    raise PriorError(f"{where} is a {kind}, which LabelMe is not read for; draw a polygon")


def _mask(shape: Mapping[str, Any], content: Mapping[str, Any], where: str) -> RunLengths:
    """The run-length code of a mask, which is stored as a picture of the box around it."""
    (x, y), _ = shape["points"]
    size = _size(content, where)
    if size is None:
        raise PriorError(f"the mask of {where} cannot be read: the file has no imageWidth and imageHeight")
    try:
        small = np.array(Image.open(io.BytesIO(base64.b64decode(shape["mask"])))) > 0
    except (KeyError, TypeError, binascii.Error, OSError) as error:
        raise PriorError(f"the mask of {where} cannot be read: {error}") from error
    whole = np.zeros(size[::-1], dtype=bool)
    whole[int(y) : int(y) + small.shape[0], int(x) : int(x) + small.shape[1]] = small
    return run_lengths(whole)
