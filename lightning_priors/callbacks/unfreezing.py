"""Freezing of a backbone at the start of the training, and freeing it layer by layer."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import lightning as L
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_info

from lightning_priors.errors import PriorError
from lightning_priors.nn import Backbone


@runtime_checkable
class TunesBackbones(Protocol):
    """A module that says which of its backbones are tuned; of other modules all are."""

    def tuned_backbones(self) -> Iterable[Backbone]:
        """The backbones whose layers may be frozen for a while."""


def free_layers(epoch: int, probe_epochs: int, unfreeze_every: int, num_layers: int) -> int:
    """Counts the layers of the backbone, from the head downwards, that are trained in an epoch.

    Args:
        epoch: Number of the epoch, from 0.
        probe_epochs: Epochs in which the head is trained alone.
        unfreeze_every: Epochs from one layer to the next below it; 0 frees all layers at once.
        num_layers: Layers of the backbone.

    Returns:
        A number from 0 to `num_layers`.

    >>> [free_layers(epoch, probe_epochs=1, unfreeze_every=2, num_layers=3) for epoch in range(7)]
    [0, 1, 1, 2, 2, 3, 3]
    """
    if epoch < probe_epochs:
        return 0
    if unfreeze_every == 0:
        return num_layers
    return min(num_layers, 1 + (epoch - probe_epochs) // unfreeze_every)


class Unfreezing(L.Callback):
    """Trains the head first, then frees the backbones of a module, all at once or from the head downwards.

    Only ``requires_grad`` changes, and it follows from the number of the epoch: the optimiser holds all parameters from
    the beginning and skips those without a gradient, so no parameter group is ever added and a resumed run continues as
    it was. While a layer is frozen, batch normalisation keeps to its running statistics.

    Args:
        probe_epochs: Epochs in which the head is trained alone.
        unfreeze_every: Epochs from one layer to the next below it; 0 frees all layers at once.

    Raises:
        PriorError: Under the plain ``ddp`` strategy, which waits for the gradient of every parameter.

    >>> Unfreezing(probe_epochs=2).probe_epochs
    2
    """

    def __init__(self, probe_epochs: int = 1, unfreeze_every: int = 0) -> None:
        self.probe_epochs, self.unfreeze_every = probe_epochs, unfreeze_every
        self._statistics_frozen: dict[Backbone, bool] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuses a strategy that would wait for frozen parameters."""
        strategy = trainer.strategy
        waits = isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get("find_unused_parameters")
        if stage == "fit" and waits:
            raise PriorError("unfreezing under DDP needs --trainer.strategy ddp_find_unused_parameters_true")
        backbones = (module for module in pl_module.modules() if isinstance(module, Backbone))
        tuned = pl_module.tuned_backbones() if isinstance(pl_module, TunesBackbones) else backbones
        self._statistics_frozen = {backbone: backbone.freeze_statistics for backbone in tuned}

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Sets what is trained in this epoch."""
        for backbone, statistics_frozen in self._statistics_frozen.items():
            layers = backbone.layers()
            free = free_layers(trainer.current_epoch, self.probe_epochs, self.unfreeze_every, len(layers))
            for height, layer in enumerate(reversed(layers)):
                for parameter in layer:
                    parameter.requires_grad_(height < free)
            backbone.freeze_statistics = statistics_frozen or free < len(layers)
            rank_zero_info(f"epoch {trainer.current_epoch}: {free} of {len(layers)} layers of the backbone are trained")
