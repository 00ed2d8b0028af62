"""Training a network and a label generator by hand under Lightning: the base of MAXL and of its published form."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import Metric

from lightning_priors.batch import PriorBatch
from lightning_priors.errors import PriorError
from lightning_priors.functional.distributed import mean_gradients_over_ranks
from lightning_priors.hypergradient import call_at, clip_by_norm, named_gradients, update_rules
from lightning_priors.nn import Classifier
from lightning_priors.priors import Prior, PriorStep, attach_priors, needed_in_evaluation, see, step_from
from lightning_priors.ranges import check_counts, check_not_negative, check_positive
from lightning_priors.techniques.base import PriorModule
from lightning_priors.techniques.maxl.label_generator import Balance, LabelGenerator, TaskOutputs, TwoTasks
from lightning_priors.techniques.maxl.label_learner import LabelLearner, PartOfBatch
from lightning_priors.techniques.maxl.meta_gradient import mean_label, shared_cosine
from lightning_priors.techniques.maxl.soft_labels import hierarchy, label_entropy
from lightning_priors.techniques.optimisation import PLAIN, Tuning


class TwoNetworks(PriorModule):
    """Base of a technique that steps a network and its label generator with gradients that it computes itself.

    A subclass sets `learner`, and in its training step calls `add_gradients` for each batch, `step_network` and
    `follow_schedule` where `ends_step` says so, and `step_generator` when it likes. Lightning counts the steps of the
    network alone. Both networks' learning rates follow the same schedule.

    Args:
        num_classes: Number of classes K of the primary task.
        subclasses: psi, into how many sub-classes each class is split: one number, or one for each class.
        backbone: A timm model name, or ``tiny``.
        weights: ``none``, ``imagenet``, or the path of a checkpoint; for the network, not for the generator.
        generator: ``features``, a head on the network's features, or the name of a network of its own.
        balance: As in `LabelGenerator`.
        temperature: Of the generated labels.
        generator_lr: Learning rate of the generator's optimiser, Adam.
        generator_weight_decay: Its weight decay.
        priors: Of the network, whose primary loss they are part of.
        aux_num_classes: Number of classes of each auxiliary task of the data, for priors that need them.
        gradient_clip_norm: Greatest norm of the network's gradient; None leaves it alone.
        accumulate_batches: Batches for each step of the network.
        lr: As in `PriorModule`, as are the options that follow.
        weight_decay: As in `PriorModule`.
        warmup_epochs: As in `PriorModule`.
        optimizer: As in `PriorModule`; SGD, Adam or AdamW of torch.
        scheduler: As in `PriorModule`.
        tuning: As in `PriorModule`.
        extra_metrics: As in `PriorModule`.

    Raises:
        PriorError: If a number is out of its range.
    """

    learner: LabelLearner
    """How the generator learns."""

    def __init__(
        self,
        *,
        num_classes: int,
        subclasses: int | Sequence[int],
        backbone: str,
        weights: str,
        generator: str,
        balance: Balance,
        temperature: float,
        generator_lr: float,
        generator_weight_decay: float,
        priors: Sequence[Prior] = (),
        aux_num_classes: Sequence[int] = (),
        gradient_clip_norm: float | None = None,
        accumulate_batches: int = 1,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup_epochs: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        tuning: Tuning = PLAIN,
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
        self.automatic_optimization = False
        check_counts({"accumulate_batches": accumulate_batches})
        check_positive({"temperature": temperature})
        check_positive({"gradient_clip_norm": gradient_clip_norm})
        check_not_negative({"generator_lr": generator_lr, "generator_weight_decay": generator_weight_decay})
        self.generator_lr, self.generator_weight_decay = generator_lr, generator_weight_decay
        self.gradient_clip_norm, self.accumulate_batches = gradient_clip_norm, accumulate_batches
        self.sub_classes = hierarchy(subclasses if isinstance(subclasses, int) else list(subclasses), num_classes)
        classifier = Classifier(num_classes, backbone)
        classifier.backbone.start_from(weights)
        own = {"num_features": classifier.backbone.num_features} if generator == "features" else {"backbone": generator}
        with torch.random.fork_rng(devices=[]):  # what is drawn afterwards is the same as without auxiliary labels
            self.network = TwoTasks(classifier, sum(self.sub_classes), priors)
            self.generator = LabelGenerator(self.sub_classes, balance=balance, temperature=temperature, **own)
        attach_priors(self.network.acting(), classifier, aux_num_classes)
        self._interval = "step"

    @property
    def classifier(self) -> Classifier:
        """The whole network at inference."""
        return self.network.classifier

    def trained_network(self) -> nn.Module:
        """Gives the network with both heads and its priors; the generator has an optimiser of its own."""
        return self.network

    def priors_in_use(self) -> list[Prior]:
        """Lists the priors of the network."""
        return self.network.acting()

    def drop_training_parts(self) -> None:
        """Drops the generator, the auxiliary head and the priors that do nothing without a batch."""
        super().drop_training_parts()
        self.network.priors = nn.ModuleList(needed_in_evaluation(self.priors_in_use()))
        self.network.auxiliary = nn.Identity()  # type: ignore[assignment]  # never called again
        del self.generator, self.learner

    # ---- what both techniques compute

    def explain(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Classifies images (B, 3, H, W) to logits (B, K) and class activation maps (B, K, h, w)."""
        seen = see(self.classifier, self.network.acting(), image)
        return seen.logits, seen.cam

    def auxiliary_labels(self, batch: PriorBatch) -> Tensor:
        """Has the generator label images.

        Args:
            batch: Images with their primary classes.

        Returns:
            (B, A) float32 or float64, without a graph. No buffer is changed.
        """
        with torch.no_grad():
            inputs = batch["image"]
            if self.generator.backbone is None:
                inputs = call_at(self.network, (batch, True)).seen.features
            labels: Tensor = call_at(self.generator, (inputs, batch["label"]))
            return labels

    def gradient_cosine(self, batch: PriorBatch) -> Tensor:
        """Compares the gradients of the primary cross entropy and of the auxiliary loss, also in inference mode.

        Args:
            batch: Images with their primary classes, which the priors see alone.

        Returns:
            () the cosine on the parameters that both tasks share; 1 where the auxiliary task is the primary one once
            more. No buffer is changed.
        """
        with torch.inference_mode(False), torch.enable_grad():
            known = cast(PriorBatch, {"image": batch["image"].clone(), "label": batch["label"].clone()})
            outputs = call_at(self.network, (known, True))
            labels = self.auxiliary_labels(known)
            losses = (
                F.cross_entropy(outputs.seen.logits, known["label"]),
                self.learner.auxiliary_loss(outputs, labels, PartOfBatch(known)),
            )
            parameters = dict(self.network.named_parameters())
            return shared_cosine(*(named_gradients(loss, parameters, None, True) for loss in losses))

    def step(self, batch: PriorBatch) -> PriorStep:
        """Computes the loss of a batch with generated labels; training does more."""
        part, outputs = PartOfBatch(batch), self.network(batch)
        return self.with_auxiliary(self.primary_step(part, outputs), part, outputs, self.auxiliary_labels(batch))

    def primary_step(self, part: PartOfBatch, outputs: TaskOutputs) -> PriorStep:
        """Computes the weighted loss of the primary task, with the terms of the priors."""
        step = step_from(outputs.seen, self.network.acting(), part.batch, self.epochs_done)
        terms = {name: part.weight * term for name, term in (step.terms or {"primary": step.loss}).items()}
        return step._replace(loss=part.weight * step.loss, terms=terms)

    def with_auxiliary(self, primary: PriorStep, part: PartOfBatch, outputs: TaskOutputs, labels: Tensor) -> PriorStep:
        """Adds the loss of the auxiliary task on labels (B, A) to a step, and what is logged of the labels."""
        auxiliary = self.learner.auxiliary_loss(outputs, labels.detach(), part)
        logged = {
            "label_entropy": -label_entropy(mean_label([labels])),
            "confidence": labels.detach().max(1).values.mean(),
        }
        terms = primary.terms | {"auxiliary": auxiliary}
        return PriorStep(primary.loss + auxiliary, primary.logits, terms, {**primary.logged, **logged})

    def gradients(self, loss: Tensor, retain_graph: bool = False) -> dict[str, Tensor]:
        """Computes the gradient of a loss () on the network by parameter name, the mean over all ranks.

        Args:
            loss: Of this rank.
            retain_graph: Whether another loss will be differentiated through the same forward pass.
        """
        found = named_gradients(loss * self.loss_scale, dict(self.network.named_parameters()), None, retain_graph)
        return mean_gradients_over_ranks(self.unscaled(found))

    def unscaled(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Takes the loss scale off gradients."""
        scale = self.loss_scale
        return dict(gradients) if scale == 1 else {name: gradient / scale for name, gradient in gradients.items()}

    # ---- optimisers, schedules and steps

    def configure_optimizers(self) -> Any:
        """Builds the optimiser and the schedule of `PriorModule` for the network, and Adam for the generator.

        Raises:
            PriorError: If steps of the network's optimiser cannot be looked through.
        """
        chosen = cast(dict[str, Any], super().configure_optimizers())
        optimizer, schedule = chosen["optimizer"], chosen["lr_scheduler"]
        try:
            update_rules(self.network, optimizer)
        except (TypeError, ValueError) as error:
            raise PriorError(f"{type(self).__name__}: {error}") from error
        self._interval = schedule["interval"]
        adam = torch.optim.Adam(
            self.generator.parameters(), lr=self.generator_lr, weight_decay=self.generator_weight_decay, fused=True
        )
        return [optimizer, adam], [{"scheduler": schedule["scheduler"], "interval": self._interval}]

    def schedule_lengths(self) -> tuple[float, float]:
        """Counts the optimiser steps of the warm-up and of the whole training, of several batches each if so asked."""
        warmup, total = super().schedule_lengths()
        if self.accumulate_batches > 1:
            self.trainer.fit_loop.setup_data()
            epochs, most = self.trainer.max_epochs, self.trainer.max_steps
            limits = [self.steps_of_an_epoch() * epochs] if epochs is not None and epochs > 0 else []
            total = min(limits + ([most] if most >= 0 else []), default=math.inf)
        return warmup / self.accumulate_batches, total

    def steps_of_an_epoch(self) -> float:
        """Counts the steps of the network in an epoch, the last one perhaps of fewer batches; may be infinite."""
        steps = self.trainer.num_training_batches / self.accumulate_batches
        return steps if math.isinf(steps) else math.ceil(steps)

    def configure_callbacks(self) -> list[Callback]:
        """Refuses what Lightning would refuse later without naming the option to use instead.

        Raises:
            PriorError: If the Trainer shall do what manual optimisation does itself, or shards the network.
        """
        trainer, name = self.trainer, type(self).__name__
        if trainer.gradient_clip_val:
            raise PriorError(f"{name} clips by itself: set model.gradient_clip_norm, not trainer.gradient_clip_val")
        if trainer.accumulate_grad_batches != 1:
            raise PriorError(
                f"{name} accumulates by itself: set model.accumulate_batches, not trainer.accumulate_grad_batches"
            )
        refuse_sharding(trainer.strategy, by=name)
        return super().configure_callbacks()

    def on_train_epoch_end(self) -> None:
        """Steps a schedule that follows the validation loss.

        Raises:
            PriorError: If there was no validation.
        """
        super().on_train_epoch_end()
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, ReduceLROnPlateau):
            if "val/loss" not in self.trainer.callback_metrics:
                raise PriorError("the schedule follows val/loss, but there was no validation")
            scheduler.step(self.trainer.callback_metrics["val/loss"])
            self._set_generator_rate()

    def ends_step(self, batch_idx: int) -> bool:
        """Tells whether the network is stepped after the batch of this number."""
        return (batch_idx + 1) % self.accumulate_batches == 0 or self.trainer.is_last_batch

    def add_gradients(self, gradients: Mapping[str, Tensor]) -> None:
        """Adds the gradients of a batch, by the network's parameter names, to those of the step."""
        for name, parameter in self.network.named_parameters():
            if name in gradients:
                part = gradients[name] / self.accumulate_batches if self.accumulate_batches > 1 else gradients[name]
                parameter.grad = part if parameter.grad is None else parameter.grad + part

    def clipped_gradients(self) -> tuple[dict[str, Tensor], Tensor | None]:
        """Clips the gradients of the step.

        Returns:
            They by the network's parameter names, and what they were multiplied by, if they may have been.
        """
        gradients = {name: p.grad for name, p in self.network.named_parameters() if p.grad is not None}
        if self.gradient_clip_norm is None:
            return gradients, None
        gradients, factor = clip_by_norm(gradients, self.gradient_clip_norm)
        for name, parameter in self.network.named_parameters():
            parameter.grad = gradients.get(name)
        return gradients, factor

    def step_network(self) -> None:
        """Steps as Lightning wants it, which counts the step and, under 16-mixed, updates the loss scale."""
        optimizer = self._optimizer(0)
        self.tell_priors_of_step(optimizer.optimizer)
        if self._scaler is not None:  # Lightning's precision plug-in takes the loss scale off again
            for parameter in self.network.parameters():
                if parameter.grad is not None:
                    parameter.grad = self._scaler.scale(parameter.grad)
        optimizer.step()
        optimizer.zero_grad()

    def step_generator(self, gradients: Mapping[str, Tensor]) -> None:
        """Steps past Lightning, which would count the step and update the loss scale once more in a batch."""
        optimizer = self._optimizer(1)
        for name, parameter in self.generator.named_parameters():
            if name in gradients:
                parameter.grad = gradients[name]
        if self.usable(gradients):
            optimizer.optimizer.step()
        optimizer.zero_grad()

    def follow_schedule(self) -> None:
        """Steps the network's schedule; the generator's learning rate follows in proportion."""
        scheduler = self.lr_schedulers()
        if not isinstance(scheduler, ReduceLROnPlateau) and (self._interval == "step" or self.trainer.is_last_batch):
            cast(LRScheduler, scheduler).step()
        self._set_generator_rate()

    @property
    def network_optimizer(self) -> torch.optim.Optimizer:
        """That of the network, without Lightning around it."""
        return self._optimizer(0).optimizer

    @property
    def loss_scale(self) -> float:
        """What losses are multiplied by under 16-mixed; 1 otherwise."""
        return 1.0 if self._scaler is None else self._scaler.get_scale()

    def usable(self, gradients: Mapping[str, Tensor]) -> bool:
        """Tells whether no gradient has overflowed, which half precision with a loss scale expects to happen."""
        if self._scaler is None:
            return True
        return bool(torch.stack([gradient.isfinite().all() for gradient in gradients.values()]).all())

    def _set_generator_rate(self) -> None:
        factor = self.network_optimizer.param_groups[0]["lr"] / self.network_optimizer.defaults["lr"]
        self._optimizer(1).param_groups[0]["lr"] = self.generator_lr * factor

    def _optimizer(self, number: int) -> LightningOptimizer:
        """That of the network (0) or of the generator (1)."""
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        return optimizers[number]

    @property
    def _scaler(self) -> torch.amp.GradScaler | None:
        """That of the precision 16-mixed."""
        plugin = self.trainer.precision_plugin
        return plugin.scaler if isinstance(plugin, MixedPrecision) else None


def refuse_sharding(strategy: object, by: str) -> None:
    """Raises where a strategy takes the network apart.

    Args:
        strategy: The Trainer's.
        by: The name of the technique that needs the whole network.

    Raises:
        PriorError: For FSDP, DeepSpeed and tensor parallelism.

    >>> refuse_sharding(FSDPStrategy(), by="MAXL")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: MAXL needs the whole network on each rank: strategy ddp, not FSDPStrategy
    """
    if isinstance(strategy, FSDPStrategy | DeepSpeedStrategy | ModelParallelStrategy):
        raise PriorError(f"{by} needs the whole network on each rank: strategy ddp, not {type(strategy).__name__}")
