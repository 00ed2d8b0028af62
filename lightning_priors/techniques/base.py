"""What all techniques share: one training step to write, and the same evaluation on the image alone."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, cast

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassF1Score

from lightning_priors.batch import PriorBatch, require
from lightning_priors.functional.cam import evidence_map
from lightning_priors.functional.prior_maps import prior_map
from lightning_priors.metrics import CAMIoU, EnergyPointingGame, PointingGame, WorstGroupAccuracy
from lightning_priors.nn import Backbone


class PriorStep(NamedTuple):
    """What a technique's training step gives back; the base logs it."""

    loss: Tensor
    """() what is minimised."""
    logits: Tensor
    """(B, K) of the primary task."""
    terms: dict[str, Tensor]
    """Scalars that the loss is made of, logged as ``train/loss_<name>``."""


def warmup_cosine(step: int, warmup_steps: float, total_steps: float) -> float:
    """The factor on the learning rate: a linear rise, then half a cosine to zero (Loshchilov and Hutter 2017, eq. 5).

    Args:
        step: Optimiser steps done so far.
        warmup_steps: Length of the rise.
        total_steps: Length of the whole training; infinite keeps the rate after the rise.

    Returns:
        A factor in [0, 1].

    >>> [round(warmup_cosine(step, 2, 6), 2) for step in range(7)]
    [0.5, 1.0, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / math.ceil(warmup_steps)
    if math.isinf(total_steps) or total_steps <= warmup_steps:
        return 1.0
    return (1 + math.cos(math.pi * min(1.0, (step - warmup_steps) / (total_steps - warmup_steps)))) / 2


class PriorModule(L.LightningModule, ABC):
    """Base of the techniques: a subclass builds its network, sets `requires` and writes `step` and `explain`.

    Training may use every prior of the batch. Validation and test see the image alone, with the same cross entropy and
    the same metrics for all techniques, so that ``val/acc`` compares fairly.

    Args:
        num_classes: Number of classes K of the primary task.
        weights: What the backbones start from: ``none``, ``imagenet`` or a path; read when a training begins that no
            checkpoint brings weights to, so that a trained model never needs the file again.
        lr: Learning rate of the default optimiser, AdamW.
        weight_decay: Weight decay of the default optimiser, on weights only, not on biases and normalisation.
        warmup_epochs: Length of the linear warm-up of the default schedule, in epochs; a cosine to zero follows.
        optimizer: Replaces the default optimiser, and then has its own learning rate and weight decay.
        scheduler: Replaces the default schedule; stepped once an epoch.
    """

    requires: ClassVar[Sequence[Sequence[str]]] = ()
    """For each need of the training step, the batch keys of which one is enough."""

    def __init__(
        self,
        num_classes: int,
        weights: str,
        lr: float,
        weight_decay: float,
        warmup_epochs: float,
        optimizer: OptimizerCallable | None,
        scheduler: LRSchedulerCallable | None,
    ) -> None:
        super().__init__()
        self.weights, self.lr, self.weight_decay, self.warmup_epochs = weights, lr, weight_decay, warmup_epochs
        self.optimizer, self.scheduler = optimizer, scheduler
        self.epochs_done = math.inf  # with fraction, once training has begun; schedules of a technique follow it
        self._has_weights = False
        self.metrics = nn.ModuleDict({stage: _class_metrics(num_classes, stage) for stage in ("val", "test")})
        self.spatial_metrics = nn.ModuleDict({stage: _spatial_metrics(stage) for stage in ("val", "test")})

    @abstractmethod
    def step(self, batch: PriorBatch) -> PriorStep:
        """Computes the training loss of a batch, priors included."""

    @abstractmethod
    def explain(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Classifies images and says where the evidence lies.

        Args:
            image: (B, 3, H, W), normalised as `lightning_priors.batch` says.

        Returns:
            Logits (B, K) and class activation maps (B, K, h, w).
        """

    def forward(self, image: Tensor) -> Tensor:
        """Classifies images (B, 3, H, W) to logits (B, K)."""
        return self.explain(image)[0]

    def load_initial_weights(self) -> None:
        """Loads what the networks start from; called once, and not when a checkpoint has brought the weights."""
        if self.weights != "none":
            for module in self.modules():
                if isinstance(module, Backbone):
                    rank_zero_info(str(module.load(self.weights)))

    def on_fit_start(self) -> None:
        """Sees to the initial weights; by now a checkpoint given to the Trainer has been read."""
        if not self._has_weights:
            self.load_initial_weights()
            self._has_weights = True

    # evaluating a module that was never trained needs its initial weights too
    on_validation_start = on_test_start = on_predict_start = on_fit_start

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Remembers that the weights come from a checkpoint."""
        self._has_weights = True

    def training_step(self, batch: PriorBatch, batch_idx: int) -> Tensor:
        """Runs `step` and logs its loss, terms and accuracy as means over the epoch."""
        require(batch, self.requires, by=type(self).__name__)
        self.epochs_done = self.current_epoch + batch_idx / self.trainer.num_training_batches
        step = self.step(batch)
        self.log_step(step, batch["label"])
        return step.loss

    def log_step(self, step: PriorStep, label: Tensor, share: float = 1.0, images: int | None = None) -> None:
        """Logs the loss, the terms and the accuracy of a training step as means over the epoch.

        Args:
            step: What the step gave back.
            label: (B,) of the images that it classified.
            share: A factor that loss and terms contain and that the accuracy gets too.
            images: What the batch counts as in the mean; B if not given.
        """
        accuracy = share * (step.logits.detach().argmax(1) == label).float().mean()
        logged = {"train/loss": step.loss.detach(), "train/acc": accuracy}
        logged |= {f"train/loss_{name}": value.detach() for name, value in step.terms.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=images or len(label), sync_dist=True)

    def validation_step(self, batch: PriorBatch, batch_idx: int) -> Tensor:
        """Evaluates on the image alone; gives the logits (B, K) to the callbacks."""
        return self.evaluate(batch, "val")

    def test_step(self, batch: PriorBatch, batch_idx: int) -> Tensor:
        """Evaluates on the image alone; gives the logits (B, K) to the callbacks."""
        return self.evaluate(batch, "test")

    def predict_step(self, batch: PriorBatch, batch_idx: int) -> dict[str, Tensor]:
        """Gives the row in the source ``index`` (B,) and the class ``probabilities`` (B, K)."""
        return {"index": batch["index"], "probabilities": self(batch["image"]).softmax(1)}

    def evaluate(self, batch: PriorBatch, stage: str) -> Tensor:
        """Classifies the images of a batch and logs how well; a technique with more to report adds it here."""
        return self.log_evaluation(batch, stage, *self.explain(batch["image"]))

    def log_evaluation(self, batch: PriorBatch, stage: str, logits: Tensor, cam: Tensor) -> Tensor:
        """Updates and logs the metrics of a stage; priors of the batch serve only to judge the evidence maps.

        Args:
            batch: What the labels, groups and priors are taken from.
            stage: ``val`` or ``test``.
            logits: (B, K).
            cam: (B, K, h, w).

        Returns:
            The logits.
        """
        label = batch["label"]
        classes = cast(MetricCollection, self.metrics[stage])
        classes.update(preds=logits, target=label, group=batch.get("group", label))
        self.log(f"{stage}/loss", F.cross_entropy(logits.float(), label), batch_size=len(label), sync_dist=True)
        self.log_dict(classes, batch_size=len(label))
        if "mask" in batch or "part_boxes" in batch:
            prior, valid = prior_map(batch, batch["image"].shape[2:])
            spatial = cast(MetricCollection, self.spatial_metrics[stage])
            spatial.update(evidence=evidence_map(cam, label), mask=prior, valid=valid)
            self.log_dict(spatial, batch_size=len(label))
        return logits

    def parameter_groups(self) -> list[tuple[float, list[nn.Parameter]]]:
        """The parameters to optimise in groups, each with its factor on the learning rate."""
        return [(1.0, list(self.parameters()))]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with warm-up and cosine, or what the user gave; both respect the groups' factors."""
        groups = self.parameter_groups()
        if self.optimizer is None:
            factors = [factor for factor, _ in groups for _ in range(2)]
            decays = [group for _, parameters in groups for group in _split_decay(parameters, self.weight_decay)]
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(decays, lr=self.lr)
        else:
            factors = [factor for factor, _ in groups]
            optimizer = self.optimizer([{"params": parameters} for _, parameters in groups])
            rank_zero_info(f"{type(optimizer).__name__} given: it has its own lr and weight_decay, not the module's")
        for factor, group in zip(factors, optimizer.param_groups, strict=True):
            group["lr"] *= factor
        if self.scheduler is not None:
            scheduler = self.scheduler(optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss"}}
        warmup, total = self.schedule_lengths()
        cosine = LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}

    def schedule_lengths(self) -> tuple[float, float]:
        """Optimiser steps of the warm-up, and of the whole training, which may be infinite."""
        total, warmup = self.trainer.estimated_stepping_batches, 0.0
        if self.warmup_epochs:
            self.trainer.fit_loop.setup_data()  # counts the batches: nobody has where steps alone end training
            warmup = self.warmup_epochs * self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
        return warmup, total


def _split_decay(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    """Weights with weight decay; biases and normalisation, which have one dimension, without."""
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _class_metrics(num_classes: int, stage: str) -> MetricCollection:
    return MetricCollection(
        {
            "acc": MulticlassAccuracy(num_classes, average="micro"),
            "f1_macro": MulticlassF1Score(num_classes, average="macro"),
            "ece": MulticlassCalibrationError(num_classes),
            "worst_group_acc": WorstGroupAccuracy(),
        },
        prefix=f"{stage}/",
        compute_groups=False,
    )


def _spatial_metrics(stage: str) -> MetricCollection:
    return MetricCollection(
        {"epg": EnergyPointingGame(), "pointing_game": PointingGame(), "cam_iou": CAMIoU()},
        prefix=f"{stage}/",
        compute_groups=False,
    )
