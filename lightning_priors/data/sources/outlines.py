"""Outlines as annotation tools store them: polygons and COCO's run-length codes; pycocotools turns them into masks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torchvision import tv_tensors

from lightning_priors.errors import PriorError

Polygons = Sequence[Sequence[float]]
"""Each polygon as x, y, x, y, ..."""
RunLengths = Mapping[str, Any]
"""``size`` (height, width) and ``counts``: a list of numbers, or their compressed form as text."""
Outline = Polygons | RunLengths

CORNERS = 36  # of the polygon for an ellipse


def mask_of(outlines: Sequence[Outline], height: int, width: int, where: str) -> tv_tensors.Image:
    """Draws the union of outlines.

    Args:
        outlines: Polygons in pixels, or run-length codes.
        height: Height H of the picture.
        width: Its width W.
        where: Where the outlines stand, for the message.

    Returns:
        (1, H, W) float32, 1 inside.

    Raises:
        PriorError: If a run-length code is of a picture of another size, or is broken.

    >>> mask_of([[[1, 0, 3, 0, 3, 2, 1, 2]]], 2, 4, "annotation 1")[0].tolist()
    [[0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0]]
    """
    codes = [_code(outline, height, width, where) for outline in outlines]
    inside = coco_mask.decode(coco_mask.merge(codes))
    return tv_tensors.Image(torch.from_numpy(inside).float()[None])


def run_lengths(inside: NDArray[np.bool_]) -> RunLengths:
    """Encodes a mask.

    Args:
        inside: (H, W), true inside.

    Returns:
        Its run-length code, compressed.

    >>> run_lengths(np.array([[False, True]]))
    {'size': [1, 2], 'counts': '11'}
    """
    code = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))
    return {"size": list(code["size"]), "counts": code["counts"].decode()}


def outline_box(outline: Outline) -> tuple[float, float, float, float]:
    """Finds the box around an outline.

    Args:
        outline: Polygons or a run-length code.

    Returns:
        x0, y0, x1, y1.

    >>> outline_box([[1, 0, 3, 0, 3, 2], [0, 5, 1, 5, 1, 6]])
    (0, 0, 3, 6)
    """
    if isinstance(outline, Mapping):
        height, width = outline["size"]
        x, y, across, down = coco_mask.toBbox(_code(outline, height, width, "an outline")).tolist()
        return x, y, x + across, y + down
    xs, ys = ([value for corners in outline for value in corners[start::2]] for start in (0, 1))
    return min(xs), min(ys), max(xs), max(ys)


def outline_times(outline: Outline, width: float, height: float) -> Outline:
    """Stretches polygons; a run-length code stays, for it is in pixels.

    Args:
        outline: Polygons or a run-length code.
        width: Factor of x.
        height: Factor of y.

    Returns:
        The stretched outline.

    >>> outline_times([[0.5, 0.5, 1.0, 0.5, 1.0, 1.0]], 8, 4)
    [[4.0, 2.0, 8.0, 2.0, 8.0, 4.0]]
    """
    if isinstance(outline, Mapping):
        return outline
    return [[value * (height if place % 2 else width) for place, value in enumerate(corners)] for corners in outline]


def turned(points: Sequence[float], centre: tuple[float, float], degrees: float) -> list[float]:
    """Turns points clockwise, as annotation tools turn boxes; y points downwards.

    Args:
        points: x, y, x, y, ...
        centre: The point that stays where it is.
        degrees: The angle.

    Returns:
        The turned points in the same form.

    >>> [round(value) for value in turned([0, 0, 4, 0, 4, 2], (0, 0), 90)]
    [0, 0, 0, 4, -2, 4]
    """
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    away = [(x - centre[0], y - centre[1]) for x, y in zip(points[::2], points[1::2], strict=True)]
    return [v for x, y in away for v in (centre[0] + x * cosine - y * sine, centre[1] + x * sine + y * cosine)]


def ellipse(centre: tuple[float, float], across: float, down: float, degrees: float = 0) -> list[float]:
    """Draws an ellipse as a polygon.

    Args:
        centre: Its centre.
        across: Its radius along x.
        down: Its radius along y.
        degrees: By how much it is turned, clockwise.

    Returns:
        Its corners as x, y, x, y, ...

    >>> [round(value) for value in ellipse((5, 5), 4, 2)[:2]], len(ellipse((5, 5), 4, 2))
    ([9, 5], 72)
    """
    angles = [2 * math.pi * corner / CORNERS for corner in range(CORNERS)]
    flat = [v for a in angles for v in (centre[0] + across * math.cos(a), centre[1] + down * math.sin(a))]
    return turned(flat, centre, degrees)


def _code(outline: Outline, height: int, width: int, where: str) -> Mapping[str, Any]:
    """One compressed run-length code of the size (height, width)."""
    if not isinstance(outline, Mapping):
        # a list of four numbers would be taken for a box
        codes: Mapping[str, Any] = coco_mask.merge(
            coco_mask.frPyObjects([list(map(float, p)) for p in outline], height, width)
        )
        return codes
    if list(outline["size"]) != [height, width]:
        size = f"{outline['size'][1]} x {outline['size'][0]}"
        raise PriorError(f"the mask of {where} is {size}, its image {width} x {height}")
    counts = outline["counts"]
    if isinstance(counts, str | bytes):
        return {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else counts}
    if sum(counts) != height * width:
        raise PriorError(f"the mask of {where} is broken: its counts add up to {sum(counts)}, not to {height * width}")
    code: Mapping[str, Any] = coco_mask.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width)
    return code
