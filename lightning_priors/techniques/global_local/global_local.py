"""Technique 2: one network sees the image, one sees the part; trained separately, then fused."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_priors.batch import PriorBatch
from lightning_priors.errors import PriorError
from lightning_priors.functional.cam import evidence_map
from lightning_priors.functional.distributed import share_of_count
from lightning_priors.functional.prior_maps import boxes_to_grid
from lightning_priors.nn import Classifier
from lightning_priors.priors import Prior, PriorStep, Seen, attach_priors, needed_in_evaluation, restore, see, step_from
from lightning_priors.ranges import check_counts, check_not_negative, check_positive, check_shares
from lightning_priors.techniques.base import PriorModule
from lightning_priors.techniques.global_local.crops import Crops, count_by_owner, mean_by_owner
from lightning_priors.techniques.global_local.cutting import cut_out, exchange_backgrounds
from lightning_priors.techniques.global_local.fusion import Fusion, FusionKind
from lightning_priors.techniques.global_local.part_finder import PartFinder, Parts
from lightning_priors.techniques.global_local.parts import (
    covered_boxes,
    ellipse_windows,
    jitter_boxes,
    paste_maps,
    peak_boxes,
    square_boxes,
)
from lightning_priors.techniques.optimisation import PLAIN, Tuning


class Branch(NamedTuple):
    """What a branch says of N pictures or crops."""

    features: Tensor
    """(N, C, h, w)."""
    logits: Tensor
    """(N, K)."""
    cam: Tensor
    """(N, K, h, w)."""
    parts: Parts = Parts()
    """What was found on the way."""


class GlobalLocal(PriorModule):
    """Trains a network for the whole image and one for its parts, such as a bird and its head, and fuses them.

    The branches are trained side by side but separately: the fusion sees detached features, so each branch is exactly
    what a run of its own would give. In training and for ``acc_oracle`` the parts are those of the annotation;
    otherwise they are found on the way through the global branch, so that evaluation sees the image alone. Several
    parts share the local network and are averaged. An image without a part is left to the global branch. It logs,
    beside the usual metrics, ``acc_global``, ``acc_local`` (of the parts that were found), and ``acc_oracle`` (fused,
    with the annotated parts).

    The ``cam`` locator takes the box around the peak of the evidence (see `peak_boxes`). A network that is fooled by
    the background has its peak there, and then the local branch sees background too. So the default is to learn from
    the annotated boxes where the part is (see `PartFinder`).

    Priors that are given act on the global branch. The Trainer's ``gradient_clip_val`` clips both branches by one norm
    and so couples them.

    Args:
        num_classes: Number of classes K of the primary task.
        backbone: A timm model name, or ``tiny``, of both branches.
        weights: ``none``, ``imagenet``, or the path of a checkpoint.
        priors: Of the global branch, as in `Combined`.
        aux_num_classes: Number of classes of each auxiliary task of the data, for priors that need them.
        fusion: ``mean``, ``weights``, ``concatenation`` or ``gate``; see `Fusion`.
        local_share: Weight of the local branch in ``mean``, and at the beginning in ``weights`` and ``gate``. Biased
            images cannot teach that the part decides and not what is around it: both branches are right on nearly all
            of them, so that learned weights stay where they begin.
        crop_size: Side in pixels of what the local network sees.
        crop_scale: Side of the square crop relative to the longer side of the annotated box.
        window: What the local network sees of a crop: the whole ``square``, or the ``ellipse`` in it that has the
            proportions of the part's box, the rest in the mean colour.
        exchange_background: Whether in training the crops show their targets before the backgrounds of other images of
            the batch. Then the local network cannot learn from the background, and keeps to the target where it sees
            both. The targets are the masks; in images without one they are found, as the masks of others teach it
            (see `PartFinder`).
        jitter: Random shift and resizing of the crops in training, as a fraction of their sides.
        locator: How parts are found: ``learned`` or ``cam``.
        local_lr_factor: Factor on the learning rate of the local backbone. The targets themselves are often few, and at
            a high rate it learns them by heart and unlearns what its weights knew of others.
        num_parts: Parts K in an image, as many as the data annotates; ``cam`` always finds one.
        peak_threshold: Share of the peak's evidence down to which the part of ``cam`` reaches.
        found_parts: Whether the local branch also trains on the parts that are found in images without an annotation.
        joint: Whether the loss of the fused logits trains the branches too.
        global_checkpoint: A run of this library to take the global branch from, with its head.
        local_checkpoint: Likewise for the local branch.
        freeze_branches: Whether only the fusion is trained.
        tuning: How pretrained weights are tuned.
        lr: Learning rate of the default optimiser, AdamW.
        weight_decay: Weight decay of the default optimiser.
        warmup_epochs: Linear warm-up of the learning rate before its cosine, in epochs.
        optimizer: Replaces the default optimiser.
        scheduler: Replaces the default schedule.
        extra_metrics: Further metrics by name.

    Raises:
        PriorError: If a number is out of its range, `freeze_branches` leaves nothing to train, the
            fusion cannot have that `local_share`, or a backbone does not suit the priors.

    >>> model = GlobalLocal(num_classes=2, backbone="tiny", fusion="gate", crop_size=32)
    >>> logits, cam = model.explain(torch.zeros(1, 3, 64, 64))
    >>> cam.shape
    torch.Size([1, 2, 8, 8])
    """

    requires: Sequence[Sequence[str]] = (("part_boxes",),)

    def __init__(
        self,
        *,
        num_classes: int = 2,
        backbone: str = "tiny",
        weights: str = "none",
        priors: Sequence[Prior] = (),
        aux_num_classes: Sequence[int] = (),
        fusion: FusionKind = "weights",
        local_share: float = 0.5,
        crop_size: int = 64,
        crop_scale: float = 1.5,
        window: Literal["square", "ellipse"] = "square",
        exchange_background: bool = False,
        jitter: float = 0.2,
        locator: Literal["learned", "cam"] = "learned",
        local_lr_factor: float = 1.0,
        num_parts: int = 1,
        peak_threshold: float = 0.5,
        found_parts: bool = False,
        joint: bool = False,
        global_checkpoint: str | None = None,
        local_checkpoint: str | None = None,
        freeze_branches: bool = False,
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
        check_counts({"crop_size": crop_size}, most=4096)
        check_counts({"num_parts": num_parts}, most=1000)
        check_positive({"crop_scale": crop_scale, "local_lr_factor": local_lr_factor})
        check_not_negative({"jitter": jitter})
        check_shares({"peak_threshold": peak_threshold, "local_share": local_share})
        if freeze_branches and (fusion == "mean" or priors):
            reason = "fusion mean leaves nothing to train" if fusion == "mean" else "priors have nothing to act on"
            raise PriorError(f"freeze_branches: with {reason}")
        self.global_branch = Classifier(num_classes, backbone, prefer="global_branch")
        self.local_branch = Classifier(num_classes, backbone, prefer="local_branch")
        for branch, checkpoint in ((self.global_branch, global_checkpoint), (self.local_branch, local_checkpoint)):
            branch.backbone.start_from(weights)
            branch.start_from(checkpoint or "none")
            branch.requires_grad_(not freeze_branches)
        channels = self.global_branch.backbone.num_features
        try:
            self.fusion = Fusion(fusion, (channels, channels), num_classes, local_share)
        except ValueError as error:
            raise PriorError(str(error)) from error
        self.crop_size, self.crop_scale, self.window, self.jitter = crop_size, crop_scale, window, jitter
        self.local_lr_factor, self.peak_threshold = local_lr_factor, peak_threshold
        self.found_parts, self.joint, self.freeze_branches = found_parts, joint, freeze_branches
        if exchange_background:
            self.requires = (*self.requires, ("mask",))
        self.part_finder = PartFinder(num_parts if locator == "learned" else 0, finds_targets=exchange_background)
        self.priors = nn.ModuleList(restore(prior) for prior in priors)
        attach_priors(self.priors_in_use(), self.global_branch, aux_num_classes)

    def priors_in_use(self) -> list[Prior]:
        """Lists the priors of the global branch, and what finds the parts last."""
        return [*self.priors, self.part_finder]

    def learning_rate_factors(self) -> list[tuple[float, list[nn.Parameter]]]:
        """The local backbone learns at `local_lr_factor` times the learning rate."""
        return [(self.local_lr_factor, list(self.local_branch.backbone.parameters()))]

    def on_train_start(self) -> None:
        """Freezes the statistics of frozen branches too."""
        super().on_train_start()
        for branch in (self.global_branch, self.local_branch):
            branch.backbone.freeze_statistics |= self.freeze_branches

    def drop_training_parts(self) -> None:
        """Drops the priors that do nothing without a batch, and what finds targets, besides what the base drops."""
        super().drop_training_parts()
        self.priors = nn.ModuleList(needed_in_evaluation(self.priors))  # type: ignore[arg-type]  # they are priors
        self.part_finder.finds_targets, self.part_finder.finder = False, None

    def step(self, batch: PriorBatch) -> PriorStep:
        """Adds up the cross entropies of the global, the local and the fused logits, and the terms of the priors."""
        image, label, priors = batch["image"], batch["label"], self.priors_in_use()
        seen = see(self.global_branch, priors, image, batch)
        whole, crops = _branch(seen), self.annotated_crops(batch)
        if self.found_parts:
            crops = crops.and_also(self.found_crops(image, whole, ~batch["part_valid"].any(1)))
        crops = crops._replace(boxes=jitter_boxes(crops.boxes, self.jitter))
        target = None if whole.parts.target is None else self._targets(batch, whole.parts.target.detach(), crops)
        parts = self.look_at_crops(image, crops, target)
        fused, _ = self.fuse(whole, parts, crops.owner)
        step = step_from(seen, priors, batch, self.epochs_done)
        terms = dict(step.terms)
        primary = terms.pop("primary", step.loss)
        if not self.freeze_branches:
            terms |= {"global": primary, "local": _mean_loss(parts, label[crops.owner], self.local_branch)}
        if self.fusion.kind != "mean" or self.joint:
            terms["fused"] = F.cross_entropy(fused, label)
        return PriorStep(torch.stack(list(terms.values())).sum(), fused, terms, step.logged)

    def explain(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Classifies images (B, 3, H, W) to logits (B, K) and class activation maps (B, K, h, w) of both branches.

        The local branch's evidence stands where the part was cut out.
        """
        whole = self.look_at_whole(image)
        return self.explain_with(image, whole, self.found_crops(image, whole))

    def explain_maps(self, image: Tensor) -> dict[str, Tensor]:
        """From images (B, 3, H, W) gives the crops that were found, as cover (B, H, W) in [0, 1], for panels."""
        crops, size = self.found_crops(image, self.look_at_whole(image)), image.shape[2:]
        boxes = crops.boxes.view(len(image), -1, 4)  # as many in every image
        return {"part": boxes_to_grid(boxes, torch.ones_like(boxes[..., 0], dtype=torch.bool), size, size)}

    def explain_with(self, image: Tensor, whole: Branch, crops: Crops) -> tuple[Tensor, Tensor]:
        """Computes logits (B, K) and maps (B, K, h, w) from the global branch and given parts."""
        parts = self.look_at_crops(image, crops)
        logits, weights = self.fuse(whole, parts, crops.owner)
        count = count_by_owner(crops.owner, image.shape[0]).clamp(min=1)
        global_cam = self.fusion.branch_cam(0, whole.features, whole.cam, weights)
        local_cam = self.fusion.branch_cam(1, parts.features, parts.cam, weights[crops.owner])
        local_cam = local_cam / count[crops.owner, None, None, None]
        size = whole.cam.shape[2:]
        return logits, global_cam + paste_maps(
            local_cam, crops.boxes, crops.owner, image.shape[0], image.shape[2:], size
        )

    def evaluate(self, batch: PriorBatch, stage: str) -> Tensor:
        """Runs the shared evaluation with the parts that are found, and logs the accuracies of branches and oracle."""
        image, label, priors = batch["image"], batch["label"], self.priors_in_use()
        seen = see(self.global_branch, priors, image)
        for prior in (prior for prior in priors if prior.active):
            prior.judge(batch, seen, stage)
        whole = _branch(seen)
        crops = self.found_crops(image, whole)
        logits = self.log_evaluation(batch, stage, *self.explain_with(image, whole, crops))
        local_logits = mean_by_owner(self.look_at_crops(image, crops).logits, crops.owner, len(image))
        answers = {"acc_global": whole.logits, "acc_local": local_logits}
        if "part_boxes" in batch:
            annotated = self.annotated_crops(batch)
            answers["acc_oracle"], _ = self.fuse(whole, self.look_at_crops(image, annotated), annotated.owner)
        for name, answer in answers.items():
            self.log_mean(f"{stage}/{name}", (answer.argmax(1) == label).float().mean(), len(label))
        return logits

    def look_at_whole(self, image: Tensor) -> Branch:
        """Has the global branch look at images (B, 3, H, W)."""
        return _branch(see(self.global_branch, self.priors_in_use(), image))

    def look_at_crops(self, image: Tensor, crops: Crops, target: Tensor | None = None) -> Branch:
        """Has the local branch look at parts, cut out at its own resolution.

        Where it is said how much of their pixels is target (N, crop_size, crop_size), before other backgrounds.
        """
        if crops.owner.shape[0] == 0:
            channels, classes = self.local_branch.head.weight.shape[1], len(self.local_branch.head.bias)
            features, logits = image.new_zeros(0, channels, 1, 1), image.new_zeros(0, classes)
            return Branch(features, logits, image.new_zeros(0, classes, 1, 1))
        self.local_branch.read_initial_weights()
        seen = cut_out(image, crops, self.crop_size)
        if target is not None:
            seen = exchange_backgrounds(seen, target, image, crops)
        if self.window == "ellipse":
            seen = seen * ellipse_windows(crops.parts, self.crop_size).to(seen).unsqueeze(1)
        features = self.local_branch.backbone(seen)
        return Branch(features, *self.local_branch.head(features))

    def fuse(self, whole: Branch, parts: Branch, owner: Tensor) -> tuple[Tensor, Tensor]:
        """Computes fused logits (B, K) and weights of the branches (B, 2); gradients pass on only if joint."""
        count = whole.logits.shape[0]
        local_features = mean_by_owner(parts.features.mean((2, 3)), owner, count)
        answers = [whole.features.mean((2, 3)), whole.logits, local_features, mean_by_owner(parts.logits, owner, count)]
        if not self.joint:
            answers = [answer.detach() for answer in answers]
        logits, weights = self.fusion(*answers, count_by_owner(owner, count) > 0)
        return logits, weights

    def _targets(self, batch: PriorBatch, found: Tensor, crops: Crops) -> Tensor:
        """How much of each pixel of crops (N, crop_size, crop_size) is target, by the masks or logits (B, i, j)."""
        mask = batch["mask"]
        covered = F.interpolate(found.unsqueeze(1), mask.shape[1:], mode="bilinear").squeeze(1).sigmoid()
        regions = (covered > covered.amax((1, 2), keepdim=True) / 2).to(mask)  # never empty
        target = torch.where(batch["mask_valid"][:, None, None], mask, regions)
        return cut_out(target.to(batch["image"]).unsqueeze(1), crops, self.crop_size).squeeze(1)

    def annotated_crops(self, batch: PriorBatch) -> Crops:
        """Draws squares about the annotated parts of a batch; images without one have no crop."""
        owner, parts = batch["part_valid"].nonzero()[:, 0], batch["part_boxes"][batch["part_valid"]]
        return Crops(square_boxes(parts, self.crop_scale), owner, parts)

    def found_crops(self, image: Tensor, whole: Branch, wanted: Tensor | None = None) -> Crops:
        """Draws squares about the parts that are found, in all images or only those that are wanted (B,)."""
        size, scale = (image.shape[2], image.shape[3]), self.crop_scale
        if whole.parts.covered is None:
            evidence, scale = evidence_map(whole.cam.detach(), whole.logits.argmax(1)), 1.0
            found = peak_boxes(evidence, size, self.peak_threshold)[:, None]
        else:
            found = covered_boxes(whole.parts.covered.detach(), size)
        owner = torch.arange(image.shape[0], device=image.device)
        owner = owner if wanted is None else owner[wanted]
        parts = found[owner].flatten(0, 1)
        return Crops(square_boxes(parts, scale), owner.repeat_interleave(found.shape[1]), parts)


def _branch(seen: Seen) -> Branch:
    """What the global branch says; what finds the parts is the last of its priors."""
    return Branch(seen.features, seen.logits, seen.cam, seen.memories[-1] or Parts())


def _mean_loss(parts: Branch, label: Tensor, branch: nn.Module) -> Tensor:
    """The mean cross entropy of the crops; without a crop zero, with a gradient of zero for every parameter."""
    count = share_of_count(torch.ones_like(label, dtype=torch.bool))
    if len(label):
        return F.cross_entropy(parts.logits, label, reduction="sum") / count
    return torch.stack([parameter.sum() for parameter in branch.parameters()]).sum() * 0
