"""Technique 3: attention that is told where to look."""

from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lightning_priors.batch import PriorBatch
from lightning_priors.functional.guidance import AttentionLoss, attention_loss, masked_mean
from lightning_priors.functional.prior_maps import PriorKind, prior_map
from lightning_priors.nn import AttentionBranch, Classifier
from lightning_priors.nn.attention import attend, logits_against_uniform
from lightning_priors.techniques.base import PriorModule, PriorStep


class Look(NamedTuple):
    """What the network sees in images, and where it looks."""

    logits: Tensor
    """(B, K)."""
    cam: Tensor
    """(B, K, h, w) of the features after attention."""
    attention_logits: Tensor
    """(B, i, j), whose sigmoid is the attention M."""
    branch_logits: Tensor | None
    """(B, K) of the attention branch; None where the attention is that of tokens."""


class PriorAttention(PriorModule):
    """Classification from features that are weighted by attention, and attention that is taught by a prior map.

    An attention branch (Fukui et al. 2019, "Attention Branch Network") computes a map M from a feature map g within the
    backbone, and the later stages see ``(1 + M) * g``. The loss is the cross entropy of the head, plus that of the
    branch, plus `weight` times the distance of M to the prior map (the idea of Mitsuhara et al. 2021, "Embedding Human
    Knowledge into Deep Neural Network via Attention Map"). Images without an annotation take part in the cross
    entropies alone. As in the paper g comes before the last stages, from cells of 16 pixels in most networks (see
    `Backbone.forward_with_finer`): the cells of the last map have seen nearly the whole image, so that weighting
    them no longer takes the background out.

    With ``attention: tokens`` M is the attention of a transformer's last block, that which its class token pays to the
    patches, or where it has none that which each patch receives on average. That is a distribution A over n cells; M
    is nA / (1 + nA), see `lightning_priors.nn.attention.logits_against_uniform`. It needs no branch and no second
    cross entropy.

    Args:
        num_classes: Number of classes K of the primary task.
        backbone: A timm model name, or ``tiny``.
        weights: ``none``, ``imagenet``, or the path of a checkpoint.
        attention: ``branch``, for every backbone, or ``tokens``, for vision transformers.
        residual: Whether the network goes on with ``(1 + M) * g``; otherwise ``M / mean(M) * g``, which can shut the
            background out. See `lightning_priors.nn.attention.attend`.
        loss: Between M and the prior, cell by cell ``bce`` or ``l1``; ``energy``, the share of M outside the prior;
            ``ppce``, cross entropy inside it alone, so that M may be high outside too; or ``kl``, between the two as
            distributions, which says where M is higher but not how high.
        weight: Weight of that loss; 0 leaves the attention to itself.
        prior: What the prior map is made of: ``mask``, ``part_boxes`` or ``keypoints``.
        dilation: Enlargement of masks and boxes, as a fraction of the target's sides.
        sigma: Standard deviation about a keypoint, as a fraction of the picture's shorter side.
        hard: Whether the prior map is made of zeros and ones.
        lr: Learning rate of the default optimiser, AdamW.
        weight_decay: Weight decay of the default optimiser.
        warmup_epochs: Linear warm-up of the learning rate before its cosine, in epochs.
        optimizer: Replaces the default optimiser.
        scheduler: Replaces the default schedule.

    Raises:
        PriorError: If the backbone has no tokens whose attention can be told, or hands out no map on the way.

    >>> model = PriorAttention(num_classes=2, backbone="tiny", loss="bce", prior="part_boxes")
    >>> model.explain_maps(torch.zeros(1, 3, 64, 64))["attention"].shape
    torch.Size([1, 8, 8])
    """

    requires: ClassVar = [("mask", "part_boxes", "keypoints")]

    def __init__(
        self,
        num_classes: int = 2,
        backbone: str = "tiny",
        weights: str = "none",
        attention: Literal["branch", "tokens"] = "branch",
        residual: bool = True,
        loss: AttentionLoss = "bce",
        weight: float = 1.0,
        prior: PriorKind = "mask",
        dilation: float = 0.0,
        sigma: float = 0.1,
        hard: bool = False,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup_epochs: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(num_classes, weights, lr, weight_decay, warmup_epochs, optimizer, scheduler)
        self.save_hyperparameters(ignore=["optimizer", "scheduler"])
        self.classifier = Classifier(num_classes, backbone)
        self.branch: AttentionBranch | None = None
        if attention == "branch":
            self.branch = AttentionBranch(self.classifier.backbone.finer_stage()[1], num_classes)
        else:
            self.classifier.backbone.token_attention()  # asked now, so that a wrong backbone is said at once
        self.residual, self.loss, self.weight = residual, loss, weight
        self.prior, self.dilation, self.sigma, self.hard = prior, dilation, sigma, hard

    def look(self, image: Tensor) -> Look:
        """Classifies images (B, 3, H, W) from the features after attention."""
        backbone = self.classifier.backbone
        if self.branch is None:
            features, log_attention = backbone.features_and_log_attention(image)
            attention_logits = logits_against_uniform(log_attention)
            logits, cam = self.classifier.head(attend(features, attention_logits, self.residual))
            return Look(logits, cam, attention_logits, None)
        answers = []

        def weigh(finer: Tensor) -> Tensor:
            answers.append(branch(finer))
            return attend(finer, answers[0][1], self.residual)

        branch = self.branch
        logits, cam = self.classifier.head(backbone.forward_weighted(image, weigh))
        branch_logits, attention_logits = answers[0]
        return Look(logits, cam, attention_logits, branch_logits)

    def explain(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Classifies images (B, 3, H, W) to logits (B, K) and class activation maps (B, K, h, w)."""
        seen = self.look(image)
        return seen.logits, seen.cam

    def explain_maps(self, image: Tensor) -> dict[str, Tensor]:
        """From images (B, 3, H, W) gives the attention M (B, i, j) in [0, 1]; panels show it beside the evidence."""
        return {"attention": self.look(image).attention_logits.sigmoid()}

    def step(self, batch: PriorBatch) -> PriorStep:
        """The cross entropies of head and branch, plus the weighted distance of the attention to the prior."""
        label, seen = batch["label"], self.look(batch["image"])
        terms = {"class": F.cross_entropy(seen.logits, label)}
        if seen.branch_logits is not None:
            terms["branch"] = F.cross_entropy(seen.branch_logits, label)
        if self.weight != 0:
            size = seen.attention_logits.shape[1:]
            prior, valid = prior_map(batch, size, self.prior, self.dilation, self.sigma, self.hard)
            distance = attention_loss(self.loss, seen.attention_logits, prior)
            terms["attention"] = self.weight * masked_mean(distance, valid)
        return PriorStep(torch.stack(list(terms.values())).sum(), seen.logits, terms)
