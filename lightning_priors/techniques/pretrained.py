"""Technique 1: the weights of the network are replaced by those trained on another task, then tuned."""

from collections.abc import Mapping

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torchmetrics import Metric

from lightning_priors.priors import StartingPoint
from lightning_priors.ranges import check_not_negative
from lightning_priors.techniques.optimisation import Mode, Tuning
from lightning_priors.techniques.with_priors import ClassifierWithPriors


class Pretrained(ClassifierWithPriors):
    """Tunes a network that another task has trained; without weights it is plain training.

    Args:
        num_classes: Number of classes K of the primary task.
        backbone: A timm model name, or ``tiny``.
        weights: ``none``, ``imagenet``, or the path of a checkpoint of this library or a safetensors file.
        tuning: ``full``, ``probe``, ``probe_then_tune`` or ``gradual``; the mode of `Tuning`, whose options follow.
        probe_epochs: Epochs of the probe in ``probe_then_tune``.
        unfreeze_every: Epochs between two layers in ``gradual``.
        layer_decay: Factor on the learning rate from one layer to the next one below it; 1 treats all alike.
        freeze_statistics: Whether batch normalisation keeps the running statistics that it came with.
        new_parts_factor: Factor on the learning rate of the head.
        l2_sp: Weight of the prior `StartingPoint`, which keeps the backbone near its initial weights.
        lr: Learning rate of the default optimiser, AdamW.
        weight_decay: Weight decay of the default optimiser.
        warmup_epochs: Linear warm-up of the learning rate before its cosine, in epochs.
        optimizer: Replaces the default optimiser.
        scheduler: Replaces the default schedule.
        extra_metrics: Further metrics by name.

    Raises:
        PriorError: If a value is out of its range, or `l2_sp` has no weights to keep to.

    >>> import torch
    >>> Pretrained(num_classes=2, backbone="tiny")(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 2])
    """

    def __init__(
        self,
        *,
        num_classes: int = 2,
        backbone: str = "tiny",
        weights: str = "none",
        tuning: Mode = "full",
        probe_epochs: int = 1,
        unfreeze_every: int = 1,
        layer_decay: float = 1.0,
        freeze_statistics: bool = False,
        new_parts_factor: float = 1.0,
        l2_sp: float = 0.0,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup_epochs: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        extra_metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        check_not_negative({"l2_sp": l2_sp})
        super().__init__(
            [StartingPoint(l2_sp)] if l2_sp else [],
            num_classes=num_classes,
            backbone=backbone,
            weights=weights,
            lr=lr,
            weight_decay=weight_decay,
            warmup_epochs=warmup_epochs,
            optimizer=optimizer,
            scheduler=scheduler,
            tuning=Tuning(tuning, probe_epochs, unfreeze_every, layer_decay, freeze_statistics, new_parts_factor),
            extra_metrics=extra_metrics,
        )
        self.save_hyperparameters()
