"""Masks, boxes and keypoints as one thing: a prior map that says for each cell how much of it is target.

All functions work on whole batches without a loop over images, change nothing in place and stay on the device.
A map has the values of a share: 0 outside the target, 1 inside, between on its border.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_priors.functional.precision import at_least_float32

PriorKind = Literal["mask", "part_boxes", "keypoints"]
KINDS: tuple[PriorKind, ...] = ("mask", "part_boxes", "keypoints")


def interval_cover(start: Tensor, end: Tensor, cells: int) -> Tensor:
    """Computes how much of each cell in a row of cells lies in an interval.

    Args:
        start: (...) left ends, in cells from the left; may lie outside the row.
        end: (...) right ends; an end before its start covers nothing.
        cells: Number of cells.

    Returns:
        (..., cells), shares in [0, 1].

    >>> interval_cover(torch.tensor(1.0), torch.tensor(2.5), 4)
    tensor([0.0000, 1.0000, 0.5000, 0.0000])
    """
    left = torch.arange(cells, device=start.device, dtype=start.dtype)
    overlap = torch.minimum(end[..., None], left + 1) - torch.maximum(start[..., None], left)
    return overlap.clamp(0, 1)


def resize_to_grid(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Computes the exact mean of a mask over each cell of a grid, for any two sizes.

    Where the picture's sides are multiples of the grid's this is average pooling; otherwise the pixels on a cell's
    border count with the part of them that lies in the cell.

    Args:
        mask: (B, H, W) in [0, 1].
        size: Height h and width w of the grid.

    Returns:
        (B, h, w) in [0, 1].

    >>> resize_to_grid(torch.tensor([[[1.0, 1.0, 0.0]]]), (1, 2))
    tensor([[[1.0000, 0.3333]]])
    """
    mask = at_least_float32(mask)
    rows, columns = (_cell_weights(pixels, cells, mask) for pixels, cells in zip(mask.shape[1:], size, strict=True))
    with torch.autocast(mask.device.type, enabled=False):  # a matrix product, which autocast would round to 8 bits
        return (rows @ mask @ columns.T).clamp(0, 1)


def boxes_to_grid(
    boxes: Tensor, valid: Tensor, image_size: Sequence[int], size: Sequence[int], dilation: float = 0.0
) -> Tensor:
    """Computes the share of each cell that lies in the boxes, in closed form.

    The cover of one box is the product of its covers along the two sides. Several boxes are joined as
    ``1 - prod(1 - cover)``: exact in cells that at most one box cuts, and never above the sum or below the greatest.

    Args:
        boxes: (B, K, 4) xyxy in pixels; may reach outside the picture.
        valid: (B, K) bool; the other boxes are left out, whatever they hold.
        image_size: Height H and width W of the picture in pixels.
        size: Height h and width w of the grid.
        dilation: Enlargement about the centre, as a fraction of the box's sides: 0.5 makes it half as wide again.

    Returns:
        (B, h, w) in [0, 1].

    >>> box = torch.tensor([[[0.0, 0.0, 2.0, 3.0]]])
    >>> boxes_to_grid(box, torch.tensor([[True]]), (4, 4), (2, 2))
    tensor([[[1.0000, 0.0000],
             [0.5000, 0.0000]]])
    """
    boxes = torch.where(valid[..., None], at_least_float32(boxes), 0.0)
    x1, y1, x2, y2 = boxes.unbind(-1)
    margin_x, margin_y = dilation / 2 * (x2 - x1), dilation / 2 * (y2 - y1)
    down_scale, across_scale = size[0] / image_size[0], size[1] / image_size[1]
    down = interval_cover((y1 - margin_y) * down_scale, (y2 + margin_y) * down_scale, size[0])
    across = interval_cover((x1 - margin_x) * across_scale, (x2 + margin_x) * across_scale, size[1])
    return 1 - (1 - down[..., :, None] * across[..., None, :]).prod(1)


