"""The transforms from an image of a source to the input of a network; its mask, boxes and keypoints move with it.

Coordinates are continuous: the image reaches from 0 to W, and the centre of its first pixel is at 0.5.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from lightning_priors.batch import IMAGE_MEAN, IMAGE_STD, PriorSample
from lightning_priors.data.sources.base import RawSample
from lightning_priors.errors import PriorError, nearest

Augmentation = Literal["none", "flip", "crop", "color"]
AUGMENTATIONS: tuple[str, ...] = get_args(Augmentation)

MIN_BOX_SIDE = 1.0  # pixels of the output; a thinner box is not valid
BORDER = 1e-3  # pixels; torchvision clamps keypoints outside the image to its border, up to rounding


class _Move(NamedTuple):
    """What happens to every pixel and every place of an image."""

    top: int
    left: int
    height: int
    width: int
    flip: bool
    size: int

    def pixels(self, image: Tensor) -> Tensor:
        """Cuts out, resizes and mirrors (C, H, W)."""
        # the function for tensors alone: finding it by the type of the image takes as long as what it does
        side = [self.size, self.size]
        moved: Tensor = F.resized_crop_image(
            image.as_subclass(Tensor), self.top, self.left, self.height, self.width, side
        )
        return moved.flip(-1) if self.flip else moved

    def places(self, places: Tensor, clipped: bool) -> NDArray[np.float32]:
        """Moves boxes (N, 4), or points (N, 2) as boxes of size zero.

        Those outside go to the border, where `clipped` before they are resized too. This computes what torchvision
        computes, number for number, but with numpy: torch takes longer to be called than to compute a few numbers.
        """
        moved = places.as_subclass(Tensor).float().numpy()
        if moved.shape[1] == 2:
            moved = np.concatenate([moved, moved], 1)
        if clipped:
            moved = moved - np.array([self.left, self.top, self.left, self.top], np.float32)
            ends = np.array([self.width, self.height, self.width, self.height], np.float32)
            moved = np.minimum(np.maximum(moved, 0), ends)  # numpy's own clip takes three times as long
        across, down = self.size / self.width, self.size / self.height
        moved = moved * np.array([across, down, across, down], np.float32)
        if self.flip:
            moved[:, [2, 0]] = self.size - moved[:, [0, 2]]
        inside: NDArray[np.float32] = np.minimum(np.maximum(moved, 0), self.size)
        return inside


class PriorTransform:
    """Resizes, augments and normalises one image together with its mask, boxes and keypoints.

    Resizing, cropping and mirroring treat all of them alike; colour and normalisation act on the image only. The mask
    is interpolated bilinearly, so that soft masks stay soft. A mask, box or keypoint that lies outside of the crop
    becomes zero and not valid. Mirroring makes a left wing a right wing: parts whose names differ in "left" and
    "right" are exchanged.

    All random numbers come from torch's global generator.

    Args:
        image_size: Side S of the square output, in pixels. Only cropping cuts anything off.
        augmentation: "none"; "flip" mirrors half of the images; "crop" also cuts out 50 to 100 % of the area, with
            an aspect ratio between 3/4 and 4/3; "color" also changes brightness, contrast and saturation.
        part_names: Names of the K part boxes; may be empty.
        keypoint_names: Names of the P keypoints; may be empty.

    Raises:
        PriorError: If the augmentation is unknown.

    Example:
        >>> from torchvision import tv_tensors
        >>> mask = tv_tensors.Image(torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]))
        >>> raw = {"image": tv_tensors.Image(torch.zeros(3, 2, 2, dtype=torch.uint8)), "label": 1,
        ...        "mask": mask, "mask_valid": True}
        >>> sample = PriorTransform(4)(raw, index=7)
        >>> sample["image"].shape, sample["mask"][0]
        (torch.Size([3, 4, 4]), tensor([1.0000, 0.7500, 0.2500, 0.0000]))
    """

    def __init__(
        self,
        image_size: int,
        augmentation: Augmentation = "none",
        part_names: Sequence[str] = (),
        keypoint_names: Sequence[str] = (),
    ) -> None:
        if augmentation not in AUGMENTATIONS:
            raise PriorError(f"no augmentation {augmentation!r}, {nearest(augmentation, AUGMENTATIONS)}")
        self.image_size = image_size
        self.crops = augmentation in ("crop", "color")
        self.flips = augmentation != "none"
        self.crop = v2.RandomResizedCrop(image_size, scale=(0.5, 1.0)) if self.crops else None
        self.color = v2.ColorJitter(0.3, 0.3, 0.3) if augmentation == "color" else None
        self.mirrored_parts = mirrored(part_names)
        self.mirrored_keypoints = mirrored(keypoint_names)

    def __call__(self, raw: RawSample, index: int) -> PriorSample:
        """Transforms one image.

        Args:
            raw: The image as its source gives it.
            index: The index of the image in its source.

        Returns:
            The keys of `raw` and ``index`` as dense tensors; for shapes see `lightning_priors.batch.PriorSample`.
        """
        move = self._drawn(raw["image"])
        sample = PriorSample(
            image=self._finish_image(move.pixels(raw["image"])),
            label=torch.tensor(raw["label"]),
            index=torch.tensor(index),
        )
        if "aux_labels" in raw:
            sample["aux_labels"] = torch.tensor(raw["aux_labels"], dtype=torch.int64)
        if "group" in raw:
            sample["group"] = torch.tensor(raw["group"])
        if "mask" in raw:
            sample["mask"], sample["mask_valid"] = _finish_mask(move.pixels(raw["mask"]), raw["mask_valid"])
        if "part_boxes" in raw:
            order = self.mirrored_parts if move.flip else None
            boxes = move.places(raw["part_boxes"], self.crops)
            sample["part_boxes"], sample["part_valid"] = _finish_boxes(boxes, raw["part_valid"], order)
        if "keypoints" in raw:
            order = self.mirrored_keypoints if move.flip else None
            points = move.places(raw["keypoints"], self.crops)
            sample["keypoints"], sample["keypoint_valid"] = _finish_keypoints(
                points, raw["keypoint_valid"], order, self.image_size
            )
        return sample

    def _drawn(self, image: Tensor) -> _Move:
        """Draws what happens to an image (3, H, W)."""
        height, width = image.shape[-2:]
        window = {"top": 0, "left": 0, "height": height, "width": width}
        if self.crop is not None:
            window = self.crop.make_params([image])
        return _Move(**window, flip=self.flips and bool(torch.rand(()) < 0.5), size=self.image_size)

    def _finish_image(self, image: Tensor) -> Tensor:
        if self.color is not None:
            image = self.color(image)
        return normalised(image)


def normalised(image: Tensor) -> Tensor:
    """Normalises a picture as `lightning_priors.batch` says.

    Args:
        image: (3, H, W) uint8.

    Returns:
        (3, H, W) float32.

    >>> normalised(torch.full((3, 1, 1), 255, dtype=torch.uint8)).flatten()
    tensor([2.2489, 2.4286, 2.6400])
    """
    scaled = F.to_dtype(image, torch.float32, scale=True)
    result: Tensor = F.normalize(scaled, IMAGE_MEAN, IMAGE_STD, inplace=True)
    return result.contiguous()


def evaluation_image(image: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes and normalises a picture, as the transform of validation and test images does.

    Args:
        image: (3, H, W) uint8.
        size: Height and width of the result in pixels.

    Returns:
        (3, *size) float32.

    >>> evaluation_image(torch.zeros(3, 20, 30, dtype=torch.uint8), (8, 8)).shape
    torch.Size([3, 8, 8])
    """
    return normalised(F.resize(image, list(size), antialias=True))


