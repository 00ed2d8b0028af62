"""Annotators of users, and small pictures with a bright target: what the tests of annotation share."""

import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_priors.annotation import Annotation, Annotator

SIZES = ((40, 30), (24, 48), (33, 33), (50, 20))
"""Width and height."""
ROTATED = 6
"""EXIF's number for a picture that is to be turned by 90 degrees."""

MODULE = '''
"""What a user may write."""

from lightning_priors.annotation import Annotation


def bright(images):
    """The bright pixels; the score is how far they stand out."""
    return [Annotation(image[0].max().item() / 255, mask=image[0] >= 200) for image in images]


def number():
    return 3


def wrong(images):
    return [image[0] for image in images]
'''


class Half(Annotator):
    """Half of the grey level as a soft mask; dark pictures get a low score."""

    def annotate(self, images: list[Tensor]) -> list[Annotation]:
        return [Annotation(image.float().mean().item() / 255, mask=image[0] / 255) for image in images]


class Corner(Annotator):
    """The upper left quarter as the box of a head; nothing in upright pictures."""

    part_names = ("head",)

    def annotate(self, images: list[Tensor]) -> list[Annotation]:
        boxes = [[0, 0, image.shape[2] / 2, image.shape[1] / 2] for image in images]
        wide = [image.shape[2] >= image.shape[1] for image in images]
        return [Annotation(0.7, boxes=[box if keep else None]) for box, keep in zip(boxes, wide, strict=True)]


def picture(width: int, height: int, seed: int) -> tuple[Image.Image, Image.Image]:
    """A noisy picture with a bright box, and the mask of the box."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 120, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    top, left = generator.integers(0, height // 2), generator.integers(0, width // 2)
    mask[top : top + height // 2, left : left + width // 2] = 255
    pixels[mask > 0] = 230
    return Image.fromarray(pixels), Image.fromarray(mask)


def save_birds(root: Path, masks: int = 0) -> Path:
    """A table of eight pictures of four sizes, one to be turned; the first ones have masks, all but one keypoints."""
    root.mkdir(parents=True)
    rows = []
    for number in range(8):
        image, mask = picture(*SIZES[number % 4], number)
        name = f"{number}.png"
        if number == 1:
            exif = Image.Exif()
            exif[0x0112] = ROTATED
            image.save(root / name, exif=exif)
        else:
            image.save(root / name)
        mask.save(root / f"mask_{number}.png")
        rows.append(
            {
                "path": name,
                "label": ["owl", "duck"][number % 2],
                "split": ["train", "train", "val", "train", "train", "train", "test", "train"][number],
                "mask": f"mask_{number}.png" if number < masks else "",
                "group": ["sea", "land"][number // 4],
                "species": ["a", "b", ""][number % 3],
                "x0": "1" if number % 2 else "",
                "y0": "2" if number % 2 else "",
                "x1": "9.5" if number % 2 else "",
                "y1": "8" if number % 2 else "",
                "eye_x": "" if number == 3 else "5.25",
                "eye_y": "" if number == 3 else "7",
            }
        )
    with (root / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


def as_stored(path: Path) -> Tensor:
    """The pixels of a picture (3, H, W), not turned."""
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)
