"""Training two networks by hand under Lightning: steps, loss scale, schedules, clipping and accumulation."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, cast

import torch
from lightning.pytorch import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lightning_priors.errors import PriorError
from lightning_priors.nn.label_learning import clip
from lightning_priors.techniques.base import PriorModule


class ManualOptimisation(PriorModule):
    """Base of a technique that steps a network, and beside it a generator, with gradients that it computes itself.

    A subclass sets `generator`, gives `network`, and in its training step calls `add_gradients` for each batch,
    `step_network` and `follow_schedule` where `ends_step` says so, and `step_generator` when it likes. Lightning counts
    the steps of the network alone.

    Args:
        num_classes: Number of classes K of the primary task.
        weights: As in `PriorModule`.
        lr: As in `PriorModule`, of the network.
        weight_decay: As in `PriorModule`, of the network.
        warmup_epochs: As in `PriorModule`.
        optimizer: As in `PriorModule`, for the network.
        scheduler: As in `PriorModule`; the generator's learning rate follows in proportion.
        generator_lr: Learning rate of the generator's optimiser, Adam.
        generator_weight_decay: Its weight decay.
        gradient_clip_norm: Greatest norm of the network's gradient; None leaves it alone.
        accumulate_batches: Batches for each step of the network.
    """

    generator: nn.Module | None
    """The second network, or None where there is only one."""

    def __init__(
        self,
        num_classes: int,
        weights: str,
        lr: float,
        weight_decay: float,
        warmup_epochs: float,
        optimizer: OptimizerCallable | None,
        scheduler: LRSchedulerCallable | None,
        generator_lr: float,
        generator_weight_decay: float,
        gradient_clip_norm: float | None,
        accumulate_batches: int,
    ) -> None:
        super().__init__(num_classes, weights, lr, weight_decay, warmup_epochs, optimizer, scheduler)
        self.automatic_optimization = False
        self.generator_lr, self.generator_weight_decay = generator_lr, generator_weight_decay
        self.gradient_clip_norm, self.accumulate_batches = gradient_clip_norm, accumulate_batches
        self._scheduled = "step"

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The network that is trained, with all of its heads."""

    def configure_optimizers(self) -> Any:
        """The optimiser and the schedule of `PriorModule` for the network, and Adam for the generator."""
        chosen = cast(dict[str, Any], super().configure_optimizers())
        optimizer, scheduler = chosen["optimizer"], chosen["lr_scheduler"]["scheduler"]
        self._scheduled = chosen["lr_scheduler"].get("interval", "epoch")
        optimizers = [optimizer]
        if self.generator is not None:
            parameters, decay = self.generator.parameters(), self.generator_weight_decay
            optimizers.append(torch.optim.Adam(parameters, lr=self.generator_lr, weight_decay=decay, fused=True))
        return optimizers, [{"scheduler": scheduler, "interval": self._scheduled}]

    def schedule_lengths(self) -> tuple[float, float]:
        """Optimiser steps of the warm-up and of the whole training, of several batches each where so asked for."""
        warmup, total = super().schedule_lengths()
        if self.accumulate_batches > 1:
            self.trainer.fit_loop.setup_data()
            epochs, most = self.trainer.max_epochs, self.trainer.max_steps
            limits = [self.steps_of_an_epoch() * epochs] if epochs is not None and epochs > 0 else []
            total = min(limits + ([most] if most >= 0 else []), default=math.inf)
        return warmup / self.accumulate_batches, total

    def steps_of_an_epoch(self) -> float:
        """How many steps of the network an epoch has, the last one perhaps of fewer batches; it may be infinite."""
        steps = self.trainer.num_training_batches / self.accumulate_batches
        return steps if math.isinf(steps) else math.ceil(steps)

    def configure_callbacks(self) -> list[Callback]:
        """Refuses what would be refused later, and without naming the option to use instead.

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
        return []

    def on_train_epoch_end(self) -> None:
        """Steps a schedule that follows the validation loss.

        Raises:
            PriorError: If there was no validation.
        """
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, ReduceLROnPlateau):
            if "val/loss" not in self.trainer.callback_metrics:
                raise PriorError("the schedule follows val/loss, but there was no validation")
            scheduler.step(self.trainer.callback_metrics["val/loss"])
            self._set_generator_rate()

    def ends_step(self, batch_idx: int) -> bool:
        """Whether the network is stepped after a batch of this number."""
        return (batch_idx + 1) % self.accumulate_batches == 0 or self.trainer.is_last_batch

    def add_gradients(self, gradients: Mapping[str, Tensor]) -> None:
        """Adds the gradients of a batch, by the network's parameter names, to those of the step."""
        for name, parameter in self.network.named_parameters():
            if name in gradients:
                part = gradients[name] / self.accumulate_batches if self.accumulate_batches > 1 else gradients[name]
                parameter.grad = part if parameter.grad is None else parameter.grad + part

    def clipped_gradients(self) -> tuple[dict[str, Tensor], Tensor | None]:
        """The gradients of the step, clipped in place.

        Returns:
            They by the network's parameter names, and what they were multiplied by, if they may have been.
        """
        gradients = {name: p.grad for name, p in self.network.named_parameters() if p.grad is not None}
        return gradients, clip(gradients, self.gradient_clip_norm)

    def step_network(self) -> None:
        """Steps as Lightning wants it, which counts the step and, under 16-mixed, updates the loss scale."""
        optimizer = self._optimizer(0)
        self._step_through_lightning(optimizer, self.network)
        optimizer.zero_grad()

    def step_generator(self, gradients: Mapping[str, Tensor], counted: bool = False) -> None:
        """Steps past Lightning, which would count the step and update the loss scale once more in a batch.

        Args:
            gradients: By parameter name.
            counted: Whether this is the batch's only step, which Lightning has to count.
        """
        assert self.generator is not None
        optimizer = self._optimizer(1)
        for name, parameter in self.generator.named_parameters():
            if name in gradients:
                parameter.grad = gradients[name]
        if counted:
            self._step_through_lightning(optimizer, self.generator)
        elif self.usable(gradients):
            optimizer.optimizer.step()
        optimizer.zero_grad()

    def follow_schedule(self) -> None:
        """Steps the network's schedule; the generator's learning rate follows in proportion."""
        scheduler = self.lr_schedulers()
        if not isinstance(scheduler, ReduceLROnPlateau) and (self._scheduled == "step" or self.trainer.is_last_batch):
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
        """Whether no gradient has overflowed, which half precision with a loss scale expects to happen."""
        if self._scaler is None:
            return True
        return bool(torch.stack([gradient.isfinite().all() for gradient in gradients.values()]).all())

    def _step_through_lightning(self, optimizer: LightningOptimizer, network: nn.Module) -> None:
        """Puts the loss scale on the gradients, which the precision plug-in takes off again, and steps."""
        if self._scaler is not None:
            for parameter in network.parameters():
                if parameter.grad is not None:
                    parameter.grad = self._scaler.scale(parameter.grad)
        optimizer.step()

    def _set_generator_rate(self) -> None:
        if self.generator is not None:
            factor = self.network_optimizer.param_groups[0]["lr"] / self.network_optimizer.defaults["lr"]
            self._optimizer(1).param_groups[0]["lr"] = self.generator_lr * factor

    def _optimizer(self, number: int) -> LightningOptimizer:
        """That of the network (0) or of the generator (1)."""
        optimizers = self.optimizers()
        return optimizers[number] if isinstance(optimizers, list) else optimizers

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
    lightning_priors.errors.PriorError: MAXL needs the whole network in each process: strategy ddp, not FSDPStrategy
    """
    if isinstance(strategy, FSDPStrategy | DeepSpeedStrategy | ModelParallelStrategy):
        raise PriorError(f"{by} needs the whole network in each process: strategy ddp, not {type(strategy).__name__}")
