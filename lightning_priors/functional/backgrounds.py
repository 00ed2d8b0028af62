"""Exchanging the backgrounds of feature maps, so that what surrounds a target says nothing about it."""

import torch
from torch import Tensor


def exchange_cells(features: Tensor, target: Tensor, order: Tensor) -> Tensor:
    """Puts the targets of feature maps among the background cells of other maps.

    What Xiao et al. 2021, "Noise or Signal: The Role of Image Backgrounds in Object Recognition" (MIXED-RAND), do with
    pictures. Where the other map has its own target, its mean background stands instead.

    Args:
        features: (B, C, h, w).
        target: (B, h, w) in [0, 1], how much of each cell is target.
        order: (B,) int64, whose background each map gets; one that gets its own stays as it is.

    Returns:
        (B, C, h, w) of the type of the features.

    >>> features = torch.tensor([[[[1.0, 2.0, 2.0]]], [[[5.0, 7.0, 9.0]]]])
    >>> target = torch.tensor([[[1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]]])
    >>> exchange_cells(features, target, torch.tensor([1, 0]))
    tensor([[[[1., 7., 6.]]],
    <BLANKLINE>
    <BLANKLINE>
            [[[2., 2., 9.]]]])
    """
    inside = target.unsqueeze(1).to(features)
    outside = 1 - inside
    mean = (outside * features).sum((2, 3), keepdim=True) / outside.sum((2, 3), keepdim=True).clamp(min=1e-3)
    background = outside * features + inside * mean
    exchanged = inside * features + outside * background[order]
    stays = order == torch.arange(len(order), device=order.device)
    return torch.where(stays[:, None, None, None], features, exchanged)


def shuffle_among(valid: Tensor) -> Tensor:
    """A random order of some of the images; the others keep their places.

    Args:
        valid: (B,) bool, the images to shuffle.

    Returns:
        (B,) int64, a permutation.

    >>> shuffle_among(torch.tensor([False, True, False]))
    tensor([0, 1, 2])
    """
    order = torch.arange(len(valid), device=valid.device)
    among = order[valid]
    order[valid] = among[torch.randperm(len(among), device=valid.device)]
    return order
