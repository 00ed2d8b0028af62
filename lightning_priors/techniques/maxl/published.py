"""MAXL as published: after each step of the network a pass of its own looks ahead and trains the generator."""

from collections.abc import Mapping
from typing import Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torchmetrics import Metric

from lightning_priors.batch import PriorBatch
from lightning_priors.errors import PriorError
from lightning_priors.functional.distributed import mean_gradients_over_ranks, world_size
from lightning_priors.hypergradient import (
    InnerStep,
    RandomState,
    call_at,
    named_gradients,
    stepped_parameters,
    unrolled_label_gradient,
)
from lightning_priors.ranges import check_not_negative
from lightning_priors.techniques.maxl.label_generator import TaskOutputs
from lightning_priors.techniques.maxl.label_learner import LabelLearner, LabelledPart, PartOfBatch
from lightning_priors.techniques.maxl.two_networks import TwoNetworks
from lightning_priors.techniques.optimisation import PLAIN, Tuning


class PublishedMAXL(TwoNetworks):
    """Trains MAXL in the way of its paper (Liu, Davison and Johns 2019), as the baseline that `MAXL` is compared with.

    After each step of the network the generator looks ahead at the next step on the same batch, which is not made: by
    double backward, or by a central difference as in the authors' first-order code. The guard against collapse is the
    entropy of the mean label, and the meta-gradient is not scaled. (The authors alternate after epochs, not after
    steps; their central difference is taken of the gradient, and gives the same number.)

    Args:
        num_classes: Number of classes K of the primary task.
        subclasses: psi, into how many sub-classes each class is split: one number, or one for each class.
        backbone: A timm model name, or ``tiny``.
        weights: ``none``, ``imagenet``, or the path of a checkpoint; for the network, not for the generator.
        generator: ``features``, a head on the network's features, or the name of a network of its own.
        method: ``unrolled``, double backward, exact, for one rank; or ``first_order``, a central difference.
        entropy_weight: Weight of the negative entropy of the mean label.
        loss: Of the auxiliary task: ``focal`` or ``cross_entropy``.
        aux_weight: Weight of the auxiliary loss.
        generator_lr: Learning rate of the generator's optimiser, Adam.
        generator_weight_decay: Its weight decay.
        tuning: How pretrained weights are tuned.
        lr: Learning rate of the default optimiser, AdamW.
        weight_decay: Weight decay of the default optimiser.
        warmup_epochs: Linear warm-up of the learning rate before its cosine, in epochs.
        optimizer: Replaces the default optimiser; SGD, Adam or AdamW of torch.
        scheduler: Replaces the default schedule, for both networks.
        extra_metrics: Further metrics by name.

    Raises:
        PriorError: If a number is out of its range.

    >>> PublishedMAXL(num_classes=2, subclasses=[3, 2]).sub_classes
    [3, 2]
    """

    def __init__(
        self,
        *,
        num_classes: int = 2,
        subclasses: int | list[int] = 5,
        backbone: str = "tiny",
        weights: str = "none",
        generator: str = "tiny",
        method: Literal["unrolled", "first_order"] = "unrolled",
        entropy_weight: float = 0.2,
        loss: Literal["focal", "cross_entropy"] = "focal",
        aux_weight: float = 1.0,
        generator_lr: float = 1e-3,
        generator_weight_decay: float = 5e-4,
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
            subclasses=subclasses,
            backbone=backbone,
            weights=weights,
            generator=generator,
            balance="entropy",
            temperature=1.0,
            generator_lr=generator_lr,
            generator_weight_decay=generator_weight_decay,
            lr=lr,
            weight_decay=weight_decay,
            warmup_epochs=warmup_epochs,
            optimizer=optimizer,
            scheduler=scheduler,
            tuning=tuning,
            extra_metrics=extra_metrics,
        )
        self.save_hyperparameters()
        check_not_negative({"aux_weight": aux_weight, "entropy_weight": entropy_weight})
        self.method = method
        self.learner = LabelLearner(
            self.generator,
            gamma=2.0 if loss == "focal" else 0.0,
            aux_weight=aux_weight,
            meta_gradient="raw",
            entropy_weight=entropy_weight,
            method="finite_difference",
        )

    def on_train_start(self) -> None:
        """Refuses double backward on several ranks.

        Raises:
            PriorError: If there are several.
        """
        super().on_train_start()
        if world_size() > 1 and self.method == "unrolled":
            raise PriorError("PublishedMAXL: method unrolled is for one rank; first_order works on several")

    def training_step(self, batch: PriorBatch, batch_idx: int) -> Tensor:
        """Makes a step of the network, and from there one of the generator."""
        self.begin_step(batch, batch_idx)
        part, outputs = PartOfBatch(batch), self.network(batch)
        with torch.no_grad():
            _, labels = self.learner.generated(batch, outputs.seen.features)
        step = self.with_auxiliary(self.primary_step(part, outputs), part, outputs, labels)
        self.add_gradients(self.gradients(step.loss))
        self.step_network()
        step = step._replace(logged={**step.logged, **self.look_ahead(part)})
        self.follow_schedule()
        self.log_step(step, batch)
        return step.loss.detach()

    def look_ahead(self, part: PartOfBatch) -> dict[str, Tensor]:
        """Has the generator learn from a step that is not made; no buffer is changed.

        Args:
            part: The images that the step would be made with, and on which the primary loss is to fall.

        Returns:
            What is logged of it.
        """
        state = RandomState(self.device)
        outputs = call_at(self.network, (part.batch,))
        logits, labels = self.learner.generated(part.batch, outputs.seen.features)
        labelled = LabelledPart(part, state, logits, labels)
        if self.method == "unrolled":
            derivative = self._by_double_backward(labelled)
            found = self.learner.from_derivatives([labelled], [derivative], self.loss_scale)
        else:
            loss = self.primary_step(part, outputs).loss + self.learner.auxiliary_loss(outputs, labels.detach(), part)
            gradients = self.gradients(loss)
            step = InnerStep(self.network, self.network_optimizer, gradients)
            after = stepped_parameters(self.network, self.network_optimizer, gradients)
            v = self._primary_gradient(part, {name: p.detach().requires_grad_() for name, p in after.items()})
            found = self.learner.look_back([labelled], step, v, self.loss_scale)
        self.step_generator(found.gradients)
        return found.norms

    def _primary_gradient(self, part: PartOfBatch, point: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The gradient of the primary loss at a point in the space of the network's parameters."""
        loss = self.primary_step(part, call_at(self.network, (part.batch,), point)).loss
        return mean_gradients_over_ranks(self.unscaled(named_gradients(loss * self.loss_scale, point)))

    def _by_double_backward(self, labelled: LabelledPart) -> Tensor:
        """The derivative of the primary loss after the step by the labels (B, A)."""
        part = labelled.part

        def inner_loss(outputs: TaskOutputs, labels: Tensor) -> Tensor:
            return self.primary_step(part, outputs).loss + self.learner.auxiliary_loss(outputs, labels, part)

        def meta_loss(outputs: TaskOutputs) -> Tensor:
            return self.primary_step(part, outputs).loss

        return unrolled_label_gradient(
            self.network, self.network_optimizer, (part.batch,), labelled.labels, inner_loss, (part.batch,), meta_loss
        )
