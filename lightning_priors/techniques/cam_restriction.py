"""Technique 4: the class activation map is kept inside the target's region while the network is trained."""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lightning_priors.batch import PriorBatch
from lightning_priors.functional.cam import evidence_map
from lightning_priors.functional.guidance import GuidanceLoss, guidance_loss, masked_mean
from lightning_priors.functional.prior_maps import prior_map
from lightning_priors.nn import Classifier
from lightning_priors.techniques.base import PriorModule, PriorStep


def restricted_logits(cam: Tensor, bias: Tensor, prior: Tensor) -> Tensor:
    """Logits from the cells inside the prior alone: hard masking before the mean.

    Args:
        cam: (B, K, h, w) class activation maps.
        bias: (K,) of the head.
        prior: (B, h, w) in [0, 1], not zero everywhere.

    Returns:
        (B, K); for a prior of ones the ordinary logits.

    >>> cam = torch.tensor([[[[4.0, 0.0]]]])
    >>> restricted_logits(cam, torch.zeros(1), torch.tensor([[[1.0, 0.0]]]))
    tensor([[4.]])
    """
    inside = prior.unsqueeze(1)
    return (cam * inside).sum((2, 3)) / inside.sum((2, 3)) + bias


def ramp(epoch: float, warmup_epochs: float) -> float:
    """The factor on a weight that rises linearly over the first epochs.

    Args:
        epoch: Epochs done so far, with fraction.
        warmup_epochs: Length of the rise; 0 starts at the full weight.

    Returns:
        A factor in [0, 1].

    >>> [ramp(epoch, 2) for epoch in (0, 1, 2, 3)], ramp(0, 0)
    ([0.0, 0.5, 1.0, 1.0], 1.0)
    """
    return 1.0 if warmup_epochs <= 0 else min(1.0, epoch / warmup_epochs)


class CAMRestriction(PriorModule):
    """Classification whose evidence must lie on the target.

    The loss is cross entropy plus `weight` times a guidance loss between the evidence map of the labelled class and the
    prior map (Rao et al. 2023, "Studying How to Efficiently and Effectively Guide Models with Explanations",
    equations 2 to 6). With two classes the evidence map is the signed class activation map. Images without an
    annotation take part in the cross entropy alone.

    Args:
        num_classes: Number of classes K of the primary task.
        backbone: A timm model name, or ``tiny``.
        weights: ``none``, ``imagenet``, or the path of a checkpoint.
        loss: ``energy`` (the share of positive evidence outside the prior), ``energy_both_signs`` (evidence for and
            evidence against), ``l1``, ``ppce`` or ``rrr``.
        weight: Weight of the guidance loss; 0 is plain training.
        weight_warmup_epochs: Epochs over which the weight rises from 0.
        prior: What the prior map is made of: ``mask`` or ``part_boxes``.
        dilation: Enlargement of the prior map, as a fraction of the target's sides.
        hard_mask: Whether the training logits are the mean over the cells inside the prior, where there is one.
        lr: Learning rate of the default optimiser, AdamW.
        weight_decay: Weight decay of the default optimiser.
        warmup_epochs: Linear warm-up of the learning rate before its cosine, in epochs.
        optimizer: Replaces the default optimiser.
        scheduler: Replaces the default schedule.

    >>> model = CAMRestriction(num_classes=2, backbone="tiny", loss="energy", weight=1.0)
    >>> logits, cam = model.explain(torch.zeros(1, 3, 64, 64))
    >>> cam.shape
    torch.Size([1, 2, 8, 8])
    """

    requires: ClassVar = [("mask", "part_boxes")]

    def __init__(
        self,
        num_classes: int = 2,
        backbone: str = "tiny",
        weights: str = "none",
        loss: GuidanceLoss = "energy",
        weight: float = 1.0,
        weight_warmup_epochs: float = 0.0,
        prior: Literal["mask", "part_boxes"] = "mask",
        dilation: float = 0.0,
        hard_mask: bool = False,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup_epochs: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(num_classes, weights, lr, weight_decay, warmup_epochs, optimizer, scheduler)
        self.save_hyperparameters(ignore=["optimizer", "scheduler"])
        self.classifier = Classifier(num_classes, backbone)
        self.loss, self.weight, self.weight_warmup_epochs = loss, weight, weight_warmup_epochs
        self.prior, self.dilation, self.hard_mask = prior, dilation, hard_mask

    def explain(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Classifies images (B, 3, H, W) to logits (B, K) and class activation maps (B, K, h, w)."""
        logits, cam = self.classifier(image)
        return logits, cam

    def step(self, batch: PriorBatch) -> PriorStep:
        """Cross entropy, of the restricted logits where asked for, plus the weighted guidance loss."""
        label = batch["label"]
        logits, cam = self.classifier(batch["image"])
        prior, valid = prior_map(batch, cam.shape[2:], prefer=self.prior, dilation=self.dilation)
        if self.hard_mask:
            inside = torch.where(valid[:, None, None], prior, 1.0)
            logits = restricted_logits(cam, self.classifier.head.bias, inside)
        loss = F.cross_entropy(logits, label)
        weight = self.weight * ramp(self.epochs_done, self.weight_warmup_epochs)
        if weight == 0:
            return PriorStep(loss, logits, {})
        guidance = weight * masked_mean(guidance_loss(self.loss, evidence_map(cam, label), prior), valid)
        return PriorStep(loss + guidance, logits, {"class": loss, "restriction": guidance})
