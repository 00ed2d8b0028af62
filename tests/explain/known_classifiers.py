"""Pictures and classifiers of which the answers are known beforehand.

The target is a square in the middle, of the colour of its class; what surrounds it has the colour of the place.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors

from lightning_priors import PriorDataModule, TrainedClassifier
from lightning_priors.batch import IMAGE_MEAN, IMAGE_STD, PriorBatch
from lightning_priors.data.sources import Source
from lightning_priors.priors import PriorStep
from lightning_priors.techniques import PriorModule
from lightning_priors.techniques.facts import Facts

SIDE = 16
CLASSES = ["<script>alert(1)</script>", "owl & co"]


class Squares(Source):
    """Forty test pictures; the place agrees with the label in three of four.

    Args:
        masks: Whether the squares are known.
    """

    classes = CLASSES
    group_names = [f"{name} on {place}" for name in CLASSES for place in ("<b>land", "water")]  # noqa: RUF012

    def __init__(self, masks: bool = True, count: int = 40) -> None:
        self.masks, self.count = masks, count

    def setup(self) -> None:
        """Has nothing to read."""

    def indices(self, split: str) -> list[int]:
        return {"train": [100, 101, 102, 103], "val": [200, 201], "test": list(range(self.count))}[split]

    def label(self, index: int) -> int:
        return index % 2

    def place(self, index: int) -> int:
        return self.label(index) if index // 2 % 4 else 1 - self.label(index)

    def file(self, index: int) -> str:
        return f'"><img src=x onerror=alert({index})>.png'

    def load(self, index: int) -> dict:
        image = torch.full((3, SIDE, SIDE), 20 + 200 * self.place(index), dtype=torch.uint8)
        mask = torch.zeros(1, SIDE, SIDE)
        mask[:, 6:10, 6:10] = 1
        image[:, 6:10, 6:10] = 20 + 200 * self.label(index)
        raw = {"image": tv_tensors.Image(image), "label": self.label(index),
               "group": 2 * self.label(index) + self.place(index)}  # fmt: skip
        return raw | ({"mask": tv_tensors.Image(mask), "mask_valid": True} if self.masks else {})


class Reader(PriorModule):
    """Answers by the colour of one part of the picture: class 1 where it is light.

    Args:
        part: ``corner`` or ``centre``.
    """

    def __init__(self, part: str = "centre", num_classes: int = 2, scale: float = 4.0) -> None:
        super().__init__(num_classes=num_classes, lr=0.1)
        self.save_hyperparameters()
        self.part, self.scale = part, scale
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def explain(self, image: Tensor) -> tuple[Tensor, Tensor]:
        grey = F.avg_pool2d(image, 2).mean(1, keepdim=True)  # (B, 1, 8, 8)
        where = torch.zeros_like(grey)
        if self.part == "centre":
            where[..., 3:5, 3:5] = 1
        else:
            where[..., 0, 0] = 1
        cam = self.scale * torch.cat([-grey * where, grey * where], 1)
        return cam.mean((2, 3)), cam

    def step(self, batch: PriorBatch) -> PriorStep:
        return PriorStep(self.unused.sum(), self(batch["image"]), {})


def squares(masks: bool = True) -> PriorDataModule:
    """Gives the pictures, ready to be read."""
    data = PriorDataModule(cast(Source, Squares(masks)), batch_size=16, image_size=SIDE)
    data.setup("test")
    return data


def reader(part: str) -> TrainedClassifier:
    """Gives a classifier that reads one part."""
    facts = Facts(class_names=CLASSES, image_size=[SIDE, SIDE], mean=list(IMAGE_MEAN), std=list(IMAGE_STD), data="")
    return TrainedClassifier(Reader(part), facts)
