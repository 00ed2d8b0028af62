"""The transform gives what torchvision's classes give when they are asked one after another, number for number."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from lightning_priors.batch import IMAGE_MEAN, IMAGE_STD
from lightning_priors.data.sources import RawSample
from lightning_priors.data.transforms import AUGMENTATIONS, BORDER, MIN_BOX_SIDE, PriorTransform

PARTS, POINTS = ["left wing", "tail", "right wing"], ["left eye", "beak", "right eye", "left leg"]
EXCHANGED = {"parts": [2, 1, 0], "points": [2, 1, 0, 3]}


def defined(raw: RawSample, size: int, augmentation: str) -> dict[str, Tensor]:
    """The definition: torchvision's own types and classes, which draw from the same generator."""
    entries: dict[str, Any] = {"image": raw["image"], "mask": raw["mask"], "boxes": raw["part_boxes"]}
    corner = raw["keypoints"]
    entries["points"] = tv_tensors.BoundingBoxes(
        torch.cat([corner, corner], 1), format="XYXY", canvas_size=raw["image"].shape[-2:]
    )
    crops = augmentation in ("crop", "color")
    resize = v2.RandomResizedCrop(size, scale=(0.5, 1.0), antialias=True) if crops else v2.Resize((size, size))
    moved = resize(entries)
    flip = augmentation != "none" and bool(torch.rand(()) < 0.5)
    if flip:
        moved = {key: F.horizontal_flip(value) for key, value in moved.items()}
    image = moved["image"]
    if augmentation == "color":
        image = v2.ColorJitter(0.3, 0.3, 0.3)(image)
    image = F.normalize(F.to_dtype(image.as_subclass(Tensor), torch.float32, scale=True), IMAGE_MEAN, IMAGE_STD)
    mask = moved["mask"].as_subclass(Tensor)[0].clamp(0, 1)
    boxes, part_valid = F.clamp_bounding_boxes(moved["boxes"]).as_subclass(Tensor), raw["part_valid"]
    points, keypoint_valid = moved["points"].as_subclass(Tensor)[:, :2], raw["keypoint_valid"]
    if flip:
        boxes, part_valid = boxes[EXCHANGED["parts"]], part_valid[EXCHANGED["parts"]]
        points, keypoint_valid = points[EXCHANGED["points"]], keypoint_valid[EXCHANGED["points"]]
    part_valid = part_valid & (boxes[:, 2:] - boxes[:, :2] >= MIN_BOX_SIDE).all(1)
    keypoint_valid = keypoint_valid & ((points > BORDER) & (points < size - BORDER)).all(1)
    return {
        "image": image,
        "mask": mask if raw["mask_valid"] else torch.zeros_like(mask),
        "mask_valid": torch.tensor(raw["mask_valid"]) & (mask.amax() > 0),
        "part_boxes": torch.where(part_valid[:, None], boxes, 0.0),
        "part_valid": part_valid,
        "keypoints": torch.where(keypoint_valid[:, None], points, 0.0),
        "keypoint_valid": keypoint_valid,
    }


def drawn(generator: torch.Generator) -> RawSample:
    """A picture of any size with any annotation, some of it at the borders."""
    height, width = torch.randint(5, 200, (2,), generator=generator).tolist()
    ends = torch.tensor([width, height], dtype=torch.float32)
    corners = (torch.rand(3, 2, 2, generator=generator) * 1.2 - 0.1).clamp(0, 1).sort(1).values * ends
    points = (torch.rand(4, 2, generator=generator) * 1.2 - 0.1).clamp(0, 1) * ends
    pixels = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator).permute(2, 0, 1)
    return {
        "image": tv_tensors.Image(pixels),
        "label": 0,
        "mask": tv_tensors.Image(torch.rand(1, height, width, generator=generator)),
        "mask_valid": bool(torch.rand((), generator=generator) < 0.8),
        "part_boxes": tv_tensors.BoundingBoxes(corners.flatten(1), format="XYXY", canvas_size=(height, width)),
        "part_valid": torch.rand(3, generator=generator) < 0.8,
        "keypoints": points,
        "keypoint_valid": torch.rand(4, generator=generator) < 0.8,
    }


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("size", [32, 67])
@pytest.mark.parametrize("seed", range(3))
def test_the_transform_is_its_definition(augmentation: str, size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    transform = PriorTransform(size, augmentation, PARTS, POINTS)  # type: ignore[arg-type]
    for number in range(20):
        raw = drawn(generator)
        torch.manual_seed(100 * seed + number)
        wanted = defined(raw, size, augmentation)
        torch.manual_seed(100 * seed + number)
        sample = transform(raw, number)
        for key, value in wanted.items():
            assert torch.equal(sample[key], value), key  # type: ignore[literal-required]
        assert torch.rand(()) == _next(100 * seed + number, raw, size, augmentation)


def _next(seed: int, raw: RawSample, size: int, augmentation: str) -> Tensor:
    """What the generator gives after the definition: both have drawn as much."""
    torch.manual_seed(seed)
    defined(raw, size, augmentation)
    return torch.rand(())
