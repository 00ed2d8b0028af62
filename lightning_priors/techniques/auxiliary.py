"""Technique 5: auxiliary tasks, such as finer labels, learned on the same backbone so that the primary task gains."""

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lightning_priors.batch import PriorBatch
from lightning_priors.errors import PriorError
from lightning_priors.functional.task_weights import (
    gradient_cosines,
    mean_over_processes,
    scale_gradient,
    task_gradients,
    task_losses,
    without_target,
)
from lightning_priors.metrics import TaskAccuracy
from lightning_priors.nn import AuxiliaryHeads, Classifier
from lightning_priors.nn.auxiliary_tasks import loss_factors, task_columns, task_names
from lightning_priors.nn.task_weighting import (
    DynamicWeightAverage,
    Fixed,
    GradientWeighting,
    LookAhead,
    Weighting,
    task_weighting,
)
from lightning_priors.techniques.base import PriorModule, PriorStep


class Answers(NamedTuple):
    """What the heads of T tasks say of B images, and what it costs; the primary task comes first."""

    logits: Tensor
    """(B, K) of the primary task."""
    auxiliary: Tensor
    """(B, T - 1, greatest number of classes)."""
    losses: Tensor
    """(T,)."""
    present: Tensor
    """(T,) bool, which tasks have a label in the batch."""


