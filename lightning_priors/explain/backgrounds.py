"""Pictures whose target stands before nothing, or before the background of another picture.

After Xiao et al. 2021, "Noise or Signal: The Role of Image Backgrounds in Object Recognition" (ONLY-FG, MIXED-RAND).
Everything is done at the size that the network sees and on normalised pictures; normalisation is affine, so blending
there equals blending the colours.
"""

from collections.abc import Sequence
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from lightning_priors.batch import PriorSample
from lightning_priors.data.datamodule import PriorDataset
from lightning_priors.functional.backgrounds import before_background

WHAT_IS_DONE = (
    "Pictures with a known mask, at the size that the network sees. Target alone: everything outside the mask has the "
    "mean colour (the one that pictures are normalised with). Other background: the target stands where it was, before "
    "the background of another picture of the same split, drawn at random (seed 0) whatever its class or group; that "
    "picture's own target is removed, and its place filled smoothly with the colours around it."
)


class Exchange(TypedDict):
    """A batch of pictures and of those whose backgrounds they get."""

    image: Tensor
    """(B, 3, H, W), normalised."""
    mask: Tensor
    """(B, H, W) in [0, 1]."""
    other: Tensor
    """(B, 3, H, W), normalised."""
    other_mask: Tensor
    """(B, H, W) in [0, 1]."""


def others(count: int, seed: int = 0) -> list[int]:
    """Draws for each of several pictures another one; each is drawn once.

    Args:
        count: How many there are; at least 2.
        seed: Of the draw.

    Returns:
        For each picture the place of the other one.

    >>> drawn = others(5)
    >>> sorted(drawn), any(place == other for place, other in enumerate(drawn))
    ([0, 1, 2, 3, 4], False)
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    drawn = torch.empty(count, dtype=torch.int64)
    drawn[order] = order.roll(1)  # a ring in random order: nobody gets its own
    result: list[int] = drawn.tolist()
    return result


class Exchanged(Dataset[dict[str, Tensor]]):
    """Gives pictures together with others, as `Exchange` says.

    Args:
        images: The pictures of a split.
        places: Those with a mask.
    """

    def __init__(self, images: PriorDataset, places: Sequence[int]) -> None:
        self.images, self.places, self.others = images, places, others(len(places))

    def __len__(self) -> int:
        """Returns the number of pictures."""
        return len(self.places)

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        """Loads a picture and another one."""
        picture: PriorSample = self.images[self.places[item]]
        other: PriorSample = self.images[self.places[self.others[item]]]
        return {
            "image": picture["image"],
            "mask": picture["mask"],
            "other": other["image"],
            "other_mask": other["mask"],
        }


def target_alone(batch: Exchange) -> Tensor:
    """Shows targets before the mean colour.

    Args:
        batch: Pictures.

    Returns:
        (B, 3, H, W), normalised.

    >>> image, mask = torch.full((1, 3, 1, 2), 5.0), torch.tensor([[[1.0, 0.0]]])
    >>> target_alone({"image": image, "mask": mask, "other": image, "other_mask": mask})[0, 0]
    tensor([[5., 0.]])
    """
    return before_background(batch["image"], batch["mask"], torch.zeros_like(batch["image"]))


def before_others(batch: Exchange) -> Tensor:
    """Shows targets before the backgrounds of other pictures.

    Args:
        batch: Pictures and others.

    Returns:
        (B, 3, H, W), normalised.

    >>> image, mask = torch.full((1, 3, 1, 2), 5.0), torch.tensor([[[1.0, 0.0]]])
    >>> before_others({"image": image, "mask": mask, "other": -image, "other_mask": 0 * mask})[0, 0]
    tensor([[ 5., -5.]])
    """
    return before_background(batch["image"], batch["mask"], without_target(batch["other"], batch["other_mask"]))


def without_target(image: Tensor, target: Tensor) -> Tensor:
    """Removes targets from pictures: their places get the colours around them, the smoother the wider the place.

    Args:
        image: (B, 3, H, W).
        target: (B, H, W) in [0, 1]; pixels beside it are removed too, since they hold some of its colour.

    Returns:
        (B, 3, H, W); zero where there is nothing but target.

    >>> without_target(torch.tensor([[[[2.0, 2.0, 9.0, 9.0, 9.0]]]]), torch.tensor([[[0.0, 0.0, 0.0, 1.0, 1.0]]]))
    tensor([[[[2., 2., 2., 2., 2.]]]])
    """
    wide = F.max_pool2d(target.unsqueeze(1), 3, stride=1, padding=1)
    return _filled(image, (wide < 0.01).to(image))


def _filled(image: Tensor, known: Tensor) -> Tensor:
    """Fills what is not known from the same picture at half its size, which is filled likewise."""
    if image.shape[2:] == (1, 1):
        return image * known
    shares = F.avg_pool2d(known, 2, ceil_mode=True)
    means = F.avg_pool2d(image * known, 2, ceil_mode=True) / shares.clamp(min=1e-6)
    coarse = _filled(means, (shares > 0).to(image))
    around = F.interpolate(coarse, image.shape[2:], mode="bilinear", align_corners=False)
    return known * image + (1 - known) * around
