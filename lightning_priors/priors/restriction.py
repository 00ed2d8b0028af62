"""The class activation map is kept inside the target's region."""

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_priors.batch import PriorBatch
from lightning_priors.functional.backgrounds import exchange_cells, shuffle_among
from lightning_priors.functional.cam import evidence_map
from lightning_priors.functional.guidance import GUIDANCE_LOSSES, MapLoss, attention_bce_loss, masked_mean
from lightning_priors.functional.prior_maps import prior_map
from lightning_priors.nn import Classifier, RegionFinder
from lightning_priors.nn.backbone import FINER_STRIDE
from lightning_priors.priors.prior import Action, Prior, Seen, Terms, loss_function
from lightning_priors.ranges import check_not_negative, check_positive

EXCHANGE_STRIDE = 8
"""Width in pixels that the cells whose backgrounds are exchanged have at least. Cells twice as wide have already seen
much of what surrounds them, and pass it on."""


def ramp(epoch: float, warmup_epochs: float) -> float:
    """Computes the factor on a weight that rises linearly over the first epochs.

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
    """Where the targets of images lie on a map within the network."""

    cover: Tensor
    """(B, i, j) in [0, 1], how much of a cell is target: as annotated, or else as the finder says."""
    known: Tensor
    """(B,) bool, for which images there is a region."""
    loss: Tensor | None
    """() of the finder; None where there is none."""


class Restriction(Prior):
    """Keeps the evidence for the label on the target.

    It adds `weight` times a guidance loss between the evidence map of the labelled class and the prior map (Rao et al.
    2023, "Studying How to Efficiently and Effectively Guide Models with Explanations", equations 2 to 6). With two
    classes the evidence map is the signed class activation map. Images without an annotation have no such term.

    With `found_regions` they have one all the same: a small head learns from the annotated images which cells of an
    intermediate map are target, and its answer is the prior of the others. It sees detached features, so the rest of
    the network learns nothing from it.

    With `exchange_background` the network sees, in training, the target's cells of an early map among the background
    cells of another image (Xiao et al. 2021, MIXED-RAND), in all images whose region is known or found. Then the
    background tells nothing about the class, also through cells on the target that have seen what surrounds it.

    Args:
        loss: ``energy`` (the share of positive evidence outside the prior), ``energy_both_signs`` (evidence for and
            evidence against), ``l1``, ``ppce`` or ``rrr``; or a function of the evidence (B, h, w) and the prior
            (B, h, w) that gives (B,), or its dotted name.
        weight: Weight of the guidance loss.
        weight_warmup_epochs: Epochs over which the weight rises from 0.
        prior: What the prior map is made of: ``mask`` or ``part_boxes``.
        dilation: Enlargement of the prior map, as a fraction of the target's sides.
        hard_mask: Whether the training logits are the mean over the cells inside the prior, where there is one.
        found_regions: Whether images without an annotation are restricted to the region that is found in them.
        finder_lr_factor: Factor on the learning rate of the finder of regions. It starts from nothing and is needed
            from the first epoch, while a rate that suits pretrained weights is a low one.
        exchange_background: Whether in training the backgrounds of the images whose region is known are exchanged.

    Raises:
        PriorError: If a number is out of its range, or there is no such loss; in `attach`, if regions
            are to be found, or backgrounds exchanged, and the backbone hands out no intermediate map.

    >>> Restriction(loss="l1", weight=0.5).options()["weight"]
    0.5
    """

    requires: ClassVar = [("mask", "part_boxes")]

    def __init__(
        self,
        loss: MapLoss = "energy",
        weight: float = 1.0,
        weight_warmup_epochs: float = 0.0,
        prior: Literal["mask", "part_boxes"] = "mask",
        dilation: float = 0.0,
        hard_mask: bool = False,
        found_regions: bool = False,
        finder_lr_factor: float = 10.0,
        exchange_background: bool = False,
    ) -> None:
        super().__init__()
        check_not_negative({"weight": weight, "weight_warmup_epochs": weight_warmup_epochs, "dilation": dilation})
        check_positive({"finder_lr_factor": finder_lr_factor})
        self.loss, self.weight, self.weight_warmup_epochs = loss, weight, weight_warmup_epochs
        self.prior, self.dilation, self.hard_mask = prior, dilation, hard_mask
        self.found_regions, self.finder_lr_factor = found_regions, finder_lr_factor
        self.exchange_background = exchange_background
        self.guidance = loss_function(loss, GUIDANCE_LOSSES, "guidance loss")
        self.replaces = exchange_background
        self.finder: RegionFinder | None = None
        if self.active and (found_regions or exchange_background):
            self.acts_at = EXCHANGE_STRIDE if exchange_background else FINER_STRIDE

    @property
    def active(self) -> bool:
        """Whether anything is asked for."""
        return self.weight != 0 or self.hard_mask or self.exchange_background

    def attach(self, classifier: Classifier, aux_num_classes: Sequence[int]) -> None:
        """Builds the finder of regions, and asks for the map that it looks at, so that a wrong backbone shows."""
        if isinstance(self.acts_at, int):
            _, channels = classifier.backbone.finer_stage(self.acts_at)
            self.finder = RegionFinder(channels, num_regions=1) if self.found_regions else None

    def learning_rate_factors(self) -> list[tuple[float, list[nn.Parameter]]]:
        """The finder learns at `finder_lr_factor` times the learning rate."""
        return [] if self.finder is None else [(self.finder_lr_factor, list(self.finder.parameters()))]

    def act(self, features: Tensor, batch: PriorBatch | None, log_attention: Tensor | None) -> Action:
        """Finds the regions, and in training exchanges what lies around them."""
        if batch is None:
            if self.finder is None:
                return Action()
            found = self.finder(features).squeeze(1).sigmoid()
            return Action(memory=Regions(found, torch.ones(len(found), dtype=torch.bool, device=found.device), None))
        regions = self._regions(batch, features)
        if not self.exchange_background:
            return Action(memory=regions)
        return Action(exchange_cells(features, regions.cover, shuffle_among(regions.known)), memory=regions)

    def cell_weights(self, batch: PriorBatch, size: Sequence[int], memory: Regions | None) -> Tensor | None:
        """With `hard_mask` the prior map (B, h, w), and 1 in images without one."""
        if not self.hard_mask:
            return None
        prior, valid = self._allowed(batch, size, memory)
        return torch.where(valid[:, None, None], prior, 1.0)

    def terms(self, batch: PriorBatch, seen: Seen, memory: Regions | None) -> Terms:
        """The weighted guidance loss, and that of the finder."""
        losses = {}
        if memory is not None and memory.loss is not None:
            losses["finder"] = memory.loss
        weight = self.weight * ramp(seen.epoch, self.weight_warmup_epochs)
        if weight != 0:
            prior, valid = self._allowed(batch, seen.cam.shape[2:], memory)
            distance = self.guidance(evidence_map(seen.cam, batch["label"]), prior)
            losses["restriction"] = weight * masked_mean(distance, valid)
        return Terms(losses)

    def maps(self, memory: Regions | None) -> dict[str, Tensor]:
        """The regions (B, i, j) that are found."""
        return {} if memory is None else {"region": memory.cover}

    def _regions(self, batch: PriorBatch, features: Tensor) -> Regions:
        """The regions on a map (B, C, i, j): annotated or, where there is a finder, found."""
        target, annotated = self._map(batch, features.shape[2:])
        if self.finder is None:
            return Regions(target, annotated, None)
        logits = self.finder(features.detach()).squeeze(1)
        loss = masked_mean(attention_bce_loss(logits, target), annotated)
        cover = torch.where(annotated[:, None, None], target, logits.detach().sigmoid())
        return Regions(cover, torch.ones_like(annotated), loss)

    def _allowed(self, batch: PriorBatch, size: Sequence[int], memory: Regions | None) -> tuple[Tensor, Tensor]:
        """Where evidence may lie (B, h, w), and for which images that is known (B,): annotated or found."""
        prior, valid = self._map(batch, size)
        if memory is None or memory.loss is None:
            return prior, valid
        found = F.adaptive_avg_pool2d(memory.cover, (size[0], size[1]))
        return torch.where(valid[:, None, None], prior, found), memory.known

    def _map(self, batch: PriorBatch, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The annotation as maps (B, h, w), and which images have one (B,)."""
        return prior_map(batch, size, prefer=self.prior, dilation=self.dilation)
