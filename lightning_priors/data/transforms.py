"""From what a source gives to what a network takes: image, mask, boxes and keypoints move together.

Coordinates are continuous: the picture reaches from 0 to W, and the centre of its first pixel is at 0.5.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from lightning_priors.batch import IMAGE_MEAN, IMAGE_STD, PriorSample
from lightning_priors.data.sources.base import RawSample
from lightning_priors.errors import PriorError, nearest

Augmentation = Literal["none", "flip", "crop", "color"]
AUGMENTATIONS: tuple[str, ...] = get_args(Augmentation)

MIN_BOX_SIDE = 1.0  # pixels of the output; what is thinner is no longer to be seen
BORDER = 1e-3  # pixels; a keypoint that torchvision clamped to the border ends up there but for rounding


class PriorTransform:
    """Brings one image with its priors to the size and the scale that networks expect.

    The geometry acts on all of them with the same draw; colour and normalisation act on the image only. The mask is
    interpolated bilinearly, so soft masks stay soft. A mask, box or keypoint that a crop has left outside becomes
    zero and not valid. A mirrored left wing is a right wing: the names tell which parts change places.

    All chance comes from torch's global generator.

    Args:
        image_size: Side S of the square output, in pixels. Nothing is cut off but by "crop".
        augmentation: "none"; "flip" mirrors half of the images; "crop" also cuts out 50 to 100 % of the area, with
            an aspect ratio between 3/4 and 4/3; "color" also changes brightness, contrast and saturation.
        part_names: Names of the K part boxes, for those that change places in the mirror; may be empty.
        keypoint_names: Names of the P keypoints, likewise.

    Raises:
        PriorError: If there is no such augmentation.

    Example:
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
        self.crops = augmentation in ("crop", "color")
        self.flips = augmentation != "none"
        self.resize = (
            v2.RandomResizedCrop(image_size, scale=(0.5, 1.0), antialias=True)
            if self.crops
            else v2.Resize((image_size, image_size), antialias=True)
        )
        self.color = v2.ColorJitter(0.3, 0.3, 0.3) if augmentation == "color" else None
        self.mirrored_parts = mirrored(part_names)
        self.mirrored_keypoints = mirrored(keypoint_names)

    def __call__(self, raw: RawSample, index: int) -> PriorSample:
        """Transforms one image.

        Args:
            raw: The image as its source has it.
            index: Its row in the source, which is handed on.

        Returns:
            Dense tensors with the keys of `raw` and ``index``.
        """
        moved = self.resize(_spatial(raw))
        flip = self.flips and bool(torch.rand(()) < 0.5)
        if flip:
            moved = {key: F.horizontal_flip(value) for key, value in moved.items()}
        sample = PriorSample(
            image=self._finish_image(moved["image"]), label=torch.tensor(raw["label"]), index=torch.tensor(index)
        )
        if "aux_labels" in raw:
            sample["aux_labels"] = torch.tensor(raw["aux_labels"], dtype=torch.int64)
        if "group" in raw:
            sample["group"] = torch.tensor(raw["group"])
        if "mask" in raw:
            sample["mask"], sample["mask_valid"] = _finish_mask(moved["mask"], raw["mask_valid"])
        if "part_boxes" in raw:
            order = self.mirrored_parts if flip else None
            sample["part_boxes"], sample["part_valid"] = _finish_boxes(moved["part_boxes"], raw["part_valid"], order)
        if "keypoints" in raw:
            order = self.mirrored_keypoints if flip else None
            sample["keypoints"], sample["keypoint_valid"] = _finish_keypoints(
                moved["keypoints"], raw["keypoint_valid"], order
            )
        return sample

    def _finish_image(self, image: tv_tensors.Image) -> Tensor:
        if self.color is not None:
            image = self.color(image)
        scaled = F.to_dtype(image.as_subclass(Tensor), torch.float32, scale=True)
        normalised: Tensor = F.normalize(scaled, IMAGE_MEAN, IMAGE_STD, inplace=True)
        return normalised.contiguous()


def mirrored(names: Sequence[str]) -> list[int] | None:
    """Where each part goes in the mirror.

    Args:
        names: Names of parts, such as "left eye".

    Returns:
        For each part the position of the one that it takes the place of, or None when all stay.

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


def _spatial(raw: Mapping[str, Any]) -> dict[str, tv_tensors.TVTensor]:
    """The entries that have a place in the picture, as torchvision moves them."""
    entries = {key: raw[key] for key in ("image", "mask", "part_boxes") if key in raw}
    if "keypoints" in raw:
        # As boxes without extent: torchvision mirrors tv_tensors.KeyPoints to W - 1 - x, a pixel off in our
        # coordinates, and does not know them before 0.23.
        corner = raw["keypoints"].as_subclass(Tensor).float()
        canvas_size = tuple(raw["image"].shape[-2:])
        entries["keypoints"] = tv_tensors.BoundingBoxes(
            torch.cat([corner, corner], 1), format="XYXY", canvas_size=canvas_size
        )
    return entries


def _finish_mask(mask: tv_tensors.Image, valid: bool) -> tuple[Tensor, Tensor]:
    """The mask (S, S), and whether there is one and some of it is left."""
    mask = mask.as_subclass(Tensor)[0].clamp(0, 1).contiguous()
    seen = mask.amax() > 0
    return (mask if valid else torch.zeros_like(mask)), seen & valid


def _finish_boxes(boxes: tv_tensors.BoundingBoxes, valid: Tensor, order: list[int] | None) -> tuple[Tensor, Tensor]:
    """The boxes (K, 4) inside the picture, and which are there and not empty (K,)."""
    boxes = F.clamp_bounding_boxes(boxes).as_subclass(Tensor).float()
    if order is not None:
        boxes, valid = boxes[order], valid[order]
    sides = boxes[:, 2:] - boxes[:, :2]
    valid = valid & (sides >= MIN_BOX_SIDE).all(1)
    return torch.where(valid[:, None], boxes, 0.0), valid


def _finish_keypoints(
    points: tv_tensors.BoundingBoxes, valid: Tensor, order: list[int] | None
) -> tuple[Tensor, Tensor]:
    """The keypoints (P, 2), and which are there and inside the picture (P,)."""
    size = torch.tensor(points.canvas_size[::-1])
    points = points.as_subclass(Tensor)[:, :2]
    if order is not None:
        points, valid = points[order], valid[order]
    valid = valid & ((points > BORDER) & (points < size - BORDER)).all(1)
    return torch.where(valid[:, None], points, 0.0), valid
