"""Crops of a batch of pictures, of which each may have none, one or several."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Crops(NamedTuple):
    """Parts of a batch of pictures, as many as there are."""

    boxes: Tensor
    """(N, 4) xyxy in pixels, squares."""
    owner: Tensor
    """(N,) int64, the picture in the batch that each box belongs to."""
    parts: Tensor
    """(N, 4) xyxy in pixels, the boxes that the squares were drawn about."""

    def and_also(self, other: "Crops") -> "Crops":
        """Joins these crops with other ones of the same pictures."""
        return Crops(*(torch.cat([here, there.to(here)]) for here, there in zip(self, other, strict=True)))


def emptiest_quarters(boxes: Tensor, image_size: Sequence[int]) -> Tensor:
    """Finds for each box the quarter of its picture that it covers least; of several that it leaves alone a random one.

    Args:
        boxes: (N, 4) xyxy in pixels.
        image_size: Height H and width W in pixels.

    Returns:
        (N, 4) xyxy in pixels.

    >>> emptiest_quarters(torch.tensor([[0.0, 0.0, 6.0, 7.0]]), image_size=(8, 8))
    tensor([[4., 4., 8., 8.]])
    """
    height, width = image_size[0] / 2, image_size[1] / 2
    corners = [(x, y, x + width, y + height) for y in (0.0, height) for x in (0.0, width)]
    quarters = boxes.new_tensor(corners)
    end = torch.minimum(quarters[:, 2:], boxes[:, None, 2:])
    covered = (end - torch.maximum(quarters[:, :2], boxes[:, None, :2])).clamp(min=0).prod(2)
    return quarters[(covered + torch.rand_like(covered)).argmin(1)]  # a square pixel more or less does not matter


def count_by_owner(owner: Tensor, count: int) -> Tensor:
    """Counts the crops of each picture; unlike ``torch.bincount`` it can be exported for batches of any size.

    Args:
        owner: (N,) int64, the picture of each crop.
        count: Number of pictures B.

    Returns:
        (B,) int64.

    >>> count_by_owner(torch.tensor([0, 0, 2]), 3)
    tensor([2, 0, 1])
    """
    return owner.new_zeros(count).index_add(0, owner, torch.ones_like(owner))


def mean_by_owner(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """Averages over the crops of each picture.

    Args:
        values: (N, ...) one entry per crop.
        owner: (N,) int64, the picture of each crop.
        count: Number of pictures B.

    Returns:
        (B, ...), zero for pictures without a crop.

    >>> mean_by_owner(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 2]), 3).flatten()
    tensor([2., 0., 5.])
    """
    number = count_by_owner(owner, count).clamp(min=1)
    total = values.new_zeros(count, *values.shape[1:]).index_add(0, owner, values)
    return total / number.view(-1, *[1] * (values.ndim - 1))
