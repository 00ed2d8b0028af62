"""Technique 6: MAXL. A second network invents the auxiliary labels, so that learning them lowers the primary loss."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_priors.batch import PriorBatch, require
from lightning_priors.errors import PriorError
from lightning_priors.functional.clustering import hashed_uniform
from lightning_priors.functional.generator_update import MetaGradient, generator_gradients, mean_label, shared_cosine
from lightning_priors.functional.hypergradient import InnerStep
from lightning_priors.functional.kept_convolutions import FULL_PRECISION, KeptConvolutions, rounds_convolutions
from lightning_priors.functional.processes import process_count, total_over_processes
from lightning_priors.functional.random_state import RandomState
from lightning_priors.functional.soft_labels import label_entropy, per_class_losses, soft_label_loss
from lightning_priors.functional.update_rules import update_rules
from lightning_priors.nn.classifier import Classifier
from lightning_priors.nn.fixed_labels import FixedLabels, Labels, auxiliary_classes
from lightning_priors.nn.label_generator import Balance, LabelGenerator, TaskOutputs, TwoTasks
from lightning_priors.nn.label_learning import (
    InnerBatch,
    LabelLearner,
    MetaMethod,
    Part,
    halves_of,
    network_gradients,
    part_of,
    untouched,
)
from lightning_priors.techniques.base import PriorStep
from lightning_priors.techniques.manual_optimisation import ManualOptimisation

Schedule = Literal["interleaved", "alternating", "alternating_epochs"]
MetaBatch = Literal["next", "half", "same", "held_out"]
HELD_OUT = 0
"""The seed of the held-out images: the same ones in every run."""


class MAXL(ManualOptimisation):
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
        meta_batch: Where the primary loss is to fall: in the ``next`` batch; in the first ``half`` of it; in the
            ``same``; or in ``held_out`` images of the same batch, which never train the network. With ``half`` a batch
            that judges a step, or whose labels will be judged, is halved: the first half judges the labels before and
            trains the primary task alone, the second trains both tasks, and its labels are judged next. So a generator
            learns from every step without a second backward pass, and at most half a batch of each network is in memory
            at once. Each half has batch statistics of its own. For the schedule ``interleaved``.
        held_out_fraction: Share of the training images that are held out for that.
        generator_every: The generator learns every so many steps of the network.
        method: ``forward_mode``, exact; ``one_convolution``, the same with half of its convolutions and an error of
            about 1e-3, which keeps convolutions as `keep_convolutions` does and is refused on a GPU that rounds them
            to TF32; ``finite_difference``, within some per cent; ``unrolled``, double backward, exact and slow, for
            ``alternating`` schedules.
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
            accumulated. The `meta_batch` ``half`` spares one half of each.
        keep_convolutions: Whether the forward-mode pass takes the results of convolutions from the step's own forward
            pass, a third of its time, and holds them in memory until then; for the schedule ``interleaved``.
        checkpoint_generator: Whether a generator with a network of its own computes its activations again when it
            learns, so that they are not in memory together with the network's, for the time of a forward pass.
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
        keep_convolutions: bool = False,
        checkpoint_generator: bool = False,
        lookahead_every: int = 0,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup_epochs: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(
            num_classes, weights, lr, weight_decay, warmup_epochs, optimizer, scheduler,
            generator_lr, generator_weight_decay, gradient_clip_norm, accumulate_batches,
        )  # fmt: skip
        self.save_hyperparameters(ignore=["optimizer", "scheduler"])
        self.labels, self.schedule, self.meta_batch, self.method = labels, schedule, meta_batch, method
        self.held_out_fraction, self.generator_every = held_out_fraction, generator_every
        self.meta_gradient, self.frozen_preconditioner = meta_gradient, frozen_preconditioner
        self.entropy_weight = entropy_weight if balance == "entropy" else 0.0
        self.gamma, self.aux_weight = 2.0 if loss == "focal" else 0.0, aux_weight
        self.warm_start, self.spare_auxiliary, self.lookahead_every = warm_start, spare_auxiliary, lookahead_every
        self.keep_convolutions = keep_convolutions
        self._check_options(temperature)
        if checkpoint_generator and (labels != "maxl" or generator == "features"):
            raise PriorError("checkpoint_generator needs a generator with a network of its own, such as tiny")
        classes = auxiliary_classes(labels, num_classes, subclasses, aux_num_classes, aux_task)
        self.aux_classes, self.sub_classes = classes
        self.classifier = Classifier(num_classes, backbone)
        features = self.classifier.backbone.num_features
        self.auxiliary_head: nn.Linear | None = None
        self.generator: LabelGenerator | None = None
        with torch.random.fork_rng(devices=[]):  # what is drawn afterwards is the same as without auxiliary labels
            seed = int(torch.randint(2**31, ()))
            if labels != "none":
                self.auxiliary_head = nn.Linear(features, self.aux_classes)
            if labels == "maxl":
                own = {"num_features": features} if generator == "features" else {"backbone": generator}
                self.generator = LabelGenerator(
                    self.sub_classes, balance=balance, temperature=temperature, checkpoint=checkpoint_generator, **own
                )
        kind = "kmeans" if labels == "maxl" else labels  # a generator may be shown the clusters at first
        self._fixed = FixedLabels(kind, self.aux_classes, self.sub_classes, aux_task, seed)
        self.observed: dict[str, Tensor] = {}
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
        """The optimisers and the schedule of the base.

        Raises:
            PriorError: If steps of the network's optimiser cannot be looked through.
        """
        optimizers, schedulers = super().configure_optimizers()
        if self.generator is not None:
            try:
                update_rules(self.network, optimizers[0])
            except (TypeError, ValueError) as error:
                raise PriorError(f"labels maxl: {error}") from error
        return optimizers, schedulers

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the labels that are fixed for the run; they are no buffers, since an average of them means nothing."""
        checkpoint["maxl"] = self._fixed.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the labels that are fixed for the run from the checkpoint."""
        super().on_load_checkpoint(checkpoint)
        self._fixed.load_state_dict(checkpoint["maxl"])

    def on_train_start(self) -> None:
        """Finds the clusters where they are needed, and checks that there is something to learn from.

        Raises:
            PriorError: If an epoch has no next batch, or the device's convolutions do not suit the method.
        """
        if self.method == "one_convolution" and rounds_convolutions(self.device.type):
            raise PriorError(f"method one_convolution needs {FULL_PRECISION}")
        if process_count() > 1 and self.method == "unrolled":
            raise PriorError("method unrolled is for one process; forward_mode gives the same, for any number")
        steps = self.steps_of_an_epoch()
        judged_next = self.generator is not None and self.meta_batch in ("next", "half")
        if judged_next and steps < 2 and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise PriorError("an epoch of one step has no next batch for the generator; set meta_batch to same")
        if "kmeans" in (self.labels, self.warm_start) and self._fixed.clusters is None:
            self._find_clusters()

    def on_train_epoch_start(self) -> None:
        """Epochs begin alike, whether the last one ended just now or in a checkpoint."""
        self._forget()

    def on_train_epoch_end(self) -> None:
        """Lets go of the last step, and does what the base does."""
        self._forget()
        super().on_train_epoch_end()

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
            self.entropy_weight, self.frozen_preconditioner, self.gradient_clip_norm, self.loss_scale,
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
        return self._fixed.of(batch).to(torch.promote_types(self.classifier.head.weight.dtype, torch.float32))

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
            self.follow_schedule()
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
        if self.meta_batch != "half" or not (self._pending is not None or self._due(batch_idx)):
            return self._train_images(train, meta, batch_idx)
        meta, weight, rest = halves_of(train.batch)
        first, step = self._judge(meta, weight, batch_idx), self._train_images(rest, meta, batch_idx)
        terms = step.terms | {"primary": step.terms["primary"] + first.loss}
        logits = torch.cat([first.logits, step.logits])[: len(train.batch["label"])]  # of one image both parts are it
        return PriorStep(step.loss + first.loss, logits, terms)

    def _judge(self, meta: Part, weight: float, batch_idx: int) -> PriorStep:
        """Trains the primary task, with a weight, on images that also tell what the last step was worth."""
        outputs = self.network(meta.batch["image"])
        primary = meta.primary_loss(outputs)
        gradients = network_gradients(primary, self.network, self.loss_scale)
        if self._pending is not None:
            (inner, passed), self._pending = self._pending, None
            self._look_back(inner, passed, gradients, meta, primary, batch_idx)
        for gradient in gradients.values():
            gradient *= weight  # in place: nothing as large as the network stays for the other half
        self.add_gradients(gradients)
        return PriorStep(weight * primary.detach(), outputs.logits.detach(), {})

    def _train_images(self, train: Part, meta: Part, batch_idx: int) -> PriorStep:
        """What is left of a batch, in general all of it, and the step that it ends in."""
        due = self._due(batch_idx)
        state = RandomState(self.device) if due and self.schedule == "interleaved" else None
        keeps = self.keep_convolutions or self.method == "one_convolution"
        kept = KeptConvolutions() if state is not None and keeps else None
        with kept or contextlib.nullcontext():
            outputs = self.network(train.batch["image"])
        primary, v, spared = train.primary_loss(outputs), None, False
        if self._pending is not None:
            (inner, passed), self._pending = self._pending, None
            spared = self.spare_auxiliary and not due and self.accumulate_batches == 1
            graph_needed = not spared or self._logs_look_ahead(batch_idx)
            v = network_gradients(primary, self.network, self.loss_scale, retain_graph=graph_needed)
            self._look_back(inner, passed, v, train, primary, batch_idx)
        if self.auxiliary_head is None or (spared and not self._logs_look_ahead(batch_idx)):
            step = PriorStep(primary, outputs.logits, {} if self.auxiliary_head is None else {"primary": primary})
        else:
            labels = self._labels(train, outputs, state, kept)
            auxiliary = self._auxiliary_loss(outputs, labels, train.share * train.weight)
            step = PriorStep(primary + auxiliary, outputs.logits, {"primary": primary, "auxiliary": auxiliary})
            if self.meta_batch == "half" and self._logs_look_ahead(batch_idx):  # training needs their sum alone
                parts = [network_gradients(loss, self.network, self.loss_scale, True) for loss in (primary, auxiliary)]
                self.observed["cosine"] = shared_cosine(*parts)
        self._add_gradients(step, v, spared)
        if self.ends_step(batch_idx):
            self._end_step(train, meta, batch_idx)
        return step

    def _end_step(self, train: Part, meta: Part, batch_idx: int) -> None:
        """The network's step, and what can follow from it at once."""
        inner, self._inner = self._inner, []
        passed = self._made_step(capture=bool(inner))
        if passed is not None and self.meta_batch in ("next", "half"):
            self._pending = inner, passed
        elif passed is not None:
            v, after = self.learner.primary_gradient(meta)
            self._look_back(inner, passed, v, meta, after, batch_idx)
        if self.schedule == "alternating" and self._due(batch_idx):
            if self.meta_batch == "next":
                self._previous = train
            else:
                self._look_ahead(train, meta, batch_idx)
        self.follow_schedule()

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

    def _labels(
        self, train: Part, outputs: TaskOutputs, state: RandomState | None, kept: KeptConvolutions | None
    ) -> Tensor:
        """The labels (B, A) for training; those of a step that the generator learns from are kept with their graph."""
        if self.generator is None:
            labels = self.fixed_labels(train.batch)
        else:
            with torch.set_grad_enabled(state is not None or self._warming):
                logits, labels = self.learner.generated(train.batch, outputs.features)
            if state is not None:
                self._inner.append(InnerBatch(train, state, logits, labels, kept))
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
            gradients = network_gradients(step.loss, self.network, self.loss_scale) if primary is None else primary
        else:
            gradients = network_gradients(auxiliary, self.network, self.loss_scale)
            self.observed["cosine"] = shared_cosine(primary, gradients)
            if spared:  # it was computed for the log alone
                gradients = {}
            for name, gradient in primary.items():
                gradients[name] = gradients[name] + gradient if name in gradients else gradient
        self.add_gradients(gradients)

    def _made_step(self, capture: bool) -> InnerStep | None:
        """Clips and steps; gives the step to look back at, if so wanted and no gradient has overflowed."""
        (gradients, factor), step = self.clipped_gradients(), None
        if capture and self.usable(gradients):
            step = InnerStep(self.network, self.network_optimizer, gradients, factor, self.frozen_preconditioner)
        self.step_network()
        return step

    def _look_back(
        self, inner: list[InnerBatch], step: InnerStep, v: dict[str, Tensor], meta: Part, after: Tensor, batch_idx: int
    ) -> None:
        """Has the generator learn from a step that was made, the primary gradient after it being `v`."""
        lesson = self.learner.look_back(inner, step, v)
        self.observed |= lesson.norms
        self._observe_look_ahead(step.parameters, meta, after, batch_idx)
        self.step_generator(lesson.gradients)

    def _look_ahead(self, train: Part, meta: Part, batch_idx: int, counted: bool = False) -> PriorStep:
        """Has the generator learn from a step that is not made, from where training has got to."""
        ahead = self.learner.look_ahead(train, meta, self.network_optimizer)
        self.observed |= ahead.lesson.norms
        self._observe_labels(ahead.labels, train.share)
        self._observe_look_ahead({}, meta, ahead.after, batch_idx)
        self.step_generator(ahead.lesson.gradients, counted)
        terms = {"primary": ahead.primary, "auxiliary": ahead.auxiliary}
        return PriorStep(ahead.primary + ahead.auxiliary, ahead.outputs.logits, terms)

    def _show_clusters(self, batch: PriorBatch, logits: Tensor, labels: Tensor) -> Tensor:
        """Has the generator learn the clusters; gives them."""
        assert self.generator is not None
        clusters = self.fixed_labels(batch)
        loss = -(clusters * labels.clamp(min=1e-12).log()).sum(1).mean()
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        self.step_generator(generator_gradients(self.generator, [logits], [gradient], self.loss_scale))
        return clusters

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

    def _forget(self) -> None:
        """Lets go of everything that waits for the next batch."""
        self._inner, self._pending, self._previous = [], None, None

    def _find_clusters(self) -> None:
        """Finds the clusters of all training images, as the loader's data set gives them once."""
        loader = self.trainer.train_dataloader
        if not isinstance(loader, DataLoader):
            raise PriorError("the clusters of kmeans need one training loader")
        with isolate_rng():
            torch.manual_seed(self._fixed.seed)
            batches = DataLoader(loader.dataset, 256, num_workers=loader.num_workers, collate_fn=loader.collate_fn)
            self._fixed.find(batches, self.device)

    def _check_options(self, temperature: float) -> None:
        """Refuses options that contradict each other, and says their names."""
        for name in ("generator_every", "accumulate_batches"):
            if getattr(self, name) < 1:
                raise PriorError(f"{name} is at least 1, not {getattr(self, name)}")
        if temperature <= 0:
            raise PriorError(f"temperature is above 0, not {temperature}")
        if not 0 < self.held_out_fraction < 1:
            raise PriorError(f"held_out_fraction is between 0 and 1, not {self.held_out_fraction}")
        self._check_schedule()

    def _check_schedule(self) -> None:
        """Refuses options that the schedule has no use for."""
        if self.method == "unrolled" and self.schedule == "interleaved":
            raise PriorError(
                "method unrolled needs schedule alternating: interleaved looks back at a step already made"
            )
        if self.meta_batch == "half" and self.schedule != "interleaved":
            raise PriorError("meta_batch half needs schedule interleaved, in which it saves a pass")
        if self.schedule == "alternating_epochs" and self.meta_batch == "next":
            raise PriorError("schedule alternating_epochs takes meta_batch same or held_out")
        if self.schedule == "alternating_epochs" and self.accumulate_batches > 1:
            raise PriorError("schedule alternating_epochs takes accumulate_batches 1")
        if self.method == "one_convolution" and self.schedule != "interleaved":
            raise PriorError("method one_convolution needs schedule interleaved, whose steps keep their convolutions")
        if self.keep_convolutions and (self.schedule != "interleaved" or self.method != "forward_mode"):
            raise PriorError("keep_convolutions needs schedule interleaved and method forward_mode")
