"""Stopping a run whose numbers have become nan or infinite, before anything of it is kept or believed."""

import math
from collections.abc import Iterable, Mapping

import lightning as L
import torch
from torch import Tensor, nn

from lightning_priors.batch import PriorBatch
from lightning_priors.callbacks.predictions import NamesFiles
from lightning_priors.errors import PriorError

NAMED_IMAGES = 3
"""How many images of a batch an error line names."""


class NotFiniteError(PriorError):
    """A number that has to be finite is nan or infinite."""


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Says whether all entries of all tensors are finite; asks the device once.

    >>> all_finite([torch.zeros(2), torch.tensor([1, 2])]), all_finite([torch.tensor([1.0, float("nan")])])
    (True, False)
    """
    flags = [tensor.detach().isfinite().all() for tensor in tensors if tensor.is_floating_point()]
    return bool(torch.stack([flag.to(flags[0].device) for flag in flags]).all()) if flags else True


def check_weights(module: nn.Module) -> None:
    """Checks the weights of a network, and the running statistics of its normalisation.

    Args:
        module: The network.

    Raises:
        NotFiniteError: Names the first one that is not finite.

    >>> check_weights(nn.Linear(2, 2))
    """
    statistics = [pair for pair in module.named_buffers() if pair[0].endswith(("running_mean", "running_var"))]
    named = dict([*module.named_parameters(), *statistics])
    if not all_finite(named.values()):
        wrong = next(name for name, value in named.items() if not all_finite([value]))
        raise NotFiniteError(
            f"the weights are not finite ({wrong}): the training has diverged; lower the learning rate, or start from "
            "an earlier checkpoint"
        )


def check_loss(loss: Tensor, terms: Mapping[str, Tensor], step: int, images: str) -> None:
    """Checks the loss of a training step.

    Args:
        loss: ().
        terms: What it is made of, ().
        step: The number of the step in the training.
        images: The names of the batch's images.

    Raises:
        NotFiniteError: Names the step, the terms that are not finite and the images.

    >>> check_loss(torch.tensor(0.5), {}, step=3, images="bird.jpg")
    """
    if not all_finite([loss, *terms.values()]):
        values = {name: float(value.detach()) for name, value in {"loss": loss, **terms}.items()}
        wrong = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
        raise NotFiniteError(f"step {step}: {', '.join(wrong)}; images: {images}")


def check_images(image: Tensor, images: str) -> None:
    """Checks the pictures of a batch.

    Args:
        image: (B, 3, H, W).
        images: Their names.

    Raises:
        NotFiniteError: Names them.

    >>> check_images(torch.zeros(1, 3, 2, 2), images="bird.jpg")
    """
    if not all_finite([image]):
        raise NotFiniteError(f"a picture holds numbers that are nan or infinite, among {images}")


def image_names(batch: PriorBatch, trainer: L.Trainer, wanted: Tensor | None = None) -> str:
    """Names the images of a batch by their files, or by their rows where they are no files.

    Args:
        batch: What a loader gave.
        trainer: Whose data module may know the files.
        wanted: (B,) bool, which of them to name; all if not given.

    Returns:
        The first few names, and how many more there are.

    >>> batch = {"image": torch.zeros(5, 3, 2, 2), "index": torch.arange(5)}
    >>> image_names(batch, L.Trainer(logger=False, accelerator="cpu"))
    'image 0, image 1, image 2 and 2 more'
    """
    if "index" not in batch:
        return "images whose loader does not number them"
    source = getattr(trainer.datamodule, "source", None)  # type: ignore[attr-defined]
    rows = (batch["index"] if wanted is None else batch["index"][wanted]).tolist()
    files = [source.file(row) if isinstance(source, NamesFiles) else "" for row in rows[:NAMED_IMAGES]]
    names = ", ".join(file or f"image {row}" for file, row in zip(files, rows, strict=False))
    more = len(rows) - NAMED_IMAGES
    return f"{names} and {more} more" if more > 0 else names
