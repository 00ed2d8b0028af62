"""Technique 4: the class activation map is kept inside the target's region while the network is trained."""

from collections.abc import Mapping
from typing import Literal

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torchmetrics import Metric

from lightning_priors.functional.guidance import MapLoss
from lightning_priors.priors import Restriction
from lightning_priors.techniques.optimisation import PLAIN, Tuning
from lightning_priors.techniques.with_priors import ClassifierWithPriors


class CAMRestriction(ClassifierWithPriors):
    """Trains a classifier whose evidence must lie on the target, by the prior `Restriction`.

    Args:
        num_classes: Number of classes K of the primary task.
        backbone: A timm model name, or ``tiny``.
        weights: ``none``, ``imagenet``, or the path of a checkpoint.
        loss: ``energy`` (the share of positive evidence outside the prior), ``energy_both_signs`` (evidence for and
            evidence against), ``l1``, ``ppce`` or ``rrr``; or a function of the evidence (B, h, w) and the prior
            (B, h, w) that gives (B,), or its dotted name.
        weight: Weight of the guidance loss; 0 is plain training.
        weight_warmup_epochs: Epochs over which the weight rises from 0.
        prior: What the prior map is made of: ``mask`` or ``part_boxes``.
        dilation: Enlargement of the prior map, as a fraction of the target's sides.
        hard_mask: Whether the training logits are the mean over the cells inside the prior, where there is one.
        found_regions: Whether images without an annotation are restricted to the region that is found in them.
        finder_lr_factor: Factor on the learning rate of the finder of regions.
        exchange_background: Whether in training the backgrounds of the images whose region is known are exchanged.
        tuning: How pretrained weights are tuned.
        lr: Learning rate of the default optimiser, AdamW.
        weight_decay: Weight decay of the default optimiser.
        warmup_epochs: Linear warm-up of the learning rate before its cosine, in epochs.
        optimizer: Replaces the default optimiser.
        scheduler: Replaces the default schedule.
        extra_metrics: Further metrics by name.

    Raises:
        PriorError: If there is no such loss; if regions are to be found, or backgrounds exchanged, and the backbone
            hands out no intermediate map.

    >>> import torch
    >>> model = CAMRestriction(num_classes=2, backbone="tiny", loss="energy", weight=1.0)
    >>> logits, cam = model.explain(torch.zeros(1, 3, 64, 64))
    >>> cam.shape
    torch.Size([1, 2, 8, 8])
    """

    def __init__(
        self,
        *,
        num_classes: int = 2,
        backbone: str = "tiny",
        weights: str = "none",
        loss: MapLoss = "energy",
        weight: float = 1.0,
        weight_warmup_epochs: float = 0.0,
        prior: Literal["mask", "part_boxes"] = "mask",
        dilation: float = 0.0,
        hard_mask: bool = False,
        found_regions: bool = False,
        finder_lr_factor: float = 10.0,
        exchange_background: bool = False,
        tuning: Tuning = PLAIN,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup_epochs: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        extra_metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        restriction = Restriction(
            loss=loss,
            weight=weight,
            weight_warmup_epochs=weight_warmup_epochs,
            prior=prior,
            dilation=dilation,
            hard_mask=hard_mask,
            found_regions=found_regions,
            finder_lr_factor=finder_lr_factor,
            exchange_background=exchange_background,
        )
        super().__init__(
            [restriction],
            num_classes=num_classes,
            backbone=backbone,
            weights=weights,
            lr=lr,
            weight_decay=weight_decay,
            warmup_epochs=warmup_epochs,
            optimizer=optimizer,
            scheduler=scheduler,
            tuning=tuning,
            extra_metrics=extra_metrics,
        )
        self.save_hyperparameters()
