"""Finding parts, and the targets that they belong to, on the way through the global branch."""

from typing import NamedTuple

from torch import Tensor

from lightning_priors.batch import PriorBatch
from lightning_priors.errors import PriorError
from lightning_priors.functional.guidance import attention_bce_loss, masked_mean
from lightning_priors.functional.prior_maps import prior_map
from lightning_priors.nn import Classifier, RegionFinder
from lightning_priors.nn.backbone import FINER_STRIDE
from lightning_priors.priors import Action, Prior, Seen, Terms
from lightning_priors.techniques.global_local.parts import coverage_loss


class Parts(NamedTuple):
    """What was found in B images."""

    covered: Tensor | None = None
    """(B, K, i, j) logits of how much of each cell a part covers; None where parts are not learned."""
    target: Tensor | None = None
    """(B, i, j) logits of how much of each cell is target; None where targets are not."""


class PartFinder(Prior):
    """Learns from annotated images where parts and targets are; it changes nothing in the network's pass.

    Two small heads (see `lightning_priors.nn.RegionFinder`) look at detached features of an earlier stage, whose cells
    are finer than a part.

    Args:
        num_parts: Parts K in an image; 0 learns none.
        finds_targets: Whether the targets that the masks show are learned too.

    >>> PartFinder(num_parts=1, finds_targets=False).active
    True
    """

    acts_at = FINER_STRIDE
    acts_in_evaluation = True

    def __init__(self, num_parts: int, finds_targets: bool) -> None:
        super().__init__()
        self.num_parts, self.finds_targets = num_parts, finds_targets
        self.locator: RegionFinder | None = None
        self.finder: RegionFinder | None = None

    @property
    def active(self) -> bool:
        """Whether there is anything to find."""
        return self.num_parts > 0 or self.finds_targets

    def attach(self, classifier: Classifier, aux_num_classes: object) -> None:
        """Builds the heads."""
        if not self.active:
            return
        _, channels = classifier.backbone.finer_stage(FINER_STRIDE)
        if self.num_parts:
            self.locator = RegionFinder(channels, self.num_parts)
        if self.finds_targets:
            self.finder = RegionFinder(channels, 1)

    def act(self, features: Tensor, batch: PriorBatch | None, log_attention: Tensor | None) -> Action:
        """Looks at the features."""
        features = features.detach()
        covered = None if self.locator is None else self.locator(features)
        return Action(memory=Parts(covered, None if self.finder is None else self.finder(features)[:, 0]))

    def terms(self, batch: PriorBatch, seen: Seen, memory: Parts) -> Terms:
        """The losses of the heads."""
        losses = {}
        if memory.target is not None:
            known, valid = prior_map(batch, memory.target.shape[1:], prefer="mask")
            losses["finder"] = masked_mean(attention_bce_loss(memory.target, known), valid)
        if memory.covered is not None:
            size, known_parts = batch["image"].shape[2:], batch["part_boxes"].shape[1]
            if known_parts != self.num_parts:
                raise PriorError(f"num_parts is {self.num_parts}, but the data has boxes of {known_parts} parts")
            losses["locator"] = coverage_loss(memory.covered, batch["part_boxes"], batch["part_valid"], size)
        return Terms(losses)
