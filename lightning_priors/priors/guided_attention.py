"""Attention that is told where to look."""

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from lightning_priors.batch import PriorBatch
from lightning_priors.functional.guidance import ATTENTION_LOSSES, MapLoss, masked_mean
from lightning_priors.functional.prior_maps import PriorKind, prior_map
from lightning_priors.nn import AttentionBranch, Classifier
from lightning_priors.nn.attention import attention_factor, logits_against_uniform
from lightning_priors.nn.backbone import FINER_STRIDE
from lightning_priors.priors.prior import Action, Prior, Seen, Terms, loss_function
from lightning_priors.ranges import check_not_negative, check_positive


class Look(NamedTuple):
    """Where the network looks in B images."""

    logits: Tensor
    """(B, i, j), whose sigmoid is the attention M."""
    branch_logits: Tensor | None
    """(B, K) of the attention branch; None where the attention is that of tokens."""


class GuidedAttention(Prior):
    """Weighs features by attention, and teaches the attention a prior map.

    An attention branch (Fukui et al. 2019, "Attention Branch Network") computes a map M from a feature map g within the
    backbone, and the later stages see ``(1 + M) * g``. It adds the cross entropy of the branch, plus `weight` times the
    distance of M to the prior map (the idea of Mitsuhara et al. 2021, "Embedding Human Knowledge into Deep Neural
    Network via Attention Map"). Images without an annotation take part in the cross entropies alone. As in the paper g
    comes before the last stages, from cells of 16 pixels in most networks: the cells of the last map have seen nearly
    the whole image, so that weighing them no longer takes the background out.

    With ``attention: tokens`` M is the attention of a transformer's last block, that which its class token pays to the
    patches, or where it has none that which each patch receives on average. That is a distribution A over n cells; M
    is nA / (1 + nA), see `lightning_priors.nn.attention.logits_against_uniform`. It needs no branch and no second
    cross entropy.

    Args:
        attention: ``branch``, for every backbone, or ``tokens``, for vision transformers.
        residual: Whether the network goes on with ``(1 + M) * g``; otherwise ``M / mean(M) * g``, which can shut the
            background out. See `lightning_priors.nn.attention.attention_factor`.
        loss: Between M and the prior: ``bce`` or ``l1``, cell by cell; ``energy``, the share of M outside the prior;
            ``ppce``, cross entropy inside it alone, so that M may be high outside too; ``kl``, between the two as
            distributions, which says where M is higher but not how high; or a function of the logits of M (B, i, j)
            and the prior (B, i, j) that gives (B,), or its dotted name.
        weight: Weight of that loss. 0 leaves the network without attention; attention that nobody guides is what
            training without annotation gives.
        prior: What the prior map is made of: ``mask``, ``part_boxes`` or ``keypoints``.
        dilation: Enlargement of masks and boxes, as a fraction of the target's sides.
        sigma: Standard deviation about a keypoint, as a fraction of the picture's shorter side.
        hard: Whether the prior map is made of zeros and ones.

    Raises:
        PriorError: If a number is out of its range, or there is no such loss; in `attach`, if the
            backbone has no tokens whose attention can be told, or hands out no map on the way.

    >>> GuidedAttention(prior="part_boxes").acts_in_evaluation
    True
    """

    requires: ClassVar = [("mask", "part_boxes", "keypoints")]
    acts_in_evaluation = True

    def __init__(
        self,
        attention: Literal["branch", "tokens"] = "branch",
        residual: bool = True,
        loss: MapLoss = "bce",
        weight: float = 1.0,
        prior: PriorKind = "mask",
        dilation: float = 0.0,
        sigma: float = 0.1,
        hard: bool = False,
    ) -> None:
        super().__init__()
        check_not_negative({"weight": weight, "dilation": dilation})
        check_positive({"sigma": sigma})
        self.attention, self.residual, self.loss, self.weight = attention, residual, loss, weight
        self.prior, self.dilation, self.sigma, self.hard = prior, dilation, sigma, hard
        self.distance = loss_function(loss, ATTENTION_LOSSES, "attention loss")
        self.reads_token_attention = attention == "tokens"
        self.acts_at = "last" if self.reads_token_attention else FINER_STRIDE
        self.branch: AttentionBranch | None = None

    @property
    def active(self) -> bool:
        """Whether the attention has a weight."""
        return self.weight != 0

    def attach(self, classifier: Classifier, aux_num_classes: Sequence[int]) -> None:
        """Builds the branch, or asks for the attention of tokens, so that a wrong backbone shows at once."""
        if self.reads_token_attention:
            classifier.backbone.last_attention()
        elif self.active:
            _, channels = classifier.backbone.finer_stage(FINER_STRIDE)
            self.branch = AttentionBranch(channels, len(classifier.head.bias))

    def act(self, features: Tensor, batch: PriorBatch | None, log_attention: Tensor | None) -> Action:
        """Weighs the cells by the attention."""
        if log_attention is not None:
            look = Look(logits_against_uniform(log_attention), None)
        else:
            assert self.branch is not None
            branch_logits, logits = self.branch(features)
            look = Look(logits, branch_logits)
        return Action(factor=attention_factor(look.logits, self.residual), memory=look)

    def terms(self, batch: PriorBatch, seen: Seen, memory: Look) -> Terms:
        """The cross entropy of the branch, and the weighted distance of the attention to the prior."""
        losses = {}
        if memory.branch_logits is not None:
            losses["branch"] = F.cross_entropy(memory.branch_logits, batch["label"])
        size = memory.logits.shape[1:]
        prior, valid = prior_map(batch, size, self.prior, self.dilation, self.sigma, self.hard)
        losses["attention"] = self.weight * masked_mean(self.distance(memory.logits, prior), valid)
        return Terms(losses)

    def maps(self, memory: Look) -> dict[str, Tensor]:
        """The attention M (B, i, j)."""
        return {"attention": memory.logits.sigmoid()}
