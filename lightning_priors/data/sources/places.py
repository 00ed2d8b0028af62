"""Checks of boxes and points against the picture that they are in."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision import tv_tensors

from lightning_priors.errors import PriorError

OUTSIDE_PIXELS, OUTSIDE_SHARE = 1.0, 0.05  # how far rounding may put a box outside the picture


def checked_boxes(
    boxes: Sequence[Sequence[float] | None], image: Tensor, names: Sequence[str], row: str
) -> tuple[tv_tensors.BoundingBoxes, Tensor]:
    """Checks the part boxes of a picture and clips those that rounding put a little outside.

    Args:
        boxes: For each of K parts x0, y0, x1, y1 in pixels, or None where it is not annotated.
        image: (3, H, W), the picture.
        names: The names of the parts, for the message.
        row: Where the boxes stand, for the message.

    Returns:
        The boxes (K, 4) float32 in pixels, zero where not annotated, and which of them are annotated, (K,) bool.

    Raises:
        PriorError: If a box has no area, or reaches outside the picture by more than 1 pixel and 5 % of its side.

    >>> boxes, valid = checked_boxes([[2, 2, 6.5, 4], None], torch.zeros(3, 6, 6), ["head", "tail"], "row 2")
    >>> boxes.tolist(), valid.tolist()
    ([[2.0, 2.0, 6.0, 4.0], [0.0, 0.0, 0.0, 0.0]], [True, False])
    """
    height, width = image.shape[1:]
    clipped = [[0.0] * 4 for _ in boxes]  # of Python's numbers: a tensor for each box takes longer than all the rest
    for number, box in enumerate(boxes):
        if box is None:
            continue
        x0, y0, x1, y1 = box
        if not (x0 < x1 and y0 < y1):
            raise PriorError(f"the box {names[number]} ({row}) has no area: x {x0:g} to {x1:g}, y {y0:g} to {y1:g}")
        for start, end, side in ((x0, x1, width), (y0, y1, height)):
            if max(-start, end - side) > max(OUTSIDE_PIXELS, OUTSIDE_SHARE * (end - start)):
                raise PriorError(
                    f"the box {names[number]} ({row}) lies outside its image of {width} x {height}: "
                    f"x {x0:g} to {x1:g}, y {y0:g} to {y1:g}"
                )
        clipped[number] = [max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)]
    valid = torch.tensor([box is not None for box in boxes], dtype=torch.bool)
    result = torch.tensor(clipped, dtype=torch.float32).reshape(-1, 4)
    return tv_tensors.BoundingBoxes(result, format="XYXY", canvas_size=(height, width)), valid


def checked_points(
    points: Sequence[Sequence[float] | None], image: Tensor, names: Sequence[str], row: str
) -> tuple[Tensor, Tensor]:
    """Checks the keypoints of a picture.

    Args:
        points: For each of P keypoints x and y in pixels, or None where it is not annotated.
        image: (3, H, W), the picture.
        names: The names of the keypoints, for the message.
        row: Where the keypoints stand, for the message.

    Returns:
        The keypoints (P, 2) float32 in pixels, zero where not annotated, and which of them are annotated, (P,) bool.

    Raises:
        PriorError: If a point lies outside the picture.

    >>> checked_points([[5, 2], None], torch.zeros(3, 6, 6), ["beak", "tail"], "row 2")
    (tensor([[5., 2.],
            [0., 0.]]), tensor([ True, False]))
    """
    height, width = image.shape[1:]
    result = [[0.0] * 2 for _ in points]
    for number, point in enumerate(points):
        if point is None:
            continue
        if not (0 <= point[0] <= width and 0 <= point[1] <= height):
            raise PriorError(
                f"the keypoint {names[number]} ({row}) lies outside its image of {width} x {height}: "
                f"{point[0]:g}, {point[1]:g}"
            )
        result[number] = list(point)
    found = torch.tensor(result, dtype=torch.float32).reshape(-1, 2)
    return found, torch.tensor([point is not None for point in points], dtype=torch.bool)
