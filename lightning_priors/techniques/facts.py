"""What has to be known beside the weights to classify a picture; a checkpoint holds it."""

from typing import Protocol, TypedDict, runtime_checkable

import lightning as L
from torch import Tensor

from lightning_priors.batch import IMAGE_MEAN, IMAGE_STD
from lightning_priors.callbacks.run_folder import class_names


class Facts(TypedDict):
    """What a classifier was trained on, in plain values."""

    class_names: list[str]
    """K names in the order of the logits."""
    image_size: list[int]
    """Height H and width W in pixels to which every picture was resized."""
    mean: list[float]
    """Of the three colour channels in [0, 1]; subtracted."""
    std: list[float]
    """Of the three colour channels; divided by."""
    group_counts: list[int]
    """The number of training images of each group, or of each class where there are no groups; empty if unknown."""
    data: str
    """The class of the source of the images, or of the data module that has none; empty if unknown."""


@runtime_checkable
class CountsGroups(Protocol):
    """A data module that knows how many images of each group it trains on."""

    def group_counts(self) -> list[int]:
        """Counts the training images of each group, or of each class where there are no groups."""


def training_facts(trainer: L.Trainer, image: Tensor, num_classes: int) -> Facts:
    """Collects what a checkpoint has to say.

    Args:
        trainer: It trains.
        image: (B, 3, H, W) of a training batch.
        num_classes: Number of classes K.

    >>> import torch
    >>> trainer = L.Trainer(logger=False, accelerator="cpu")
    >>> facts = training_facts(trainer, torch.zeros(4, 3, 32, 48), num_classes=2)
    >>> facts["class_names"], facts["image_size"]
    (['0', '1'], [32, 48])
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    described = getattr(data, "source", data)
    return Facts(
        class_names=list(class_names(trainer, num_classes)),
        image_size=list(image.shape[2:]),
        mean=list(IMAGE_MEAN),
        std=list(IMAGE_STD),
        group_counts=data.group_counts() if isinstance(data, CountsGroups) else [],
        data="" if described is None else type(described).__name__,
    )
