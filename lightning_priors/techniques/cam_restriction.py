"""Technique 4: the class activation map is kept inside the target's region while the network is trained."""

from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lightning_priors.batch import PriorBatch
from lightning_priors.functional.backgrounds import exchange_cells, shuffle_among
from lightning_priors.functional.cam import evidence_map
from lightning_priors.functional.guidance import GuidanceLoss, attention_loss, guidance_loss, masked_mean
from lightning_priors.functional.prior_maps import prior_map
from lightning_priors.nn import Classifier, RegionFinder
from lightning_priors.nn.backbone import FINER_STRIDE
from lightning_priors.techniques.base import PriorModule, PriorStep

EXCHANGE_STRIDE = 8
"""Width in pixels that the cells whose backgrounds are exchanged have at least. Cells twice as wide have already seen
much of what surrounds them, and pass it on."""


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


class Regions(NamedTuple):
    """Where the targets of images lie, on the finer map of the network."""

    cover: Tensor
    """(B, i, j) in [0, 1], how much of a cell is target, by the annotation or else as it was found."""
    known: Tensor
    """(B,) bool, whose region there is."""
    loss: Tensor | None
    """() of the finder; None where there is none."""


class CAMRestriction(PriorModule):
    """Classification whose evidence must lie on the target.

    The loss is cross entropy plus `weight` times a guidance loss between the evidence map of the labelled class and the
    prior map (Rao et al. 2023, "Studying How to Efficiently and Effectively Guide Models with Explanations",
    equations 2 to 6). With two classes the evidence map is the signed class activation map. Images without an
    annotation take part in the cross entropy alone, unless `found_regions` gives them one: then a `RegionFinder` learns
    from the annotated images, on detached features of an earlier stage, where the target is, and what it finds in the
    others is their prior. A few masks are soon known by heart, and the evidence in all other images goes where it
    likes.

    The cells of the last map have seen nearly the whole image, so that evidence on the target may still come from the
    background. `exchange_background` takes that way out: in training the later stages see the cells of the target
    among the background cells of another image (see `lightning_priors.functional.backgrounds.exchange_cells`), on an
    early map whose cells have seen little around them (see `Backbone.forward_weighted`). It needs no second pass.

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
        found_regions: Whether images without an annotation are restricted to the region that is found in them.
        finder_lr_factor: Factor on the learning rate of the finder of regions. It starts from nothing and is needed
            from the first epoch, while a rate that suits pretrained weights is a low one.
        exchange_background: Whether in training the backgrounds of the images whose region is known are exchanged.
        lr: Learning rate of the default optimiser, AdamW.
        weight_decay: Weight decay of the default optimiser.
        warmup_epochs: Linear warm-up of the learning rate before its cosine, in epochs.
        optimizer: Replaces the default optimiser.
        scheduler: Replaces the default schedule.

    Raises:
        PriorError: If regions are to be found, or backgrounds exchanged, and the backbone hands out no finer map.

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
        found_regions: bool = False,
        finder_lr_factor: float = 10.0,
        exchange_background: bool = False,
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
        self.finder_lr_factor, self.exchange_background = finder_lr_factor, exchange_background
        self.stride = EXCHANGE_STRIDE if exchange_background else FINER_STRIDE
        self.finder: RegionFinder | None = None
        finds = found_regions and (weight != 0 or hard_mask or exchange_background)
        if finds or exchange_background:  # asked now, so that a wrong backbone is said at once
            _, channels = self.classifier.backbone.finer_stage(self.stride)
            self.finder = RegionFinder(channels, num_regions=1) if finds else None

    def parameter_groups(self) -> list[tuple[float, list[nn.Parameter]]]:
        """The finder at `finder_lr_factor` times the learning rate, all else at the full one."""
        if self.finder is None:
            return super().parameter_groups()
        return [(1.0, list(self.classifier.parameters())), (self.finder_lr_factor, list(self.finder.parameters()))]

    def explain(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Classifies images (B, 3, H, W) to logits (B, K) and class activation maps (B, K, h, w)."""
        logits, cam = self.classifier(image)
        return logits, cam

    def explain_maps(self, image: Tensor) -> dict[str, Tensor]:
        """From images (B, 3, H, W) gives the regions (B, i, j) in [0, 1] that are found, where they are, for panels."""
        if self.finder is None:
            return {}
        _, finer = self.classifier.backbone.forward_with_finer(image, self.stride)
        return {"region": self.finder(finer).squeeze(1).sigmoid()}

    def step(self, batch: PriorBatch) -> PriorStep:
        """Cross entropy, of the restricted logits where asked for, plus the weighted guidance loss."""
        label, terms, backbone = batch["label"], {}, self.classifier.backbone
        regions: Regions | None = None
        if self.exchange_background:
            looks = []

            def exchange(finer: Tensor) -> Tensor:
                looks.append(self._regions(batch, finer))
                return exchange_cells(finer, looks[0].cover, shuffle_among(looks[0].known))

            features = backbone.forward_weighted(batch["image"], exchange, self.stride)
            regions = looks[0]
        elif self.finder is not None:
            features, finer = backbone.forward_with_finer(batch["image"], self.stride)
            regions = self._regions(batch, finer)
        else:
            features = backbone(batch["image"])
        logits, cam = self.classifier.head(features)
        prior, valid = self._prior(batch, cam.shape[2:])
        if regions is not None and regions.loss is not None:
            terms["finder"] = regions.loss
            found = F.adaptive_avg_pool2d(regions.cover, cam.shape[2:])
            prior, valid = torch.where(valid[:, None, None], prior, found), regions.known
        if self.hard_mask:
            inside = torch.where(valid[:, None, None], prior, 1.0)
            logits = restricted_logits(cam, self.classifier.head.bias, inside)
        terms["class"] = F.cross_entropy(logits, label)
        weight = self.weight * ramp(self.epochs_done, self.weight_warmup_epochs)
        if weight != 0:
            distance = guidance_loss(self.loss, evidence_map(cam, label), prior)
            terms["restriction"] = weight * masked_mean(distance, valid)
        return PriorStep(torch.stack(list(terms.values())).sum(), logits, terms)

    def _regions(self, batch: PriorBatch, finer: Tensor) -> Regions:
        """The regions on finer features (B, D, i, j): annotated or, where there is a finder, found."""
        target, annotated = self._prior(batch, finer.shape[2:])
        if self.finder is None:
            return Regions(target, annotated, None)
        logits = self.finder(finer.detach()).squeeze(1)
        loss = masked_mean(attention_loss("bce", logits, target), annotated)
        cover = torch.where(annotated[:, None, None], target, logits.detach().sigmoid())
        return Regions(cover, torch.ones_like(annotated), loss)

    def _prior(self, batch: PriorBatch, size: torch.Size) -> tuple[Tensor, Tensor]:
        """The annotation as maps (B, h, w), and which images have one (B,)."""
        return prior_map(batch, size, prefer=self.prior, dilation=self.dilation)
