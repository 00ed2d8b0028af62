"""Sources without files, and a module that writes down what it is shown."""

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torchvision import tv_tensors

from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import RawSample, Source, Split

Batch = dict[str, Tensor]


class Toy(Source):
    """Pictures whose red channel tells their index; 90 for training, 20 for testing, with all kinds of priors."""

    def __init__(self, val: int = 0, train: int = 90, test: int = 20) -> None:
        self.sizes: dict[Split, int] = {"train": train, "val": val, "test": test}
        self.setups = 0

    @property
    def classes(self) -> list[str]:
        return ["a", "b", "c"]

    @property
    def aux_classes(self) -> dict[str, list[str]]:
        return {"shape": ["round", "square"], "size": ["s", "m", "l", "xl"]}

    def setup(self) -> None:
        self.setups += 1

    def indices(self, split: Split) -> list[int]:
        start = {"train": 0, "val": 100, "test": 200}[split]
        return list(range(start, start + self.sizes[split]))

    def label(self, index: int) -> int:
        return 0 if index % 10 == 0 else 1 + index % 2

    def load(self, index: int) -> RawSample:
        image = torch.randint(0, 256, (3, 12, 12), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        return RawSample(
            image=tv_tensors.Image(image),
            label=self.label(index),
            aux_labels=[index % 2, -1],
            group=index % 4,
            mask=tv_tensors.Image(torch.ones(1, 12, 12)),
            mask_valid=True,
            part_boxes=tv_tensors.BoundingBoxes([[1.0, 1, 11, 11]], format="XYXY", canvas_size=(12, 12)),
            part_valid=torch.tensor([True]),
            keypoints=torch.tensor([[6.0, 6.0]]),
            keypoint_valid=torch.tensor([True]),
        )


class Numbers(Source):
    """Two primary classes with five finer ones each, of which the third has no label; a parity, too."""

    classes = ["low", "high"]  # noqa: RUF012 - a short way to define a property
    group_names = ["all"]  # noqa: RUF012
    part_names = ["left", "right"]  # noqa: RUF012
    keypoint_names = ["eye"]  # noqa: RUF012

    def __init__(self, tasks: bool = True) -> None:
        self.tasks = tasks
        self.prepared = False

    @property
    def aux_classes(self) -> dict[str, list[str]]:
        return {"digit": list("0123456789"), "parity": ["even", "odd"]} if self.tasks else {}

    def prepare_data(self) -> None:
        self.prepared = True

    def setup(self) -> None:
        pass

    def indices(self, split: Split) -> list[int]:
        return {"train": list(range(400)), "val": [400, 401], "test": [402]}[split]

    def label(self, index: int) -> int:
        return int(index % 10 >= 5)

    def load(self, index: int) -> RawSample:
        digit = index % 10
        return {
            "image": tv_tensors.Image(torch.zeros(3, 4, 4, dtype=torch.uint8)),
            "label": self.label(index),
            "aux_labels": [-1 if digit == 2 else digit, digit % 2],
        }


def toy_data(source: Source | None = None, **options: Any) -> PriorDataModule:
    data = PriorDataModule(source or Toy(), **{"batch_size": 8, "image_size": 12, **options})
    data.setup()
    return data


class Recorder(L.LightningModule):
    """Writes down the epoch, the images and the sum of the pixels of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.seen: list[tuple[int, tuple[int, ...], float]] = []

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        self.seen.append((self.current_epoch, tuple(batch["index"].tolist()), batch["image"].sum().item()))
        torch.rand(self.current_epoch + 1)
        return self.layer(torch.ones(1))

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)
