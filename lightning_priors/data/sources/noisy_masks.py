"""Masks that are wrong by a known amount: how good must they be?"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from lightning_priors.data.sources.base import RawSample, Source
from lightning_priors.data.sources.wrapper import SourceWrapper
from lightning_priors.errors import PriorError, nearest

MaskNoise = Literal["dilated", "eroded", "shifted", "boxes", "exchanged"]
KINDS: tuple[str, ...] = get_args(MaskNoise)


class NoisyMasks(SourceWrapper):
    """Makes the masks of the training images wrong; those of validation and test images stay as they are.

    A length is `amount` times the square root of the target's area, so that small targets suffer as large ones do. All
    but "exchanged" give masks of zeros and ones. Images without a mask stay without one.

    Args:
        source: Any source with masks.
        kind: "dilated" widens each mask by that length, "eroded" takes as much off its border but leaves its innermost
            pixels; "shifted" moves it by that length in a direction drawn for each image, and what leaves the image is
            lost; "boxes" gives the box about the target, wider by that length on each side; "exchanged" gives this
            share of the images the mask of another training image, stretched to the image's size; an image whose giver
            has none loses its own.
        amount: The length, or the share; 0 changes no mask but those that become boxes.
        seed: Seed of the directions and of the exchange.

    Raises:
        PriorError: If the kind is unknown or the amount out of its range; in `load`, if the source has no masks.

    Example:
        >>> from lightning_priors.data.sources import Kakapo
        >>> true, wide = (NoisyMasks(Kakapo(size=32), "dilated", amount).load(0)["mask"] for amount in (0.0, 0.3))
        >>> bool((wide >= true).all()), bool(wide.sum() > true.sum())
        (True, True)
    """

    def __init__(self, source: Source, kind: MaskNoise, amount: float = 0.0, seed: int = 0) -> None:
        super().__init__(source)
        if kind not in KINDS:
            raise PriorError(f"no mask noise {kind!r}, {nearest(kind, KINDS)}")
        most = 1 if kind == "exchanged" else math.inf
        if not 0 <= amount <= most:
            raise PriorError(f"the amount of {kind} masks is from 0 to {most}, not {amount}")
        self.kind = kind
        self.amount = amount
        self.seed = seed

    def load(self, index: int) -> RawSample:
        """Reads one image and makes its mask wrong, if it is a training image and has one."""
        sample = self.source.load(index).copy()
        if "mask" not in sample:
            raise PriorError(f"NoisyMasks: {type(self.source).__name__} has no masks here")
        if index in self._training and sample["mask_valid"]:
            sample["mask"] = tv_tensors.Image(self._noisy(sample["mask"].as_subclass(Tensor), index))
        return sample

    def _noisy(self, mask: Tensor, index: int) -> Tensor:
        if self.kind == "exchanged":
            giver = self._givers.get(index)
            return mask if giver is None else stretched(self.source.load(giver)["mask"], mask.shape[1:])
        if self.amount == 0 and self.kind != "boxes":
            return mask
        length = self.amount * math.sqrt(float((mask >= 0.5).sum()))
        if self.kind == "shifted":
            angle = np.random.default_rng((self.seed, index)).uniform(0, 2 * math.pi)
            return shifted(mask, round(length * math.cos(angle)), round(length * math.sin(angle)))
        return {"dilated": dilated, "eroded": eroded, "boxes": box_about}[self.kind](mask, length)

    @cached_property
    def _training(self) -> frozenset[int]:
        return frozenset(self.source.indices("train"))

    @cached_property
    def _givers(self) -> dict[int, int]:
        """For each training image that gets the mask of another one, that one: the drawn images pass theirs round."""
        order = np.random.default_rng(self.seed).permutation(sorted(self._training)).tolist()
        drawn = order[: round(self.amount * len(order))]
        return dict(zip(drawn, [*drawn[1:], *drawn[:1]], strict=True)) if len(drawn) > 1 else {}


def dilated(mask: Tensor, length: float) -> Tensor:
    """Widens a mask.

    Args:
        mask: (1, H, W) in [0, 1]; the target is where it has at least 0.5.
        length: In pixels.

    Returns:
        (1, H, W) of zeros and ones: 1 where a pixel of the target is at most so far away; zero if there is no target.

    >>> dilated(torch.tensor([[[0.0, 0.0, 1.0, 0.0, 0.0]]]), 1)
    tensor([[[0., 1., 1., 1., 0.]]])
    """
    target = mask >= 0.5
    distance = torch.from_numpy(distance_transform_edt(~target[0].numpy()))[None]
    return ((distance <= length) & target.any()).float()


def eroded(mask: Tensor, length: float) -> Tensor:
    """Takes something off the border of a mask.

    Args:
        mask: (1, H, W) in [0, 1]; the target is where it has at least 0.5.
        length: In pixels; at most so much that the pixels farthest from the border stay.

    Returns:
        (1, H, W) of zeros and ones.

    >>> eroded(torch.tensor([[[0.0, 1.0, 1.0, 1.0, 0.0]]]), 1)
    tensor([[[0., 0., 1., 0., 0.]]])
    """
    target = mask >= 0.5
    depth = torch.from_numpy(distance_transform_edt(target[0].numpy()))[None]
    return (target & ((depth > length) | (depth == depth.max()))).float()


def shifted(mask: Tensor, right: int, down: int) -> Tensor:
    """Moves a mask.

    Args:
        mask: (1, H, W) in [0, 1]; the target is where it has at least 0.5.
        right: Pixels; negative to the left.
        down: Pixels; negative upwards.

    Returns:
        (1, H, W) of zeros and ones; what leaves the image is lost.

    >>> shifted(torch.tensor([[[0.0, 1.0, 1.0]]]), right=1, down=0)
    tensor([[[0., 0., 1.]]])
    """
    target = (mask >= 0.5).float()
    moved: Tensor = F.affine(target, angle=0.0, translate=[right, down], scale=1.0, shear=[0.0, 0.0], fill=0.0)
    return moved  # without interpolation, by default


def box_about(mask: Tensor, length: float) -> Tensor:
    """Makes the box about the target.

    Args:
        mask: (1, H, W) in [0, 1]; the target is where it has at least 0.5.
        length: What the box is wider on each side, in pixels.

    Returns:
        (1, H, W) of zeros and ones; zero if there is no target.

    >>> box_about(torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]), 0)
    tensor([[[1., 1., 0.],
             [1., 1., 0.]]])
    """
    target, margin = mask[0] >= 0.5, round(length)
    box = torch.zeros_like(mask)
    if target.any():
        down, right = (torch.where(target.any(side))[0] for side in (1, 0))
        rows, columns = (slice(max(0, int(ends[0]) - margin), int(ends[-1]) + 1 + margin) for ends in (down, right))
        box[:, rows, columns] = 1
    return box


def stretched(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Brings a mask to another size.

    Args:
        mask: (1, h, w) in [0, 1].
        size: Height H and width W.

    Returns:
        (1, H, W) in [0, 1].

    >>> stretched(torch.ones(1, 2, 2), (3, 4)).shape
    torch.Size([1, 3, 4])
    """
    plain: Tensor = F.resize(mask.as_subclass(Tensor), list(size), antialias=True)
    return plain.clamp(0, 1)
