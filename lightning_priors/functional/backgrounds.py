"""Exchanging the backgrounds of pictures or of feature maps, so that what surrounds a target says nothing about it.

After Xiao et al. 2021, "Noise or Signal: The Role of Image Backgrounds in Object Recognition" (MIXED-RAND).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def before_background(foreground: Tensor, target: Tensor, background: Tensor) -> Tensor:
    """Puts targets before other backgrounds.

    Args:
        foreground: (B, C, h, w) pictures or feature maps.
        target: (B, h, w) in [0, 1], how much of each pixel or cell is target.
        background: (B, C, h, w).

    Returns:
        (B, C, h, w) of the type of the foreground.

    >>> before_background(torch.ones(1, 1, 1, 2), torch.tensor([[[1.0, 0.25]]]), torch.zeros(1, 1, 1, 2))
    tensor([[[[1.0000, 0.2500]]]])
    """
    inside = target.unsqueeze(1).to(foreground)
    return inside * foreground + (1 - inside) * background


def exchange_cells(features: Tensor, target: Tensor, order: Tensor) -> Tensor:
    """Puts the targets of feature maps among the background cells of other maps.

    Where the other map has its own target, its mean background stands instead.

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
    outside = 1 - target.unsqueeze(1).to(features)
    mean = (outside * features).sum((2, 3), keepdim=True) / outside.sum((2, 3), keepdim=True).clamp(min=1e-3)
    background = before_background(mean, target, features)
    exchanged = before_background(features, target, background[order])
    stays = order == torch.arange(len(order), device=order.device)
    return torch.where(stays[:, None, None, None], features, exchanged)


def shuffle_among(valid: Tensor) -> Tensor:
    """Draws a random order of some of the images; the others keep their places.

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


def fill_in(image: Tensor, target: Tensor) -> Tensor:
    """Fills the place of targets smoothly from what surrounds them.

    Each pixel takes the mean of the background in the smallest of nested windows that has some, interpolated from
    coarse to fine (Gortler et al. 1996, "The Lumigraph", pull and push). Pixels that are
    target in part count as target.

    Args:
        image: (B, C, H, W).
        target: (B, H, W) in [0, 1], how much of each pixel is target.

    Returns:
        (B, C, H, W); outside of the target the pixels of the image, and 0 where a picture is target all over.

    >>> fill_in(torch.tensor([[[[5.0, 9.0, 5.0]]]]), torch.tensor([[[0.0, 1.0, 0.0]]]))
    tensor([[[[5., 5., 5.]]]])
    """
    outside = (target == 0).unsqueeze(1).to(image)
    levels = [(image * outside, outside)]
    while max(levels[-1][1].shape[2:]) > 1:
        levels.append(tuple(F.avg_pool2d(part, 2, ceil_mode=True) for part in levels[-1]))  # type: ignore[arg-type]
    filled = torch.zeros_like(levels[-1][0])
    for total, weight in reversed(levels):
        coarse = F.interpolate(filled, size=weight.shape[2:], mode="bilinear", align_corners=False)
        filled = torch.where(weight > 0, total / weight.clamp(min=torch.finfo(weight.dtype).tiny), coarse)
    return filled
