"""What all formats of annotation are read into: pictures, each with its regions, in memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from PIL import Image

from lightning_priors.data.sources.base import Split
from lightning_priors.data.sources.outlines import Outline, outline_box, outline_times
from lightning_priors.errors import PriorError

Box = tuple[float, float, float, float]
Point = tuple[float, float]

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""How tools call the three splits."""

FARTHEST = 1e6
"""How far from the picture's corner a place may be: drawing an outline takes memory along its length."""


@dataclass(frozen=True)
class Region:
    """One annotation: of a place in the picture, or, without a place, of the picture as a whole."""

    where: str
    """Its name in messages, such as "annotation 17 of instances_train.json"."""
    category: str | None
    """None for a keypoint that belongs to no object."""
    box: Box | None = None
    """x0, y0, x1, y1."""
    outline: Outline | None = None
    """Polygons, or a mask in COCO's run-length code."""
    points: Mapping[str, Point] = field(default_factory=dict)
    """The annotated keypoints by their names."""
    crowd: bool = False
    """Whether it covers a group; it then has no part in the box of the target."""
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def placed(self) -> bool:
        """Whether it says where in the picture something is."""
        return bool(self.box or self.outline or self.points)

    @property
    def extent(self) -> Box | None:
        """The box, or the one around the outline; None where there are only points or nothing."""
        return self.box or (outline_box(self.outline) if self.outline else None)

    @property
    def area(self) -> float:
        """The area of its extent."""
        x0, y0, x1, y1 = self.extent or (0, 0, 0, 0)
        return (x1 - x0) * (y1 - y0)


@dataclass(frozen=True)
class Picture:
    """One picture and its annotations."""

    file: str
    """Relative to the source's folder."""
    where: str
    """Its name in messages, such as "image 3 of instances_train.json"."""
    regions: Sequence[Region]
    split: Split | None = None
    size: tuple[int, int] | None = None
    """Width and height of the picture that was annotated, where the file tells them."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    shares: bool = False
    """Whether coordinates are shares of the picture's sides instead of pixels."""


@dataclass(frozen=True)
class AnnotationTable:
    """All pictures of a data set."""

    pictures: Sequence[Picture]
    categories: Mapping[str, str]
    """The supercategory of each category, empty for none; in the order of their numbers."""
    keypoints: Sequence[str] = ()
    """The names of the keypoints."""


def size_of(width: object, height: object, where: str) -> tuple[int, int] | None:
    """Checks the size that a file tells of a picture.

    Args:
        width: Width in pixels; None or 0 if it is not told.
        height: Height in pixels; None or 0 if it is not told.
        where: The picture's name in the message.

    Returns:
        Width and height; None if one of them is not told.

    Raises:
        PriorError: If they are no whole numbers, or of a picture larger than Pillow opens.

    >>> size_of(640, 480, "image 1"), size_of(None, 480, "image 1")
    ((640, 480), None)
    """
    if not width or not height:
        return None
    largest = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    if isinstance(width, int | float | str) and isinstance(height, int | float | str):
        try:
            size = int(width), int(height)
        except (ValueError, OverflowError):
            size = -1, -1
        if min(size) > 0 and size[0] * size[1] <= largest:
            return size
    raise PriorError(f"{where} has the size {width} x {height}, which is no picture's")


def check_places(region: Region) -> None:
    """Refuses places that no picture reaches, before anything is drawn.

    Args:
        region: A region with its places in pixels or in shares.

    Raises:
        PriorError: If a coordinate is no number, or farther away than `FARTHEST`.

    >>> check_places(Region("annotation 1", "kea", outline=[[0, 0, 1e300, 0, 4, 4]]))
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: annotation 1 reaches to 1e+300, which no picture does
    """
    for value in _coordinates(region):
        if not abs(value) <= FARTHEST:
            raise PriorError(f"{region.where} reaches to {value:g}, which no picture does")


def _coordinates(region: Region) -> Iterator[float]:
    yield from region.box or ()
    for point in region.points.values():
        yield from point
    if region.outline and not isinstance(region.outline, Mapping):
        for corners in region.outline:
            yield from corners


def in_pixels(region: Region, width: int, height: int) -> Region:
    """Turns shares of the picture's sides into pixels.

    Args:
        region: A region whose coordinates are shares.
        width: Width of the picture in pixels.
        height: Its height.

    Returns:
        The same region in pixels.

    >>> in_pixels(Region("line 1", "kea", box=(0.25, 0.5, 0.5, 1.0)), 8, 4).box
    (2.0, 2.0, 4.0, 4.0)
    """
    box = region.box
    return replace(
        region,
        box=box and (box[0] * width, box[1] * height, box[2] * width, box[3] * height),
        outline=region.outline and outline_times(region.outline, width, height),
        points={name: (x * width, y * height) for name, (x, y) in region.points.items()},
    )


def with_area(regions: Iterable[Region]) -> tuple[list[Region], list[Region]]:
    """Sorts out the places without area, which slips of the mouse leave behind.

    Args:
        regions: The regions of a picture.

    Returns:
        The regions, without boxes that have no area and polygons with fewer than three corners; and those of which
        no place is left.

    >>> kept, lost = with_area([Region("a", "kea", box=(1, 1, 1, 4)), Region("b", "kea")])
    >>> [region.where for region in kept], [region.where for region in lost]
    (['b'], ['a'])
    """
    kept: list[Region] = []
    lost: list[Region] = []
    for region in regions:
        box, outline = region.box, region.outline
        if box and not (box[0] < box[2] and box[1] < box[3]):
            box = None
        if outline and not isinstance(outline, Mapping):
            outline = [corners for corners in outline if len(corners) >= 6] or None
        cleaned = (
            region if (box, outline) == (region.box, region.outline) else replace(region, box=box, outline=outline)
        )
        (kept if cleaned.placed or not region.placed else lost).append(cleaned)
    return kept, lost


def hull(boxes: Iterable[Box]) -> Box | None:
    """Finds the smallest box around several.

    Args:
        boxes: Boxes x0, y0, x1, y1.

    Returns:
        The box around all; None if there are none.

    >>> hull([(1, 2, 3, 4), (0, 3, 2, 9)])
    (0, 2, 3, 9)
    """
    sides = list(zip(*boxes, strict=True))
    return (min(sides[0]), min(sides[1]), max(sides[2]), max(sides[3])) if sides else None


def as_text(values: Mapping[str, object]) -> dict[str, str]:
    """Takes what can be a label out of the entries of an annotation.

    Args:
        values: Any entries, as JSON gives them.

    Returns:
        Texts, numbers and truth values as text; the others are left out.

    >>> as_text({"sex": "f", "age": 3, "tame": True, "tags": ["a"], "note": None})
    {'sex': 'f', 'age': '3', 'tame': 'true'}
    """
    kept = {}
    for name, value in values.items():
        if isinstance(value, bool):
            kept[name] = str(value).lower()
        elif isinstance(value, str | int | float) and str(value).strip():
            kept[name] = str(value).strip()
    return kept