def mirrored(names: Sequence[str]) -> list[int] | None:
    """Finds the order of parts in a mirrored image.

    Args:
        names: Names of parts, such as "left eye".

    Returns:
        For each part the position of its mirror image among the names, or None when no part has another one.

    >>> mirrored(["beak", "left eye", "right eye"])
    [0, 2, 1]
    """
    position = {name: number for number, name in enumerate(names)}
    order = [position.get(_other_side(name), number) for number, name in enumerate(names)]
    return order if order != list(range(len(order))) else None


def _other_side(name: str) -> str:
    if "left" in name:
        return name.replace("left", "right")
    return name.replace("right", "left")


def _finish_mask(mask: Tensor, valid: bool) -> tuple[Tensor, Tensor]:
    """Returns the mask (S, S) and whether it is valid: annotated, and not all of it cropped away."""
    mask = mask[0].clamp(0, 1).contiguous()
    seen = mask.amax() > 0
    return (mask if valid else torch.zeros_like(mask)), seen & valid


def _finish_boxes(boxes: NDArray[np.float32], valid: Tensor, order: list[int] | None) -> tuple[Tensor, Tensor]:
    """Returns the boxes (K, 4) and which are valid (K,): annotated and not too thin."""
    kept = valid.numpy()
    if order is not None:
        boxes, kept = boxes[order], kept[order]
    kept = kept & ((boxes[:, 2:] - boxes[:, :2]) >= MIN_BOX_SIDE).all(1)
    return torch.from_numpy(np.where(kept[:, None], boxes, np.float32(0))), torch.from_numpy(kept)


def _finish_keypoints(
    points: NDArray[np.float32], valid: Tensor, order: list[int] | None, size: int
) -> tuple[Tensor, Tensor]:
    """Returns the keypoints (P, 2) and which are valid (P,): annotated and inside the image."""
    points, kept = points[:, :2], valid.numpy()
    if order is not None:
        points, kept = points[order], kept[order]
    kept = kept & ((points > BORDER) & (points < size - BORDER)).all(1)
    return torch.from_numpy(np.where(kept[:, None], points, np.float32(0))), torch.from_numpy(kept)
