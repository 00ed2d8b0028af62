"""Technique 6: MAXL. A second network makes the auxiliary labels, so that learning them lowers the primary loss."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torchmetrics import Metric

from lightning_priors.batch import PriorBatch
from lightning_priors.errors import PriorError
from lightning_priors.hypergradient import InnerStep, RandomState
from lightning_priors.priors import Prior, PriorStep, restore
from lightning_priors.ranges import check_counts, check_not_negative
from lightning_priors.techniques.maxl.label_generator import Balance, TaskOutputs
from lightning_priors.techniques.maxl.label_learner import LabelLearner, LabelledPart, PartOfBatch, halves_of
from lightning_priors.techniques.maxl.meta_gradient import shared_cosine
from lightning_priors.techniques.maxl.two_networks import TwoNetworks
from lightning_priors.techniques.optimisation import PLAIN, Tuning


class MAXL(TwoNetworks):
    """Trains a classifier on auxiliary labels that a label generator makes (Liu, Davison and Johns 2019).

    "Self-Supervised Generalisation with Meta Auxiliary Learning". The network learns its classes and, with a second
    head, the labels of the generator: each class split into sub-classes. The generator learns which labels make the
    primary loss fall after the next step of the network, by the exact derivative of that step (`InnerStep`).

    The step that is looked through is the true one, and where the primary loss is to fall is the next batch, whose
    primary gradient training needs anyway: so the generator costs one forward-mode pass. A generator update pending
    from the previous batch runs first, since it needs the current weights; one pending at the end of an epoch is
    dropped. `PublishedMAXL` is the form of the paper.

    A batch whose primary gradient judges the labels before trains the primary task alone, unless the generator learns
    from it too or batches are accumulated. That saves it a backward pass.

    Evaluation is that of the classifier; the auxiliary head and the generator take no part. The optimisation is manual:
    ``global_step`` counts the batches that end in a step, and clipping and accumulation are options here, not of the
    Trainer. Data-parallel training is that of the joint batch, with the strategy ``ddp`` as it is; statistics of batch
    normalisation are those of each rank.

    It logs ``loss_primary``, ``loss_auxiliary``, ``label_entropy`` of the mean label, ``confidence``, and where the
    generator learns ``cosine`` of primary and auxiliary gradient, ``meta_gradient_norm`` and ``entropy_gradient_norm``
    on the generator's scores, after scaling and weighting.

    Args:
        num_classes: Number of classes K of the primary task.
        subclasses: psi, into how many sub-classes each class is split: one number, or one for each class.
        backbone: A timm model name, or ``tiny``.
        weights: ``none``, ``imagenet``, or the path of a checkpoint; for the network, not for the generator.
        priors: As in `Combined`; their terms are part of the primary loss that the generator is to lower.
        aux_num_classes: Number of classes of each auxiliary task of the data, for priors that need them.
        generator: ``features``, a head on the network's features, or the name of a network of its own.
        generator_every: The generator learns from the first step of each epoch and every so many steps from there.
        meta_batch: Where the primary loss is to fall: in the ``next`` batch, or in the first ``half`` of it. With
            ``half`` a batch that judges a step, or whose labels will be judged, is halved: the first half judges the
            labels before and trains the primary task alone, the second trains both tasks, and its labels are judged
            next. So a generator learns from every step without a second backward pass, and at most half a batch of each
            network is in memory at once. Each half has batch statistics of its own.
        balance: What keeps the labels from collapsing: ``sinkhorn``, equal shares of the batch by construction; or
            ``entropy``, as published, a loss that soft labels satisfy too which all prefer the same sub-class.
        entropy_weight: Weight of the negative entropy of the mean label where `balance` is ``entropy``.
        temperature: Of the generated labels.
        loss: Of the auxiliary task: ``focal`` or ``cross_entropy``.
        aux_weight: Weight of the auxiliary loss.
        generator_lr: Learning rate of the generator's optimiser, Adam.
        generator_weight_decay: Its weight decay.
        gradient_clip_norm: Greatest norm of the network's gradient; the derivative sees through the clipping.
        accumulate_batches: Batches for each step of the network.
        tuning: How pretrained weights are tuned.
        lr: Learning rate of the default optimiser, AdamW.
        weight_decay: Weight decay of the default optimiser.
        warmup_epochs: Linear warm-up of the learning rate before its cosine, in epochs.
        optimizer: Replaces the default optimiser; SGD, Adam or AdamW of torch.
        scheduler: Replaces the default schedule, for both networks.
        extra_metrics: Further metrics by name.

    Raises:
        PriorError: If a number is out of its range, or the backbone does not suit a prior.

    >>> model = MAXL(num_classes=2, subclasses=3)
    >>> model.auxiliary_labels({"image": torch.zeros(2, 3, 32, 32), "label": torch.tensor([0, 1])}).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        *,
        num_classes: int = 2,
        subclasses: int | list[int] = 5,
        backbone: str = "tiny",
        weights: str = "none",
        priors: Sequence[Prior] = (),
        aux_num_classes: Sequence[int] = (),
        generator: str = "features",
        generator_every: int = 10,
        meta_batch: Literal["next", "half"] = "next",
        balance: Balance = "sinkhorn",
        entropy_weight: float = 0.2,
        temperature: float = 1.0,
        loss: Literal["focal", "cross_entropy"] = "focal",
        aux_weight: float = 1.0,
        generator_lr: float = 1e-3,
        generator_weight_decay: float = 5e-4,
        gradient_clip_norm: float | None = None,
        accumulate_batches: int = 1,
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
            balance=balance,
            temperature=temperature,
            generator_lr=generator_lr,
            generator_weight_decay=generator_weight_decay,
            priors=[restore(prior) for prior in priors],
            aux_num_classes=aux_num_classes,
            gradient_clip_norm=gradient_clip_norm,
            accumulate_batches=accumulate_batches,
            lr=lr,
            weight_decay=weight_decay,
            warmup_epochs=warmup_epochs,
            optimizer=optimizer,
            scheduler=scheduler,
            tuning=tuning,
            extra_metrics=extra_metrics,
        )
        self.save_hyperparameters()
        check_counts({"generator_every": generator_every})
        check_not_negative({"aux_weight": aux_weight, "entropy_weight": entropy_weight})
        self.generator_every, self.meta_batch = generator_every, meta_batch
        self.learner = LabelLearner(
            self.generator,
            gamma=2.0 if loss == "focal" else 0.0,
            aux_weight=aux_weight,
            entropy_weight=entropy_weight if balance == "entropy" else 0.0,
        )
        self._labelled: list[LabelledPart] = []
        self._pending: tuple[list[LabelledPart], InnerStep] | None = None

    def on_train_start(self) -> None:
        """Checks that the generator will have something to learn from.

        Raises:
            PriorError: If an epoch has no next batch.
        """
        super().on_train_start()
        if self.steps_of_an_epoch() < 2 and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise PriorError("an epoch of one step has no next batch for the generator to learn from; lower batch_size")

    def on_train_epoch_start(self) -> None:
        """Begins epochs alike, whether the last one ended just now or in a checkpoint."""
        super().on_train_epoch_start()
        self._labelled, self._pending = [], None

    def on_train_epoch_end(self) -> None:
        """Drops what waits for a next batch."""
        self._labelled, self._pending = [], None
        super().on_train_epoch_end()

    def training_step(self, batch: PriorBatch, batch_idx: int) -> Tensor:
        """Makes one step of the network, and where it is due one of the generator."""
        self.begin_step(batch, batch_idx)
        halved = self.meta_batch == "half" and (self._pending is not None or self._is_due(batch_idx))
        step = self._train_halves(batch, batch_idx) if halved else self._train(PartOfBatch(batch), batch_idx)
        if self.ends_step(batch_idx):
            self._end_step()
        self.log_step(step, batch)
        return step.loss.detach()

    def _train(self, part: PartOfBatch, batch_idx: int) -> PriorStep:
        """Adds the gradients of images for both tasks, after a pending update of the generator."""
        due = self._is_due(batch_idx)
        state = RandomState(self.device) if due else None
        outputs = self.network(part.batch)
        step = self.primary_step(part, outputs)
        primary: dict[str, Tensor] | None = None
        if self._pending is not None:
            alone = not due and self.accumulate_batches == 1
            primary = self.gradients(step.loss, retain_graph=not alone)
            step = self._look_back(primary, step)
            if alone:
                self.add_gradients(primary)
                return step
        step = self.with_auxiliary(step, part, outputs, self._label(part, outputs, state))
        if primary is None:
            self.add_gradients(self.gradients(step.loss))
            return step
        auxiliary = self.gradients(step.terms["auxiliary"])
        step = step._replace(logged={**step.logged, "cosine": shared_cosine(primary, auxiliary)})
        self.add_gradients(
            primary | {name: g + primary[name] if name in primary else g for name, g in auxiliary.items()}
        )
        return step

    def _train_halves(self, batch: PriorBatch, batch_idx: int) -> PriorStep:
        """Has the first half of a batch judge the labels before; the second half learns labels."""
        first, share, second = halves_of(batch)
        outputs = self.network(first.batch)
        judging = self.primary_step(first, outputs)
        gradients = self.gradients(judging.loss)
        judging = self._look_back(gradients, judging)
        for gradient in gradients.values():
            gradient *= share  # in place: nothing as large as the network stays for the other half
        self.add_gradients(gradients)
        del outputs, gradients
        labelled = self._train(second, batch_idx)
        terms = dict(labelled.terms)
        for name, term in judging.terms.items():
            terms[name] = terms.get(name, 0.0) + share * term
        logits = torch.cat([judging.logits, labelled.logits])[: len(batch["label"])]  # a single image is in both halves
        return PriorStep(labelled.loss + share * judging.loss, logits, terms, {**judging.logged, **labelled.logged})

    def _label(self, part: PartOfBatch, outputs: TaskOutputs, state: RandomState | None) -> Tensor:
        """Has the generator label images (B, A); with a state, it will learn from what the labels do."""
        with torch.set_grad_enabled(state is not None):
            logits, labels = self.learner.generated(part.batch, outputs.seen.features)
        if state is not None:
            self._labelled.append(LabelledPart(part, state, logits, labels))
        return labels

    def _look_back(self, v: Mapping[str, Tensor], step: PriorStep) -> PriorStep:
        """Makes the pending update of the generator; `v` is the primary gradient after the step that it looks at."""
        if self._pending is None:
            return step
        (labelled, inner), self._pending = self._pending, None
        found = self.learner.look_back(labelled, inner, v, self.loss_scale)
        self.step_generator(found.gradients)
        return step._replace(logged={**step.logged, **found.norms})

    def _end_step(self) -> None:
        """Steps the network, and keeps the step where the generator is to learn from it."""
        gradients, factor = self.clipped_gradients()
        labelled, self._labelled = self._labelled, []
        if labelled and self.usable(gradients):
            self._pending = labelled, InnerStep(self.network, self.network_optimizer, gradients, factor)
        self.step_network()
        self.follow_schedule()

    def _is_due(self, batch_idx: int) -> bool:
        """Whether the generator learns from the step that a batch is part of."""
        return batch_idx // self.accumulate_batches % self.generator_every == 0