def keypoints_to_grid(
    points: Tensor, valid: Tensor, image_size: Sequence[int], size: Sequence[int], sigma: float = 0.1
) -> Tensor:
    """Finds the greatest value in each cell of Gaussians about the keypoints.

    Taking the greatest value in the cell, not that at its centre, a keypoint's own cell has 1 however coarse the grid.

    Args:
        points: (B, P, 2) xy in pixels.
        valid: (B, P) bool; the other points are left out, whatever they hold.
        image_size: Height H and width W of the picture in pixels.
        size: Height h and width w of the grid.
        sigma: Standard deviation, as a fraction of the picture's shorter side.

    Returns:
        (B, h, w) in [0, 1].

    Raises:
        ValueError: If `sigma` is not positive.

    >>> keypoints_to_grid(torch.tensor([[[1.0, 1.0]]]), torch.tensor([[True]]), (2, 4), (1, 2), sigma=0.5)
    tensor([[[1.0000, 0.6065]]])
    """
    if sigma <= 0:
        raise ValueError(f"sigma is a positive fraction of the picture's side, not {sigma}")
    points = torch.where(valid[..., None], at_least_float32(points), 0.0)
    (height, width), (rows, columns) = image_size, size
    down = _distance_to_cells(points[..., 1], height, rows)
    across = _distance_to_cells(points[..., 0], width, columns)
    squared = down[..., :, None] ** 2 + across[..., None, :] ** 2
    gaussians = torch.exp(-squared / (2 * (sigma * min(height, width)) ** 2))
    return torch.where(valid[..., None, None], gaussians, 0.0).amax(1)


def dilate(prior: Tensor, margin: Tensor) -> Tensor:
    """Widens a prior map on all four sides.

    Grey dilation along the columns and then the rows. A margin of a part of a cell covers that part of the
    neighbouring cell, so that a mask that is a box on the grid's lines gives what the dilated box gives.

    Args:
        prior: (B, h, w) in [0, 1].
        margin: (B, 2), what is added above and below, and left and right, in cells.

    Returns:
        (B, h, w) in [0, 1].

    >>> dilate(torch.tensor([[[0.0, 0.0, 1.0]]]), torch.tensor([[0.0, 1.5]]))
    tensor([[[0.5000, 1.0000, 1.0000]]])
    """
    for side in (0, 1):
        prior = prior.transpose(1, 2)  # twice, so each side is last once and the result stands as it came
        cell = torch.arange(prior.shape[2], device=prior.device)
        gap = (cell[:, None] - cell[None, :]).abs()
        reach = (margin[:, side, None, None] + 1 - gap).clamp(0, 1)  # (B, cells, cells)
        prior = (prior[:, :, None, :] * reach[:, None]).amax(3)
    return prior


def harden(prior: Tensor) -> Tensor:
    """Zeros and ones: a cell is target when it has at least half of the map's greatest value.

    The map's own maximum, not 1, is the measure, so that a target smaller than half a cell does not vanish.

    Args:
        prior: (B, h, w) in [0, 1].

    Returns:
        (B, h, w) of zeros and ones; an empty map stays empty.

    >>> harden(torch.tensor([[[0.1, 0.2, 0.05]]]))
    tensor([[[1., 1., 0.]]])
    """
    return ((prior >= 0.5 * prior.amax((1, 2), keepdim=True)) & (prior > 0)).to(prior.dtype)


