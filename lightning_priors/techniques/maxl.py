"""Technique 6: MAXL. A second network invents the auxiliary labels, so that learning them lowers the primary loss."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader

from lightning_priors.batch import PriorBatch, require
from lightning_priors.errors import PriorError
from lightning_priors.functional.clustering import Clusters, find_clusters, hashed_uniform, random_sub_classes
from lightning_priors.functional.generator_update import (
    MetaGradient,
    generator_gradients,
    mean_label,
    shared_cosine,
)
from lightning_priors.functional.hypergradient import InnerStep, RandomState
from lightning_priors.functional.processes import process_count, total_over_processes
from lightning_priors.functional.soft_labels import hierarchy, label_entropy, per_class_losses, soft_label_loss
from lightning_priors.functional.task_weights import those_of_the_first_process
from lightning_priors.functional.update_rules import update_rules
from lightning_priors.nn.classifier import Classifier
from lightning_priors.nn.label_generator import Balance, LabelGenerator, TaskOutputs, TwoTasks
from lightning_priors.nn.label_learning import (
    InnerBatch,
    LabelLearner,
    MetaMethod,
    Part,
    clip,
    network_gradients,
    part_of,
    untouched,
)
from lightning_priors.techniques.base import PriorModule, PriorStep

Labels = Literal["maxl", "human", "random", "kmeans", "none"]
Schedule = Literal["interleaved", "alternating", "alternating_epochs"]
MetaBatch = Literal["next", "same", "held_out"]
HELD_OUT = 0
"""The seed of the held-out images: the same ones in every run."""


def auxiliary_classes(
    labels: Labels, num_classes: int, subclasses: int | Sequence[int], aux_num_classes: Sequence[int], aux_task: int
) -> tuple[int, list[int]]:
    """How many auxiliary classes there are, and how many of them in each primary class.

    Args:
        labels: Where the labels come from.
        num_classes: Number of primary classes.
        subclasses: psi, one number or one for each primary class.
        aux_num_classes: Number of classes of each human auxiliary task.
        aux_task: Which of those is meant.

    Returns:
        A, and psi of each primary class; the second is empty for labels that do not keep to the primary classes.

    Raises:
        PriorError: If the numbers do not fit.

    >>> auxiliary_classes("maxl", 2, 5, [], 0), auxiliary_classes("human", 2, 5, [9], 0)
    ((10, [5, 5]), (9, []))
    """
    if labels == "none":
        return 0, []
    if labels == "human":
        if not 0 <= aux_task < len(aux_num_classes):
            raise PriorError(f"aux_task {aux_task} is none of the {len(aux_num_classes)} auxiliary tasks of the data")
        return aux_num_classes[aux_task], []
    try:
        counts = hierarchy(subclasses if isinstance(subclasses, int) else list(subclasses), num_classes)
    except ValueError as error:
        raise PriorError(f"subclasses: {error}") from error
    return sum(counts), counts


class MAXL(PriorModule):
    """A classifier whose auxiliary labels are made by a label generator (Liu, Davison and Johns 2019).

    "Self-Supervised Generalisation with Meta Auxiliary Learning". The network learns its classes and, with a second
    head, the labels of the generator: each class split into sub-classes. The generator learns which labels make the
    primary loss fall after the next step of the network, by the exact derivative of that step (`InnerStep`).

    In the schedule ``interleaved`` the step that is looked through is the true one. With the meta batch ``next`` it
    costs one forward-mode pass: the primary gradient of the next batch is needed for training anyway. A step is looked
    through in each epoch's first batch and every `generator_every` batches from there; its successor must lie in the
    same epoch. In ``alternating`` (as published) a pass of its own looks ahead after a training step, from where
    training has got to; in ``alternating_epochs`` every second epoch does only that, for each batch.

    Evaluation is that of the classifier; the auxiliary head and the generator take no part. The optimisation is manual:
    ``global_step`` counts the batches that end in a step, and clipping and accumulation are options here, not of the
    Trainer. Both networks' learning rates follow the same schedule. Data-parallel training is that of the joint batch,
    with the strategy ``ddp`` as it is; statistics of batch normalisation are those of each process.

    Logged in training beside the shared values: ``loss_primary``, ``loss_auxiliary``, ``label_entropy`` of the mean
    label, ``confidence``; where the generator learns ``cosine`` of primary and auxiliary gradient,
    ``meta_gradient_norm`` and ``entropy_gradient_norm`` on the generator's scores, after scaling and weighting; every
    `lookahead_every` batches ``primary_loss_before`` and ``primary_loss_after`` the step, on the meta batch.

    Args:
        num_classes: Number of classes K of the primary task.
        subclasses: psi, into how many sub-classes each class is split: one number, or one for each class.
        aux_num_classes: Number of classes of each human auxiliary task.
        aux_task: Which column of the batch's ``aux_labels`` the labels ``human`` are.
        backbone: A timm model name, or ``tiny``.
        weights: ``none``, ``imagenet``, or the path of a checkpoint; for the network, not for the generator.
        labels: ``maxl``; for comparison ``human``, ``random`` (fixed for each image), ``kmeans`` (clusters of the
            images at 8 x 8 cells inside of each class, fixed for each image) and ``none``, plain training.
        generator: ``features``, a head on the network's features, or the name of a network of its own.
        schedule: ``interleaved``, ``alternating`` or ``alternating_epochs``.
        meta_batch: Where the primary loss is to fall: in the ``next`` batch, the ``same``, or in ``held_out`` images
            of the same batch, which never train the network.
        held_out_fraction: Share of the training images that are held out for that.
        generator_every: The generator learns every so many steps of the network.
        method: ``forward_mode``, exact; ``finite_difference``, about that; ``unrolled``, double backward, exact and
            slow, for ``alternating`` schedules.
        meta_gradient: ``normalised``: the derivative by the labels has root mean square 1 for an image; ``clipped``: at
            most 1; ``raw``.
        entropy_weight: Weight of the negative entropy of the mean label where `balance` is ``entropy``.
        balance: What keeps the labels from collapsing: ``sinkhorn``, equal shares of the batch by construction; or
            ``entropy``, as published, a loss that soft labels satisfy too which all prefer the same sub-class.
        temperature: Of the generated labels.
        loss: Of the auxiliary task: ``focal`` or ``cross_entropy``.
        aux_weight: Weight of the auxiliary loss.
        generator_lr: Learning rate of the generator's optimiser, Adam.
        generator_weight_decay: Its weight decay.
        warm_start: ``kmeans``: in the first epoch the labels are those of ``kmeans``, and the generator learns them.
        gradient_clip_norm: Greatest norm of the network's gradient; the derivative sees through the clipping.
        accumulate_batches: Batches for each step of the network.
        frozen_preconditioner: Whether Adam's second moment counts as a constant: cheaper, and not exact.
        spare_auxiliary: Whether the batch whose primary gradient tells what a step was worth trains the primary task
            alone. That saves it a backward pass, and frees its graph before the forward-mode pass. Batches that the
            generator is going to learn from are not spared, so with `generator_every` 1 none is, nor where batches are
            accumulated.
        lookahead_every: How often the loss ahead is logged, in batches, and in spared batches ``cosine``; 0 is never.
        lr: Learning rate of the default optimiser, AdamW.
        weight_decay: Weight decay of the default optimiser.
        warmup_epochs: Linear warm-up of the learning rate before its cosine, in epochs.
        optimizer: Replaces the default optimiser; SGD, Adam or AdamW of torch where labels are generated.
        scheduler: Replaces the default schedule, for both networks.

    Raises:
        PriorError: If options do not fit together.

    >>> model = MAXL(num_classes=2, subclasses=3)
    >>> batch = {"image": torch.zeros(2, 3, 32, 32), "label": torch.tensor([0, 1]), "index": torch.arange(2)}
    >>> model.auxiliary_labels(batch).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        num_classes: int = 2,
        subclasses: int | list[int] = 5,
        aux_num_classes: Sequence[int] = (),
        aux_task: int = 0,
        backbone: str = "tiny",
        weights: str = "none",
        labels: Labels = "maxl",
        generator: str = "features",
        schedule: Schedule = "interleaved",
        meta_batch: MetaBatch = "next",
        held_out_fraction: float = 0.2,
        generator_every: int = 5,
        method: MetaMethod = "forward_mode",
        meta_gradient: MetaGradient = "normalised",
        entropy_weight: float = 0.2,
        balance: Balance = "sinkhorn",
        temperature: float = 1.0,
        loss: Literal["focal", "cross_entropy"] = "focal",
        aux_weight: float = 1.0,
        generator_lr: float = 1e-3,
        generator_weight_decay: float = 5e-4,
        warm_start: Literal["none", "kmeans"] = "none",
        gradient_clip_norm: float | None = None,
        accumulate_batches: int = 1,
        frozen_preconditioner: bool = False,
        spare_auxiliary: bool = True,
        lookahead_every: int = 0,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup_epochs: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(num_classes, weights, lr, weight_decay, warmup_epochs, optimizer, scheduler)
        self.save_hyperparameters(ignore=["optimizer", "scheduler"])
        self.automatic_optimization = False
        self.labels, self.schedule, self.meta_batch, self.method = labels, schedule, meta_batch, method
        self.aux_task, self.held_out_fraction, self.generator_every = aux_task, held_out_fraction, generator_every
        self.meta_gradient, self.frozen_preconditioner = meta_gradient, frozen_preconditioner
        self.entropy_weight = entropy_weight if balance == "entropy" else 0.0
        self.gamma, self.aux_weight = 2.0 if loss == "focal" else 0.0, aux_weight
        self.generator_lr, self.generator_weight_decay = generator_lr, generator_weight_decay
        self.warm_start, self.spare_auxiliary, self.lookahead_every = warm_start, spare_auxiliary, lookahead_every
        self.gradient_clip_norm, self.accumulate_batches = gradient_clip_norm, accumulate_batches
        self._check_options(temperature)
        self.aux_classes, self.sub_classes = auxiliary_classes(
            labels, num_classes, subclasses, aux_num_classes, aux_task
        )
        self.classifier = Classifier(num_classes, backbone)
        features = self.classifier.backbone.num_features
        self.auxiliary_head: nn.Linear | None = None
        self.generator: LabelGenerator | None = None
        with torch.random.fork_rng(devices=[]):  # what is drawn afterwards is the same as without auxiliary labels
            self._seed = int(torch.randint(2**31, ()))
            if labels != "none":
                self.auxiliary_head = nn.Linear(features, self.aux_classes)
            if labels == "maxl":
                own = {"num_features": features} if generator == "features" else {"backbone": generator}
                self.generator = LabelGenerator(self.sub_classes, balance=balance, temperature=temperature, **own)
        self.observed: dict[str, Tensor] = {}
        self._clusters: Clusters | None = None
        self._scheduled = "step"
        self._inner: list[InnerBatch] = []
        self._pending: tuple[list[InnerBatch], InnerStep] | None = None
        self._previous: Part | None = None

    def load_initial_weights(self) -> None:
        """Loads those of the network; a generator of the same architecture would start from them too otherwise."""
        if self.weights != "none":
            rank_zero_info(str(self.classifier.backbone.load(self.weights)))

    def parameter_groups(self) -> list[tuple[float, list[nn.Parameter]]]:
        """The network with its auxiliary head; the generator has an optimiser of its own."""
        layers = [parameter for layer in self.classifier.backbone.layers() for parameter in layer]
        heads = [self.classifier.head, *([] if self.auxiliary_head is None else [self.auxiliary_head])]
        return [(1.0, [parameter for head in heads for parameter in head.parameters()] + layers)]

    def configure_optimizers(self) -> Any:
        """The base's optimiser and schedule for the network; Adam for the generator, whose rate follows in proportion.

        Raises:
            PriorError: If steps of the optimiser cannot be looked through.
        """
        chosen = cast(dict[str, Any], super().configure_optimizers())
        optimizer, scheduler = chosen["optimizer"], chosen["lr_scheduler"]["scheduler"]
        self._scheduled = chosen["lr_scheduler"].get("interval", "epoch")
        if self.generator is None:
            return [optimizer], [{"scheduler": scheduler, "interval": self._scheduled}]
        try:
            update_rules(self.network, optimizer)
        except (TypeError, ValueError) as error:
            raise PriorError(f"labels maxl: {error}") from error
        generator = torch.optim.Adam(
            self.generator.parameters(), lr=self.generator_lr, weight_decay=self.generator_weight_decay
        )
        return [optimizer, generator], [{"scheduler": scheduler, "interval": self._scheduled}]

    def schedule_lengths(self) -> tuple[float, float]:
        """Optimiser steps of the warm-up and of the whole training, of several batches each where so asked for."""
        warmup, total = super().schedule_lengths()
        if self.accumulate_batches > 1:
            self.trainer.fit_loop.setup_data()
            epochs, most = self.trainer.max_epochs, self.trainer.max_steps
            steps = math.ceil(self.trainer.num_training_batches / self.accumulate_batches)
            limits = [steps * epochs] if epochs is not None and epochs > 0 else []
            total = min(limits + ([most] if most >= 0 else []), default=math.inf)
        return warmup / self.accumulate_batches, total

    def configure_callbacks(self) -> list[Callback]:
        """Refuses what would be refused later, and without naming the option to use instead.

        Raises:
            PriorError: If the Trainer shall do what manual optimisation does itself, or shards the network.
        """
        trainer = self.trainer
        if trainer.gradient_clip_val:
            raise PriorError("MAXL clips by itself: set model.gradient_clip_norm, not trainer.gradient_clip_val")
        if trainer.accumulate_grad_batches != 1:
            raise PriorError(
                "MAXL accumulates by itself: set model.accumulate_batches, not trainer.accumulate_grad_batches"
            )
        refuse_sharding(trainer.strategy)
        return []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the labels that are fixed for the run; they are no buffers, since an average of them means nothing."""
        clusters = None if self._clusters is None else list(self._clusters)
        checkpoint["maxl"] = {"seed": self._seed, "clusters": clusters}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the labels that are fixed for the run from the checkpoint."""
        super().on_load_checkpoint(checkpoint)
        self._seed, clusters = checkpoint["maxl"]["seed"], checkpoint["maxl"]["clusters"]
        self._clusters = None if clusters is None else Clusters(*clusters)

    def on_train_start(self) -> None:
        """Finds the clusters where they are needed, and checks that there is something to learn from.

        Raises:
            PriorError: If an epoch has no next batch.
        """
        if process_count() > 1 and self.method == "unrolled":
            raise PriorError("method unrolled is for one process; forward_mode gives the same, for any number")
        steps = math.ceil(self.trainer.num_training_batches / self.accumulate_batches)
        if self.generator is not None and self.meta_batch == "next" and steps < 2 and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise PriorError("an epoch of one step has no next batch for the generator; set meta_batch to same")
        if "kmeans" in (self.labels, self.warm_start) and self._clusters is None:
            self._clusters = self._find_clusters()

    def on_train_epoch_start(self) -> None:
        """Epochs begin alike, whether the last one ended just now or in a checkpoint."""
        self._forget()

    def on_train_epoch_end(self) -> None:
        """Lets go of the last step, and steps a schedule that follows the validation loss."""
        self._forget()
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, ReduceLROnPlateau):
            if "val/loss" not in self.trainer.callback_metrics:
                raise PriorError("the schedule follows val/loss, but there was no validation")
            scheduler.step(self.trainer.callback_metrics["val/loss"])
            self._set_generator_rate()

    def explain(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Classifies images (B, 3, H, W) to logits (B, K) and class activation maps (B, K, h, w)."""
        logits, cam = self.classifier(image)
        return logits, cam

    @property
    def network(self) -> TwoTasks:
        """The classifier with the auxiliary head, as one module; its parameters are those of this one."""
        return TwoTasks(self.classifier, self.auxiliary_head)

    @property
    def learner(self) -> LabelLearner:
        """How the generator learns."""
        assert self.generator is not None
        return LabelLearner(
            self.network, self.generator, self.gamma, self.aux_weight, self.method, self.meta_gradient,
            self.entropy_weight, self.frozen_preconditioner, self.gradient_clip_norm, self._loss_scale,
        )  # fmt: skip

    def auxiliary_labels(self, batch: PriorBatch) -> Tensor:
        """The labels that the auxiliary head is trained on.

        Args:
            batch: Images, with ``aux_labels`` where the labels are ``human``.

        Returns:
            (B, A) float32 or float64, without a graph; a row of zeros is no label. No buffer is changed.
        """
        with torch.no_grad():
            if self.generator is None or self._warming:
                return self.fixed_labels(batch)
            own = self.generator.backbone is not None
            inputs = batch["image"] if own else untouched(self.classifier.backbone, batch["image"])
            labels: Tensor = untouched(self.generator, inputs, batch["label"])
            return labels

    def fixed_labels(self, batch: PriorBatch) -> Tensor:
        """The labels (B, A) that do not come from the generator, one-hot or zero: human, random or clusters.

        Raises:
            PriorError: If there are no clusters yet.
        """
        index, label = batch["index"], batch["label"]
        if self.labels == "human":
            number = batch["aux_labels"][:, self.aux_task]
        elif self.labels == "random":
            number = random_sub_classes(index, label, self.sub_classes, self._seed)
        elif self.labels == "none":
            number = torch.full_like(label, -1)
        elif self._clusters is None:
            raise PriorError("there are no clusters yet: they are found when the training starts")
        else:
            clusters = Clusters(*(part.to(label.device) for part in self._clusters))
            number = clusters.of(index, label, batch["image"], self.sub_classes)
        found = number[:, None] == torch.arange(self.aux_classes, device=label.device)
        return found.to(torch.promote_types(self.classifier.head.weight.dtype, torch.float32))

    def step(self, batch: PriorBatch) -> PriorStep:
        """The loss of a batch with the auxiliary labels of `auxiliary_labels`; training does more."""
        outputs = self.network(batch["image"])
        primary = F.cross_entropy(outputs.logits, batch["label"])
        if self.auxiliary_head is None:
            return PriorStep(primary, outputs.logits, {})
        auxiliary = self._auxiliary_loss(outputs, self.auxiliary_labels(batch), 1.0)
        return PriorStep(primary + auxiliary, outputs.logits, {"primary": primary, "auxiliary": auxiliary})

    def training_step(self, batch: PriorBatch, batch_idx: int) -> Tensor:
        """One step of the network, and where it is due one of the generator."""
        require(batch, [("aux_labels",)] if self.labels == "human" else [], by="MAXL with labels human")
        self.epochs_done = self.current_epoch + batch_idx / self.trainer.num_training_batches
        self.observed = {}
        train, meta = self._parts(batch)
        if self.schedule == "alternating_epochs" and self.generator is not None and self.current_epoch % 2 == 1:
            step = self._look_ahead(train, meta, batch_idx, counted=True)
            self._follow_schedule()
        else:
            step = self._train_network(train, meta, batch_idx)
        images = len(batch["label"])
        self.log_step(step, train.batch["label"], train.share, images)
        logged = {f"train/{name}": value for name, value in self.observed.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=images, sync_dist=True)
        return step.loss.detach()

    def _train_network(self, train: Part, meta: Part, batch_idx: int) -> PriorStep:
        """One batch of the network; what waits from the last one comes first, as it needs the weights of now."""
        if self._previous is not None:
            previous, self._previous = self._previous, None
            self._look_ahead(previous, train, batch_idx)
        due = self._due(batch_idx)
        state = RandomState(self.device) if due and self.schedule == "interleaved" else None
        outputs = self.network(train.batch["image"])
        primary, v, spared = train.primary_loss(outputs), None, False
        if self._pending is not None:
            (inner, passed), self._pending = self._pending, None
            spared = self.spare_auxiliary and not due and self.accumulate_batches == 1
            graph_needed = not spared or self._logs_look_ahead(batch_idx)
            v = network_gradients(primary, self.network, self._loss_scale, retain_graph=graph_needed)
            self._look_back(inner, passed, v, train, primary, batch_idx)
        if self.auxiliary_head is None or (spared and not self._logs_look_ahead(batch_idx)):
            step = PriorStep(primary, outputs.logits, {} if self.auxiliary_head is None else {"primary": primary})
        else:
            auxiliary = self._auxiliary_loss(outputs, self._labels(train, outputs, state), train.share)
            step = PriorStep(primary + auxiliary, outputs.logits, {"primary": primary, "auxiliary": auxiliary})
        self._add_gradients(step, v, spared)
        if (batch_idx + 1) % self.accumulate_batches == 0 or self.trainer.is_last_batch:
            self._end_step(train, meta, batch_idx)
        return step

    def _end_step(self, train: Part, meta: Part, batch_idx: int) -> None:
        """The network's step, and what can follow from it at once."""
        inner, self._inner = self._inner, []
        passed = self._step_network(capture=bool(inner))
        if passed is not None and self.meta_batch == "next":
            self._pending = inner, passed
        elif passed is not None:
            v, after = self.learner.primary_gradient(meta)
            self._look_back(inner, passed, v, meta, after, batch_idx)
        if self.schedule == "alternating" and self._due(batch_idx):
            if self.meta_batch == "next":
                self._previous = train
            else:
                self._look_ahead(train, meta, batch_idx)
        self._follow_schedule()

    def _due(self, batch_idx: int) -> bool:
        """Whether the generator learns from the step that a batch is part of."""
        step = batch_idx // self.accumulate_batches
        return self.generator is not None and not self._warming and step % self.generator_every == 0

    @property
    def _warming(self) -> bool:
        """Whether the generator is being shown the clusters."""
        return self.warm_start == "kmeans" and self.generator is not None and self.current_epoch == 0

    def _parts(self, batch: PriorBatch) -> tuple[Part, Part]:
        """The images that train the network, and those on which the primary loss is to fall."""
        if self.generator is None or self.meta_batch != "held_out":
            return Part(batch, 1.0), Part(batch, 1.0)
        held_out = hashed_uniform(batch["index"], HELD_OUT) < self.held_out_fraction
        return part_of(batch, ~held_out), part_of(batch, held_out)

    def _labels(self, train: Part, outputs: TaskOutputs, state: RandomState | None) -> Tensor:
        """The labels (B, A) for training; those of a step that the generator learns from are kept with their graph."""
        if self.generator is None:
            labels = self.fixed_labels(train.batch)
        else:
            with torch.set_grad_enabled(state is not None or self._warming):
                logits, labels = self.learner.generated(train.batch, outputs.features)
            if state is not None:
                self._inner.append(InnerBatch(train, state, logits, labels))
            if self._warming:
                labels = self._show_clusters(train.batch, logits, labels)
        self._observe_labels(labels, train.share)
        return labels.detach()

    def _auxiliary_loss(self, outputs: TaskOutputs, labels: Tensor, share: float | Tensor) -> Tensor:
        """The weighted loss of the auxiliary head, the mean over the images that have a label."""
        if self.labels == "human":
            share = len(labels) * process_count() / total_over_processes(labels.sum()).clamp(min=1)
        return share * self.aux_weight * soft_label_loss(per_class_losses(outputs.auxiliary, self.gamma), labels)

    def _add_gradients(self, step: PriorStep, primary: dict[str, Tensor] | None, spared: bool) -> None:
        """Adds the gradient of a batch to those of the step; where the primary one is known, only the rest is new."""
        auxiliary = step.terms.get("auxiliary")
        if primary is None or auxiliary is None:
            gradients = network_gradients(step.loss, self.network, self._loss_scale) if primary is None else primary
        else:
            gradients = network_gradients(auxiliary, self.network, self._loss_scale)
            self.observed["cosine"] = shared_cosine(primary, gradients)
            if spared:  # it was computed for the log alone
                gradients = {}
            for name, gradient in primary.items():
                gradients[name] = gradients[name] + gradient if name in gradients else gradient
        for name, parameter in self.network.named_parameters():
            if name in gradients:
                part = gradients[name] / self.accumulate_batches if self.accumulate_batches > 1 else gradients[name]
                parameter.grad = part if parameter.grad is None else parameter.grad + part

    def _step_network(self, capture: bool) -> InnerStep | None:
        """Clips and steps; gives the step to look back at, if so wanted and no gradient has overflowed."""
        optimizer, network = self._optimizer(0), self.network
        parameters = {name: p for name, p in network.named_parameters() if p.grad is not None}
        gradients = {name: cast(Tensor, p.grad) for name, p in parameters.items()}
        factor, step = clip(gradients, self.gradient_clip_norm), None
        if capture and self._usable(gradients):
            step = InnerStep(network, optimizer.optimizer, gradients, factor, self.frozen_preconditioner)
        self._scale_up(parameters)
        optimizer.step()
        optimizer.zero_grad()
        return step

    def _look_back(
        self, inner: list[InnerBatch], step: InnerStep, v: dict[str, Tensor], meta: Part, after: Tensor, batch_idx: int
    ) -> None:
        """Has the generator learn from a step that was made, the primary gradient after it being `v`."""
        lesson = self.learner.look_back(inner, step, v)
        self.observed |= lesson.norms
        self._observe_look_ahead(step.parameters, meta, after, batch_idx)
        self._step_generator(lesson.gradients)

    def _look_ahead(self, train: Part, meta: Part, batch_idx: int, counted: bool = False) -> PriorStep:
        """Has the generator learn from a step that is not made, from where training has got to."""
        ahead = self.learner.look_ahead(train, meta, self._optimizer(0).optimizer)
        self.observed |= ahead.lesson.norms
        self._observe_labels(ahead.labels, train.share)
        self._observe_look_ahead({}, meta, ahead.after, batch_idx)
        self._step_generator(ahead.lesson.gradients, counted)
        terms = {"primary": ahead.primary, "auxiliary": ahead.auxiliary}
        return PriorStep(ahead.primary + ahead.auxiliary, ahead.outputs.logits, terms)

    def _show_clusters(self, batch: PriorBatch, logits: Tensor, labels: Tensor) -> Tensor:
        """Has the generator learn the clusters; gives them."""
        assert self.generator is not None
        clusters = self.fixed_labels(batch)
        loss = -(clusters * labels.clamp(min=1e-12).log()).sum(1).mean()
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        self._step_generator(generator_gradients(self.generator, [logits], [gradient], self._loss_scale))
        return clusters

    def _step_generator(self, gradients: Mapping[str, Tensor], counted: bool = False) -> None:
        """Steps past Lightning, which would count the step and update the loss scale once more in a batch.

        Args:
            gradients: By parameter name.
            counted: Whether this is the batch's only step, which Lightning has to count.
        """
        assert self.generator is not None
        optimizer = self._optimizer(1)
        parameters = {name: p for name, p in self.generator.named_parameters() if name in gradients}
        for name, parameter in parameters.items():
            parameter.grad = gradients[name]
        if counted:
            self._scale_up(parameters)
            optimizer.step()
        elif self._usable(gradients):
            optimizer.optimizer.step()
        optimizer.zero_grad()

    def _follow_schedule(self) -> None:
        """Steps the network's schedule; the generator's learning rate follows in proportion."""
        scheduler = self.lr_schedulers()
        if not isinstance(scheduler, ReduceLROnPlateau) and (self._scheduled == "step" or self.trainer.is_last_batch):
            cast(LRScheduler, scheduler).step()
        self._set_generator_rate()

    def _set_generator_rate(self) -> None:
        if self.generator is not None:
            network = self._optimizer(0).optimizer
            factor = network.param_groups[0]["lr"] / network.defaults["lr"]
            self._optimizer(1).param_groups[0]["lr"] = self.generator_lr * factor

    def _observe_labels(self, labels: Tensor, share: float) -> None:
        self.observed["label_entropy"] = -label_entropy(mean_label([labels]))
        self.observed["confidence"] = share * labels.detach().max(1).values.mean()

    def _logs_look_ahead(self, batch_idx: int) -> bool:
        """Whether a batch is the first one at which the generator learns since the last log was due."""
        period = self.generator_every * self.accumulate_batches
        return bool(self.lookahead_every) and batch_idx % self.lookahead_every < period

    def _observe_look_ahead(
        self, before: Mapping[str, Tensor], meta: Part, after: Tensor | None, batch_idx: int
    ) -> None:
        """Keeps the primary loss before and after a step for the log, without drawing random numbers."""
        if after is None or not self._logs_look_ahead(batch_idx):
            return
        with torch.no_grad(), isolate_rng():
            loss = meta.primary_loss(untouched(self.network, meta.batch["image"], point=before))
        self.observed |= {"primary_loss_before": loss, "primary_loss_after": after.detach()}

    def _optimizer(self, number: int) -> LightningOptimizer:
        """That of the network (0) or of the generator (1)."""
        optimizers = self.optimizers()
        return optimizers[number] if isinstance(optimizers, list) else optimizers

    def _scale_up(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Puts the loss scale on the gradients, which the precision plug-in takes off again."""
        if self._scaler is not None:
            for parameter in parameters.values():
                parameter.grad = self._scaler.scale(cast(Tensor, parameter.grad))

    @property
    def _scaler(self) -> torch.amp.GradScaler | None:
        """That of the precision 16-mixed."""
        plugin = self.trainer.precision_plugin
        return plugin.scaler if isinstance(plugin, MixedPrecision) else None

    @property
    def _loss_scale(self) -> float:
        """What losses are multiplied by under 16-mixed; 1 otherwise."""
        return 1.0 if self._scaler is None else self._scaler.get_scale()

    def _usable(self, gradients: Mapping[str, Tensor]) -> bool:
        """Whether no gradient has overflowed, which half precision with a loss scale expects to happen."""
        if self._scaler is None:
            return True
        return bool(torch.stack([gradient.isfinite().all() for gradient in gradients.values()]).all())

    def _forget(self) -> None:
        """Lets go of everything that waits for the next batch."""
        self._inner, self._pending, self._previous = [], None, None

    def _find_clusters(self) -> Clusters:
        """Clusters of all training images, as the loader's data set gives them once."""
        loader = self.trainer.train_dataloader
        if not isinstance(loader, DataLoader):
            raise PriorError("the clusters of kmeans need one training loader")
        with isolate_rng():
            torch.manual_seed(self._seed)
            batches = DataLoader(loader.dataset, 256, num_workers=loader.num_workers, collate_fn=loader.collate_fn)
            clusters = find_clusters(batches, self.sub_classes, self._seed)
        return Clusters(*(those_of_the_first_process(part.to(self.device)) for part in clusters))

    def _check_options(self, temperature: float) -> None:
        """Refuses options that contradict each other.

        Raises:
            PriorError: With the option's name.
        """
        for name in ("generator_every", "accumulate_batches"):
            if getattr(self, name) < 1:
                raise PriorError(f"{name} is at least 1, not {getattr(self, name)}")
        if temperature <= 0:
            raise PriorError(f"temperature is above 0, not {temperature}")
        if not 0 < self.held_out_fraction < 1:
            raise PriorError(f"held_out_fraction is between 0 and 1, not {self.held_out_fraction}")
        if self.method == "unrolled" and self.schedule == "interleaved":
            raise PriorError(
                "method unrolled needs schedule alternating: interleaved looks back at a step already made"
            )
        if self.schedule == "alternating_epochs" and self.meta_batch == "next":
            raise PriorError("schedule alternating_epochs takes meta_batch same or held_out")
        if self.schedule == "alternating_epochs" and self.accumulate_batches > 1:
            raise PriorError("schedule alternating_epochs takes accumulate_batches 1")


def refuse_sharding(strategy: object) -> None:
    """Raises where a strategy takes the network apart.

    Raises:
        PriorError: For FSDP, DeepSpeed and tensor parallelism.

    >>> refuse_sharding(FSDPStrategy())
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: MAXL needs the whole network in each process: strategy ddp, not FSDPStrategy
    """
    if isinstance(strategy, FSDPStrategy | DeepSpeedStrategy | ModelParallelStrategy):
        raise PriorError(f"MAXL needs the whole network in each process: strategy ddp, not {type(strategy).__name__}")
