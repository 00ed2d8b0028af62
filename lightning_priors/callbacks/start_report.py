"""What a run starts with, in a few lines: the data, the network, its evidence map."""

from collections import Counter
from typing import Protocol, runtime_checkable

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_info

from lightning_priors.callbacks.cam_panel import collect_evidence
from lightning_priors.errors import PriorError
from lightning_priors.nn import Backbone

COARSE = 3
"""Up to how many cells a side of an evidence map tells hardly anything about where the evidence lies."""


@runtime_checkable
class DescribesItself(Protocol):
    """A data module that says what it has."""

    image_size: int
    """Side of the square images in pixels."""

    def overview(self, stage: str) -> list[str]:
        """Says in a few lines what a stage uses."""

    def training_batches(self, world_size: int) -> int:
        """Counts the batches of an epoch on each rank."""


class StartReport(L.Callback):
    """Says at the start what was chosen: the images used, their annotation, weights, parameters, the evidence map.

    An epoch without a batch is refused before weights are read.

    >>> StartReport().state_key
    'StartReport'
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Reports on the data.

        Raises:
            PriorError: If the data has no image for the stage, or an epoch of training would have no batch.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, DescribesItself):
            return
        for line in data.overview(stage):
            rank_zero_info(line)
        if stage == "fit":
            _check_length(data.training_batches(trainer.world_size), trainer.limit_train_batches)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reports on the network, when it has its weights."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            return  # no rank has all parameters
        rank_zero_info(network_line(pl_module))
        if isinstance(data, DescribesItself) and callable(getattr(pl_module, "explain", None)):
            picture = torch.zeros(1, 3, data.image_size, data.image_size, device=pl_module.device)
            with trainer.precision_plugin.forward_context():
                height, width = collect_evidence(pl_module, picture).cam.shape[2:]
            rank_zero_info(map_line(height, width, data.image_size))


def network_line(module: torch.nn.Module) -> str:
    """Says what is trained, and from which weights.

    Args:
        module: The technique.

    >>> network_line(Backbone("tiny"))
    'model: Backbone on tiny (random weights), 65,368 parameters, all trained'
    """
    backbones = Counter(
        f"{part.name} ({'random weights' if part.weights == 'none' else f'weights {part.weights}'})"
        for part in module.modules()
        if isinstance(part, Backbone)
    )
    named = [f"{count} x {name}" if count > 1 else name for name, count in backbones.items()]
    total = sum(parameter.numel() for parameter in module.parameters())
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    share = "all" if trained == total else f"{trained:,}"
    on = f" on {' and '.join(named)}" if named else ""
    return f"model: {type(module).__name__}{on}, {total:,} parameters, {share} trained"


def map_line(height: int, width: int, image_size: int) -> str:
    """Says how fine the evidence map is.

    Args:
        height: Cells from top to bottom.
        width: Cells from left to right.
        image_size: Side of the images in pixels.

    >>> map_line(8, 8, 64)
    'evidence map: 8 x 8 cells of an image of 64 x 64 pixels'
    >>> map_line(3, 3, 96)
    'evidence map: 3 x 3 cells of an image of 96 x 96 pixels, too coarse to tell where: raise --data.image_size'
    """
    coarse = ", too coarse to tell where: raise --data.image_size" if min(height, width) <= COARSE else ""
    return f"evidence map: {height} x {width} cells of an image of {image_size} x {image_size} pixels{coarse}"


def _check_length(batches: int, limit: int | float | None) -> None:
    """Refuses an epoch of no batch; a limit is a number of batches, or with a fraction a share of them."""
    limit = 1.0 if limit is None else limit
    used = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    if used < 1:
        raise PriorError(f"an epoch would have no batch: trainer.limit_train_batches is {limit}, of {batches} batches")
