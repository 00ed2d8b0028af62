"""CVAT's own XML, "CVAT for images"."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from lightning_priors.data.sources.annotated import Annotated
from lightning_priors.data.sources.annotation_table import SPLIT_NAMES, AnnotationTable, Picture, Point, Region, size_of
from lightning_priors.data.sources.finding import annotation_files, picture_file
from lightning_priors.data.sources.layouts import xml_kind
from lightning_priors.data.sources.outlines import RunLengths, ellipse, run_lengths, turned
from lightning_priors.data.sources.reading import number_in
from lightning_priors.errors import PriorError

NO_PLACES = ("polyline", "cuboid")


class Cvat(Annotated):
    """Reads "CVAT for images" 1.1: ``annotations.xml`` and ``images/``; the options are those of `Annotated`.

    Polygons, ellipses, masks and turned boxes are outlines. Points and the points of a skeleton are keypoints, called
    by their labels; of several points with one label the first is meant. Tags speak for the whole picture. The subset
    of a picture is its split. Polylines and cuboids are left out.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> _ = [(root / name).write_text("") for name in ("a.jpg", "b.jpg")]
        >>> _ = (root / "annotations.xml").write_text('''<annotations>
        ...   <image id="0" name="a.jpg" width="40" height="30"><tag label="kea"/></image>
        ...   <image id="1" name="b.jpg" width="40" height="30">
        ...     <box label="kakapo" xtl="1" ytl="2" xbr="9" ybr="8"/></image></annotations>''')
        >>> source = Cvat(str(root))
        >>> source.classes, source.label(1), source.part_names
        (['kea', 'kakapo'], 1, ['target'])
    """

    def read(self) -> AnnotationTable:
        """Reads the file, or those of all splits.

        Raises:
            PriorError: If a file is missing, is of a video, or has a mistake.
        """
        pictures: list[Picture] = []
        categories: dict[str, str] = {}
        for path, split in annotation_files(
            self.root, self.annotations, (("annotations.xml",), ("*.xml",)), lambda p: xml_kind(p) == "cvat", "Cvat"
        ):
            tree = _tree(path)
            categories |= {name.text or "": "" for name in tree.findall(".//labels/label/name")}
            for image in tree.iter("image"):
                name, subset = image.get("name", ""), image.get("subset", "")
                where = f"image {image.get('id')} of {path.name}"
                size = size_of(_whole(image, "width", where), _whole(image, "height", where), where)
                if size is None:
                    raise PriorError(f"{where} has no width or no height")
                folders = [path.parent / "images" / subset, path.parent / "images", path.parent]
                pictures.append(
                    Picture(
                        file=picture_file(name, self.root, self.images, folders),
                        where=where,
                        regions=[region for each in image for region in _regions(each, size, where)],
                        split=split or SPLIT_NAMES.get(subset.lower()),
                        size=size,
                    )
                )
        regions = [region for picture in pictures for region in picture.regions]
        categories = dict.fromkeys([*categories, *(region.category for region in regions if region.category)], "")
        return AnnotationTable(pictures, categories, sorted({name for region in regions for name in region.points}))


def _tree(path: Path) -> Element:
    try:
        tree = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise PriorError(f"{path} cannot be read as XML: {error}") from error
    if tree.find("track") is not None:
        raise PriorError(f"{path} is of a video; export it as 'CVAT for images 1.1'")
    return tree


def _whole(element: Element, name: str, where: str) -> int:
    return int(number_in(element.get(name, ""), name, where))


def _regions(element: Element, size: tuple[int, int], image: str) -> Iterator[Region]:
    """The region of an element; several for the points of one element, none for what is no place."""
    kind, label = element.tag, element.get("label", "")
    where = f"a {kind} {label} of {image}"
    attributes = {each.get("name", ""): (each.text or "").strip() for each in element.findall("attribute")}
    attributes = {name: text for name, text in attributes.items() if name and text}
    if kind in NO_PLACES:
        return
    if kind == "tag":
        yield Region(where, label, attributes=attributes)
    elif kind == "box":
        yield _box(element, where, label, attributes)
    elif kind == "polygon":
        corners = [value for point in _points(element, where) for value in point]
        yield Region(where, label, outline=[corners], attributes=attributes)
    elif kind == "ellipse":
        yield Region(where, label, outline=[_ellipse(element, where)], attributes=attributes)
    elif kind == "mask":
        yield Region(where, label, outline=_mask(element, size, where), attributes=attributes)
    elif kind == "points":
        yield Region(where, None, points={label: _points(element, where)[0]})
    elif kind == "skeleton":
        seen = [each for each in element.findall("points") if each.get("outside", "0") == "0"]
        points = {each.get("label", ""): _points(each, where)[0] for each in seen}
        yield Region(where, label, points=points, attributes=attributes)
    else:
        raise PriorError(f"{where} is of a kind that is not known")


def _box(element: Element, where: str, label: str, attributes: dict[str, str]) -> Region:
    x0, y0, x1, y1 = (number_in(element.get(name, ""), name, where) for name in ("xtl", "ytl", "xbr", "ybr"))
    if not (degrees := float(element.get("rotation", 0))):
        return Region(where, label, box=(x0, y0, x1, y1), attributes=attributes)
    corners = turned([x0, y0, x1, y0, x1, y1, x0, y1], ((x0 + x1) / 2, (y0 + y1) / 2), degrees)
    return Region(where, label, outline=[corners], attributes=attributes)


def _ellipse(element: Element, where: str) -> list[float]:
    x, y, across, down = (number_in(element.get(name, ""), name, where) for name in ("cx", "cy", "rx", "ry"))
    return ellipse((x, y), across, down, float(element.get("rotation", 0)))


def _points(element: Element, where: str) -> list[Point]:
    points = [pair.split(",") for pair in element.get("points", "").split(";") if pair]
    if not points or any(len(pair) != 2 for pair in points):
        raise PriorError(f"the points of {where} are not x,y;x,y;...")
    return [(number_in(x, "x", where), number_in(y, "y", where)) for x, y in points]


def _mask(element: Element, size: tuple[int, int], where: str) -> RunLengths:
    """The run-length code of a mask, which is stored line by line for the box around it."""
    left, top, width, height = (_whole(element, name, where) for name in ("left", "top", "width", "height"))
    if not (left >= 0 and top >= 0 and left + width <= size[0] and top + height <= size[1]):
        raise PriorError(f"{where} reaches out of the picture, which is {size[0]} x {size[1]}")
    counts = [int(count) for count in element.get("rle", "").split(",")]
    if sum(counts) != width * height:
        raise PriorError(f"{where} is broken: its counts add up to {sum(counts)}, not to {width * height}")
    inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
    whole = np.zeros(size[::-1], dtype=bool)
    whole[top : top + height, left : left + width] = inside
    return run_lengths(whole)
