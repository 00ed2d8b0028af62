"""Baseline: the loss of the worst group is minimised (Sagawa et al. 2020); it needs the group of each training image.

Sagawa, Koh, Hashimoto, Liang: Distributionally Robust Neural Networks for Group Shifts. ICLR 2020, algorithm 1.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torchmetrics import Metric

from lightning_priors.batch import PriorBatch
from lightning_priors.errors import PriorError
from lightning_priors.functional.distributed import sum_over_ranks, world_size
from lightning_priors.nn import Classifier
from lightning_priors.ranges import check_not_negative, check_positive
from lightning_priors.techniques.base import PriorModule, PriorStep
from lightning_priors.techniques.optimisation import PLAIN, Tuning


def size_adjustments(counts: Tensor, adjustment: float) -> Tensor:
    """Computes what is added to the loss of each group, since small groups are learned by heart: C / sqrt(n).

    Args:
        counts: (G,) training images of each group.
        adjustment: The constant C.

    Returns:
        (G,); 0 for a group without images.

    >>> size_adjustments(torch.tensor([100, 4, 0]), adjustment=2.0)
    tensor([0.2000, 1.0000, 0.0000])
    """
    return torch.where(counts > 0, adjustment / counts.clamp(min=1).sqrt(), 0.0)


def risen(weights: Tensor, losses: Tensor, step_size: float) -> Tensor:
    """Moves the weights of the groups towards those with a high loss, by a step of exponentiated gradient ascent.

    Args:
        weights: (G,) that add up to 1.
        losses: (G,) adjusted.
        step_size: The rate eta.

    Returns:
        (G,) that add up to 1.

    >>> risen(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0]), step_size=1.0)
    tensor([0.2689, 0.7311])
    """
    # adding a constant to all losses changes nothing, and keeps the exponentials finite
    moved = weights * (step_size * (losses - losses.max())).exp()
    return moved / moved.sum()


class GroupDRO(PriorModule):
    """Minimises the losses of the groups, weighted by how bad they are.

    As in the authors' code a group that is absent from a batch has the loss 0 there, so each batch should have all
    groups: ``data.balance: groups`` draws them equally often, as the authors do.

    Args:
        num_classes: Number of classes K of the primary task.
        backbone: A timm model name, or ``tiny``.
        weights: ``none``, ``imagenet``, or the path of a checkpoint.
        step_size: How fast the weights of the groups move.
        adjustment: The constant C; C / sqrt(n) is added to the loss of a group of n training images.
        tuning: How pretrained weights are tuned.
        lr: Learning rate of the default optimiser, AdamW.
        weight_decay: Weight decay of the default optimiser; the authors find a strong one needed.
        warmup_epochs: Linear warm-up of the learning rate before its cosine, in epochs.
        optimizer: Replaces the default optimiser.
        scheduler: Replaces the default schedule.
        extra_metrics: Further metrics by name.

    Raises:
        PriorError: If a number is out of its range; in training, if it is not known how many images each group has.

    >>> GroupDRO(num_classes=2)(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 2])
    """

    requires = (("group",),)

    def __init__(
        self,
        *,
        num_classes: int = 2,
        backbone: str = "tiny",
        weights: str = "none",
        step_size: float = 0.01,
        adjustment: float = 0.0,
        tuning: Tuning = PLAIN,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup_epochs: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        extra_metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            lr=lr,
            weight_decay=weight_decay,
            warmup_epochs=warmup_epochs,
            optimizer=optimizer,
            scheduler=scheduler,
            tuning=tuning,
            extra_metrics=extra_metrics,
        )
        self.save_hyperparameters()
        self.classifier = Classifier(num_classes, backbone)
        self.classifier.backbone.start_from(weights)
        check_positive({"step_size": step_size})
        check_not_negative({"adjustment": adjustment})
        self.step_size, self.adjustment = step_size, adjustment
        self.group_weights: Tensor | None = None
        """(G,) that add up to 1; None before the first step."""

    def explain(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Classifies images (B, 3, H, W) to logits (B, K) and class activation maps (B, K, h, w)."""
        logits, cam = self.classifier(image)
        return logits, cam

    def step(self, batch: PriorBatch) -> PriorStep:
        """Moves the weights of the groups, then computes the weighted loss; all ranks move them alike."""
        logits = self(batch["image"])
        losses, group = F.cross_entropy(logits, batch["label"], reduction="none"), batch["group"]
        counts = self._counts(group)
        own = losses.new_zeros(len(counts)).index_add(0, group, losses)
        images = sum_over_ranks(torch.bincount(group, minlength=len(counts))).clamp(min=1)
        adjusted = sum_over_ranks(own) / images + size_adjustments(counts, self.adjustment)
        before = (counts > 0) / (counts > 0).sum() if self.group_weights is None else self.group_weights.to(adjusted)
        self.group_weights = risen(before, adjusted, self.step_size)
        # data-parallel training averages the gradients of the ranks, so that each adds its part of the sum here
        loss = (self.group_weights * own / images).sum() * world_size()
        logged = {f"group_weight_{number}": weight for number, weight in enumerate(self.group_weights)}
        return PriorStep(loss, logits, {"primary": loss}, logged)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the weights of the groups."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["group_weights"] = self.group_weights

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on with the weights of the groups."""
        super().on_load_checkpoint(checkpoint)
        self.group_weights = checkpoint["group_weights"]

    def _counts(self, group: Tensor) -> Tensor:
        """(G,) the number of training images of each group."""
        counts = self.facts["group_counts"] if self.facts is not None else []
        if not counts:
            raise PriorError("GroupDRO needs a data module whose group_counts() gives the images of each group")
        return torch.tensor(counts, device=group.device)
