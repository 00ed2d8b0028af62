"""Technique 3: attention that is told where to look."""

from collections.abc import Mapping
from typing import Literal

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torchmetrics import Metric

from lightning_priors.functional.guidance import MapLoss
from lightning_priors.functional.prior_maps import PriorKind
from lightning_priors.priors import GuidedAttention
from lightning_priors.techniques.optimisation import PLAIN, Tuning
from lightning_priors.techniques.with_priors import ClassifierWithPriors


class PriorAttention(ClassifierWithPriors):
    """Trains a classifier whose features are weighed by attention that is taught where to look, by `GuidedAttention`.

    Args:
        num_classes: Number of classes K of the primary task.
        backbone: A timm model name, or ``tiny``.
        weights: ``none``, ``imagenet``, or the path of a checkpoint.
        attention: ``branch``, for every backbone, or ``tokens``, for vision transformers.
        residual: Whether the network goes on with ``(1 + M) * g``; otherwise ``M / mean(M) * g``, which can shut the
            background out.
        loss: Between the attention M and the prior: ``bce``, ``l1``, ``energy``, ``ppce`` or ``kl``, or a function of
            the logits of M (B, i, j) and the prior (B, i, j) that gives (B,), or its dotted name.
        weight: Weight of that loss; 0 leaves the network without attention.
        prior: What the prior map is made of: ``mask``, ``part_boxes`` or ``keypoints``.
        dilation: Enlargement of masks and boxes, as a fraction of the target's sides.
        sigma: Standard deviation about a keypoint, as a fraction of the picture's shorter side.
        hard: Whether the prior map is made of zeros and ones.
        tuning: How pretrained weights are tuned.
        lr: Learning rate of the default optimiser, AdamW.
        weight_decay: Weight decay of the default optimiser.
        warmup_epochs: Linear warm-up of the learning rate before its cosine, in epochs.
        optimizer: Replaces the default optimiser.
        scheduler: Replaces the default schedule.
        extra_metrics: Further metrics by name.

    Raises:
        PriorError: If there is no such loss, or if the backbone has no tokens whose attention can be told, or hands out
            no map on the way.

    >>> import torch
    >>> model = PriorAttention(num_classes=2, backbone="tiny", loss="bce", prior="part_boxes")
    >>> model.explain_maps(torch.zeros(1, 3, 64, 64))["attention"].shape
    torch.Size([1, 8, 8])
    """

    def __init__(
        self,
        *,
        num_classes: int = 2,
        backbone: str = "tiny",
        weights: str = "none",
        attention: Literal["branch", "tokens"] = "branch",
        residual: bool = True,
        loss: MapLoss = "bce",
        weight: float = 1.0,
        prior: PriorKind = "mask",
        dilation: float = 0.0,
        sigma: float = 0.1,
        hard: bool = False,
        tuning: Tuning = PLAIN,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup_epochs: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        extra_metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        guided = GuidedAttention(
            attention=attention,
            residual=residual,
            loss=loss,
            weight=weight,
            prior=prior,
            dilation=dilation,
            sigma=sigma,
            hard=hard,
        )
        super().__init__(
            [guided],
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