class Auxiliary(PriorModule):
    """A primary task and auxiliary tasks with labels of their own, on one backbone.

    The loss is the cross entropy of the primary task plus those of the auxiliary tasks, each the mean over the images
    that have a label in it. In the mode ``auxiliary`` only the primary task counts: its weight is 1, it alone is
    evaluated, and the other heads are linear, so that what they learn has to be in the features. In the mode
    ``multitask`` every task counts: each of the others has a layer of its own, uncertainty and DWA weigh the primary
    task too, and the accuracies of all tasks are evaluated, as ``val/acc_<task>``.

    In both modes `classifier` is the whole network at inference. ``model.classifier.state_dict()`` is what to export:
    it has no auxiliary heads, loads into a `Classifier`, and saved serves as ``weights`` of every technique.

    Weightings that look at gradients compare them on the last layers of the backbone, averaged over all processes.
    Their weights act on the gradient that goes back into the backbone; the heads learn at full speed, and the logged
    loss and its terms are those without the weights.

    Logged in training: ``loss_primary`` and ``loss_<task>``, ``acc_<task>``, and where they are computed
    ``weight_<task>``, and ``cosine_<task>`` between the task's gradient and the primary one.

    Args:
        num_classes: Number of classes K of the primary task.
        aux_num_classes: Number of classes of each column of the batch's ``aux_labels``.
        aux_names: Names of these tasks; ``aux0``, ``aux1`` and so on if not given.
        tasks: The names of those to learn; all if not given.
        backbone: A timm model name, or ``tiny``.
        weights: ``none``, ``imagenet``, or the path of a checkpoint.
        mode: ``auxiliary`` or ``multitask``.
        exclude_target: Whether images of the target class take no part in the auxiliary tasks; otherwise the target is
            an additional auxiliary class. Taken out, its class keeps an output that is never right.
        target_class: Number of the target class in the primary task.
        aux_weight: Factor on the auxiliary losses, one for all or one for each task that is learned; 0 is plain
            training.
        weighting: ``fixed``; ``uncertainty`` (Kendall et al. 2018); ``dwa``, dynamic weight average (Liu et al. 2019);
            ``gradient_similarity`` and ``gradient_similarity_unweighted`` (Du et al. 2018); ``lookahead``, weights that
            lower the primary loss one step ahead; ``torchjd``, an aggregator of that package. See
            `lightning_priors.nn.task_weighting`.
        temperature: Of ``dwa``.
        lookahead_rate: Greatest change of a weight in a step of ``lookahead``.
        aggregator: Of ``torchjd``, such as ``UPGrad``, ``PCGrad`` or ``NashMTL``.
        gradient_layers: On how many of the backbone's last layers with weights, such as convolutions, gradients are
            compared, together with the normalisations between them; a great number means all.
        log_cosine: Whether the cosines are computed and logged where the weighting does not need them.
        lr: Learning rate of the default optimiser, AdamW.
        weight_decay: Weight decay of the default optimiser.
        warmup_epochs: Linear warm-up of the learning rate before its cosine, in epochs.
        optimizer: Replaces the default optimiser.
        scheduler: Replaces the default schedule.

    Raises:
        PriorError: If names, tasks, target class or weights do not fit together, or torchjd is missing.

    >>> model = Auxiliary(num_classes=2, aux_num_classes=[5], aux_names=["species"], exclude_target=True)
    >>> batch = {"image": torch.zeros(2, 3, 32, 32), "label": torch.tensor([0, 1]), "index": torch.arange(2)}
    >>> list(model.step(batch | {"aux_labels": torch.tensor([[0], [3]])}).terms)
    ['primary', 'species']
    """

    requires: ClassVar = [("aux_labels",)]
    factors: Tensor

    def __init__(
        self,
        num_classes: int = 2,
        aux_num_classes: Sequence[int] = (),
        aux_names: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
        backbone: str = "tiny",
        weights: str = "none",
        mode: Literal["auxiliary", "multitask"] = "auxiliary",
        exclude_target: bool = False,
        target_class: int = 0,
        aux_weight: float | Sequence[float] = 1.0,
        weighting: Weighting = "fixed",
        temperature: float = 2.0,
        lookahead_rate: float = 0.01,
        aggregator: str = "UPGrad",
        gradient_layers: int = 1,
        log_cosine: bool = False,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup_epochs: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(num_classes, weights, lr, weight_decay, warmup_epochs, optimizer, scheduler)
        self.save_hyperparameters(ignore=["optimizer", "scheduler"])
        if not 0 <= target_class < num_classes:
            raise PriorError(f"target_class {target_class} is none of the {num_classes} primary classes")
        if gradient_layers < 1:
            raise PriorError(f"gradient_layers is at least 1, not {gradient_layers}")
        self.mode, self.exclude_target, self.target_class = mode, exclude_target, target_class
        self.gradient_layers, self.log_cosine = gradient_layers, log_cosine
        self.classifier = Classifier(num_classes, backbone)
        self.available = task_names(len(aux_num_classes), aux_names)
        self.tasks = self.available if tasks is None else list(tasks)
        self.columns = task_columns(self.tasks, self.available)
        sizes = [aux_num_classes[column] for column in self.columns]
        self.heads = AuxiliaryHeads(self.classifier.backbone.num_features, sizes, branches=mode == "multitask")
        self.weigher = task_weighting(
            weighting, 1 + len(sizes), mode == "multitask", temperature, lookahead_rate, aggregator
        )
        self.register_buffer("factors", loss_factors(aux_weight, len(sizes)), persistent=False)
        self.learns = not sizes or bool(self.factors[1:].any())
        # what gets no gradient would stall data-parallel training
        self.heads.requires_grad_(self.learns)
        self.weigher.requires_grad_(self.learns)
        self.accuracy = nn.ModuleDict({f"{stage}/acc": TaskAccuracy(len(sizes)) for stage in ("train", "val", "test")})
        self.observed: dict[str, Tensor] = {}

    def explain(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Classifies images (B, 3, H, W) to primary logits (B, K) and class activation maps (B, K, h, w)."""
        logits, cam = self.classifier(image)
        return logits, cam

    def step(self, batch: PriorBatch) -> PriorStep:
        """The weighted sum of the tasks' losses; plain cross entropy where no auxiliary task has a weight."""
        features = self.classifier.backbone(batch["image"])
        if not self.learns:
            logits, _ = self.classifier.head(features)
            return PriorStep(F.cross_entropy(logits, batch["label"]), logits, {})
        aux_labels = self.auxiliary_labels(batch)
        answers = self.answer(features, batch["label"], aux_labels)
        self._accuracy("train").update(answers.auxiliary, aux_labels)
        gradients = None
        if self.log_cosine or isinstance(self.weigher, GradientWeighting):
            gradients = self.gradients(answers.losses)
        if isinstance(self.weigher, GradientWeighting):
            weights = self.weigher(gradients)
            losses = self.answer(features, batch["label"], aux_labels, shares=weights).losses
        else:
            losses, weights = self.weigher(answers.losses, answers.present)
        losses = self.factors * losses
        self._observe(weights, gradients)
        terms = dict(zip(["primary", *self.tasks], losses, strict=True))
        return PriorStep(losses.sum(), answers.logits, terms)

    def answer(self, features: Tensor, label: Tensor, aux_labels: Tensor, shares: Tensor | None = None) -> Answers:
        """What all heads say of a feature map.

        Args:
            features: (B, C, h, w).
            label: (B,) of the primary task.
            aux_labels: (B, T - 1) of the tasks that are learned, -1 = no label.
            shares: (T,) what each task's gradient is multiplied by where it goes into the features; 1 if not given.
        """
        seen = features if shares is None else scale_gradient(features, shares[0])
        logits, _ = self.classifier.head(seen)
        auxiliary = self.heads(features, None if shares is None else shares[1:])
        losses, present = task_losses(auxiliary, aux_labels)
        primary = F.cross_entropy(logits, label)
        return Answers(
            logits, auxiliary, torch.cat([primary[None], losses]), torch.cat([torch.ones_like(present[:1]), present])
        )

    def auxiliary_labels(self, batch: PriorBatch) -> Tensor:
        """The labels (B, T - 1) of the tasks that are learned, -1 = none; without those of the target if so wanted.

        Raises:
            PriorError: If the batch has another number of tasks than `aux_num_classes`, or there is none to learn.
        """
        given = batch["aux_labels"]
        if given.shape[1] != len(self.available) or not self.tasks:
            raise PriorError(
                f"the data has {given.shape[1]} auxiliary tasks, aux_num_classes {len(self.available)}, "
                f"of which {len(self.tasks)} are to be learned"
            )
        labels = given[:, self.columns]
        return without_target(labels, batch["label"], self.target_class) if self.exclude_target else labels

    def gradients(self, losses: Tensor) -> Tensor:
        """The gradients (T, n) of the losses (T,) on the backbone's last layers, averaged over all processes.

        Raises:
            PriorError: If these layers are frozen.
        """
        shared = [parameter for parameter in self.last_layers if parameter.requires_grad]
        if not shared:
            raise PriorError(f"the backbone's last {self.gradient_layers} layers are frozen: no gradients to compare")
        return mean_over_processes(task_gradients(self.factors * losses, shared))

    def evaluate(self, batch: PriorBatch, stage: str) -> Tensor:
        """The shared evaluation of the primary task, and in the mode ``multitask`` the accuracies of all tasks."""
        features = self.classifier.backbone(batch["image"])
        if self.mode == "multitask" and "aux_labels" in batch:
            self._accuracy(stage).update(self.heads(features), self.auxiliary_labels(batch))
        return self.log_evaluation(batch, stage, *self.classifier.head(features))

    def training_step(self, batch: PriorBatch, batch_idx: int) -> Tensor:
        """Logs weights and cosines too."""
        loss = super().training_step(batch, batch_idx)
        logged = {f"train/{name}": value for name, value in self.observed.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(batch["label"]), sync_dist=True)
        return loss

    def on_train_epoch_start(self) -> None:
        """Epochs begin alike, whether the last one ended just now or in a checkpoint."""
        if isinstance(self.weigher, DynamicWeightAverage):
            self.weigher.next_epoch()
        if isinstance(self.weigher, LookAhead):
            self.weigher.forget()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips as asked for; then the gradients are what the optimiser will use, and can be looked ahead from.

        Raises:
            PriorError: If the weights look ahead and the optimiser is none of SGD, Adam and AdamW.
        """
        super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        if isinstance(self.weigher, LookAhead) and self.learns:
            try:
                self.weigher.look_at_step([p for p in self.last_layers if p.requires_grad], optimizer)
            except (TypeError, ValueError) as error:
                raise PriorError(f"weighting lookahead: {error}") from error

    def on_train_epoch_end(self) -> None:
        """Logs the accuracies of the auxiliary tasks."""
        self._log_accuracies("train")

    def on_validation_epoch_end(self) -> None:
        """Logs the accuracies of the auxiliary tasks."""
        self._log_accuracies("val")

    def on_test_epoch_end(self) -> None:
        """Logs the accuracies of the auxiliary tasks."""
        self._log_accuracies("test")

    @cached_property
    def last_layers(self) -> list[nn.Parameter]:
        """The parameters on which gradients are compared: from the weights of a layer near the end onwards."""
        parameters = [parameter for layer in self.classifier.backbone.layers() for parameter in layer]
        weights = [position for position, parameter in enumerate(parameters) if parameter.ndim > 1]
        return parameters[weights[-min(self.gradient_layers, len(weights))] :]

    def _observe(self, weights: Tensor, gradients: Tensor | None) -> None:
        """Keeps what is to be logged of a step."""
        self.observed = {}
        if not isinstance(self.weigher, Fixed):
            named = zip(["primary", *self.tasks], (self.factors * weights).detach(), strict=True)
            self.observed = {f"weight_{name}": weight for name, weight in named}
        if gradients is not None:
            named = zip(self.tasks, gradient_cosines(gradients), strict=True)
            self.observed |= {f"cosine_{name}": cosine for name, cosine in named}

    def _accuracy(self, stage: str) -> TaskAccuracy:
        return cast(TaskAccuracy, self.accuracy[f"{stage}/acc"])

    def _log_accuracies(self, stage: str) -> None:
        metric = self._accuracy(stage)
        if metric.update_called:
            accuracies = zip(self.tasks, metric.compute().flatten(), strict=True)  # torchmetrics makes one a scalar
            self.log_dict({f"{stage}/acc_{name}": value for name, value in accuracies if not value.isnan()})
            metric.reset()