def prior_map(
    batch: Mapping[str, Any],
    size: Sequence[int],
    prefer: PriorKind = "mask",
    dilation: float = 0.0,
    sigma: float = 0.1,
    hard: bool = False,
) -> tuple[Tensor, Tensor]:
    """Makes the prior map of each image of a batch from whatever annotation the data has.

    One kind serves for the whole batch: `prefer` if the data has it, otherwise the first of mask, part boxes and
    keypoints that it has. Kinds are never mixed between the images of a batch.

    Args:
        batch: A `PriorBatch`, or any mapping with its keys ``mask`` and ``mask_valid``, ``part_boxes`` and
            ``part_valid``, or ``keypoints`` and ``keypoint_valid``; where a ``*_valid`` is absent all are valid. The
            last two pairs need ``image`` (B, 3, H, W), for its size.
        size: Height h and width w of the map.
        prefer: The kind of annotation to use.
        dilation: Enlargement of boxes and masks, as a fraction of the target's width and height.
        sigma: Standard deviation about a keypoint, as a fraction of the picture's shorter side.
        hard: Whether the map is made of zeros and ones, see `harden`.

    Returns:
        The prior (B, h, w) in [0, 1], zero where not valid, and valid (B,) bool: whether the image is annotated and
        its map is not empty.

    Raises:
        ValueError: If the batch has no kind of annotation, or `dilation` is negative.

    >>> mask = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    >>> prior_map({"mask": mask, "mask_valid": torch.tensor([True, False])}, (1, 2))
    (tensor([[[1., 0.]],
    <BLANKLINE>
            [[0., 0.]]]), tensor([ True, False]))
    """
    if dilation < 0:
        raise ValueError(f"dilation is a fraction of the target's sides, 0 or more, not {dilation}")
    kind = next((kind for kind in (prefer, *KINDS) if kind in batch), None)
    if kind == "mask":
        prior = _mask_prior(batch["mask"], size, dilation)
        valid = batch.get("mask_valid", torch.ones_like(prior[:, 0, 0], dtype=torch.bool))
    elif kind == "part_boxes":
        boxes = batch["part_boxes"]
        image_size, each = batch["image"].shape[2:], batch.get("part_valid", _all_true(boxes))
        prior, valid = boxes_to_grid(boxes, each, image_size, size, dilation), each.any(1)
    elif kind == "keypoints":
        points = batch["keypoints"]
        image_size, each = batch["image"].shape[2:], batch.get("keypoint_valid", _all_true(points))
        prior, valid = keypoints_to_grid(points, each, image_size, size, sigma), each.any(1)
    else:
        raise ValueError(f"a prior map needs one of {', '.join(KINDS)}; the batch has {', '.join(sorted(batch))}")
    prior = harden(prior) if hard else prior
    valid = valid & (prior.amax((1, 2)) > 0)
    return torch.where(valid[:, None, None], prior, 0.0), valid


def _all_true(values: Tensor) -> Tensor:
    """(B, K) bool for values (B, K, ...)."""
    return torch.ones_like(values[..., 0], dtype=torch.bool)


def _mask_prior(mask: Tensor, size: Sequence[int], dilation: float) -> Tensor:
    """The mask on the grid, widened by `dilation` of its own width and height."""
    prior = resize_to_grid(mask, size)
    if dilation == 0:
        return prior
    sides = torch.stack([_extent(mask.amax(2)) * size[0], _extent(mask.amax(1)) * size[1]], 1)
    return dilate(prior, dilation / 2 * sides)


def _extent(profile: Tensor) -> Tensor:
    """From a mask's profile (B, n) along one side, the share of that side (B,) from its first to its last pixel."""
    inside = profile > 0.5
    position = torch.arange(profile.shape[1], device=profile.device, dtype=profile.dtype)
    last = torch.where(inside, position, -1).amax(1)
    first = torch.where(inside, position, len(position)).amin(1)
    return (last + 1 - first).clamp(min=0) / len(position)


def _cell_weights(pixels: int, cells: int, like: Tensor) -> Tensor:
    """(cells, pixels): the part of each cell that each pixel takes; every row adds up to 1."""
    edge = torch.arange(cells + 1, device=like.device, dtype=like.dtype) * pixels / cells
    return interval_cover(edge[:-1], edge[1:], pixels) * (cells / pixels)


def _distance_to_cells(position: Tensor, pixels: int, cells: int) -> Tensor:
    """Distances in pixels (..., cells) from positions (...) to the nearest point of each cell along one side."""
    left = torch.arange(cells, device=position.device, dtype=position.dtype) * (pixels / cells)
    return torch.maximum(left - position[..., None], position[..., None] - left - pixels / cells).clamp(min=0)
