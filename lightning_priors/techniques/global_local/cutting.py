"""Cutting parts out of pictures, at the resolution of the network that is to see them."""

import torch
from torch import Tensor
from torchvision.ops import roi_align

from lightning_priors.functional.backgrounds import before_background
from lightning_priors.functional.precision import at_least_float32
from lightning_priors.techniques.global_local.crops import Crops, emptiest_quarters


def cut_out(image: Tensor, crops: Crops, size: int) -> Tensor:
    """Cuts out what crops show, sampled bilinearly (He et al. 2017, "Mask R-CNN", section 3, RoIAlign).

    Args:
        image: (B, C, H, W).
        crops: N of them.
        size: Side in pixels of the result.

    Returns:
        (N, C, size, size); what is cut from outside the picture is zero.

    >>> crops = Crops(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([1]), torch.tensor([[0.0, 0.0, 2.0, 2.0]]))
    >>> cut_out(torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)]), crops, size=2)
    tensor([[[[1., 1.],
              [1., 1.]]]])
    """
    exact = at_least_float32(image)  # torchvision samples no bfloat16, and places would be rounded to whole pixels
    regions = torch.cat([crops.owner[:, None].to(exact.dtype), crops.boxes.to(exact.dtype)], 1)
    seen: Tensor = roi_align(exact, regions, size, aligned=True)
    return seen.to(image.dtype)


def exchange_backgrounds(seen: Tensor, target: Tensor, image: Tensor, crops: Crops) -> Tensor:
    """Puts the targets of crops before the backgrounds of other pictures, so that these tell nothing about the class.

    A background is the quarter of the other picture that its part covers least.

    Args:
        seen: (N, C, s, s) what the crops show.
        target: (N, s, s) in [0, 1], how much of each pixel is target.
        image: (B, C, H, W) the pictures.
        crops: N of them.

    Returns:
        (N, C, s, s).

    >>> box = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    >>> crops, image = Crops(box, torch.tensor([0]), box), torch.arange(8.0).expand(1, 1, 8, 8)
    >>> target = torch.tensor([[[1.0, 0.0]] * 2])
    >>> seen = exchange_backgrounds(torch.full((1, 1, 2, 2), 9.0), target, image, crops)
    >>> seen[..., 0].unique(), bool((seen[..., 1] == 9).any())
    (tensor([9.]), False)
    """
    order = torch.randperm(len(seen), device=seen.device)
    quarters = emptiest_quarters(crops.parts, image.shape[2:])
    elsewhere = Crops(quarters[order], crops.owner[order], crops.parts[order])
    return before_background(seen, target, cut_out(image, elsewhere, seen.shape[-1]))
