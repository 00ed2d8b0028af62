"""What all techniques share: one training step to write, and the same evaluation on the image alone."""

import inspect
import math
import pickle
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import FrameType
from typing import Any, Protocol, Self, cast, runtime_checkable

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.parsing import collect_init_args
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection

from lightning_priors.batch import PriorBatch, complete, require
from lightning_priors.callbacks import RandomState
from lightning_priors.errors import PriorError
from lightning_priors.functional.cam import evidence_map
from lightning_priors.functional.distributed import hold_buffers, release_buffers
from lightning_priors.functional.prior_maps import KINDS, prior_map
from lightning_priors.import_path import nothing_imported
from lightning_priors.metrics import GroupAdjustedAccuracy
from lightning_priors.nn import Backbone, StartsFromWeights
from lightning_priors.priors import Prior, PriorStep, describe
from lightning_priors.ranges import check_counts, check_not_negative, check_positive
from lightning_priors.techniques.evaluation import ADJUSTED, class_metrics, spatial_metrics
from lightning_priors.techniques.facts import Facts, training_facts
from lightning_priors.techniques.finite import (
    NotFiniteError,
    all_finite,
    check_images,
    check_loss,
    check_weights,
    image_names,
)
from lightning_priors.techniques.optimisation import PLAIN, Groups, Tuning, build_optimizer, build_schedule, grouped

__all__ = ["PriorModule", "PriorStep"]

NOT_SAVED = ("optimizer", "scheduler", "extra_metrics")
"""Options that no checkpoint holds: they are objects or functions, and a trained model needs none of them."""


@runtime_checkable
class TellsKeys(Protocol):
    """A data module that knows before the first batch what a batch will have."""

    def annotation_keys(self) -> set[str]:
        """Returns the keys of a training batch."""


class PriorModule(L.LightningModule, ABC):
    """Base of the techniques: a subclass builds its network, sets `requires` and writes `step` and `explain`.

    Training may use every prior of the batch. Validation and test see the image alone, with the same cross entropy and
    the same metrics for all techniques, so that ``val/acc`` compares fairly.

    Args:
        num_classes: Number of classes K of the primary task.
        lr: Learning rate of the default optimiser, AdamW.
        weight_decay: Weight decay of the default optimiser, on weights only, not on biases and normalisation.
        warmup_epochs: Length of the linear warm-up of the default schedule, in epochs; a cosine to zero follows.
        optimizer: Replaces the default optimiser, and then has its own learning rate and weight decay.
        scheduler: Replaces the default schedule; stepped once an epoch.
        tuning: How pretrained weights are tuned.
        extra_metrics: Further metrics by name, logged as ``val/<name>`` and ``test/<name>``. Their ``update`` takes
            some of ``preds``, the logits (B, K), ``target``, the labels (B,), and ``group`` (B,).

    Raises:
        PriorError: If a number is out of its range, or a metric is for another number of classes.
    """

    requires: Sequence[Sequence[str]] = ()
    """For each need of the training step, the batch keys of which one is enough."""

    def __init__(
        self,
        *,
        num_classes: int = 2,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup_epochs: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        tuning: Tuning | Mapping[str, Any] = PLAIN,
        extra_metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        super().__init__()
        check_counts({"num_classes": num_classes})
        check_positive({"lr": lr})
        check_not_negative({"weight_decay": weight_decay, "warmup_epochs": warmup_epochs})
        for name, given in (("optimizer", optimizer), ("scheduler", scheduler)):
            if given is not None and not callable(given):
                raise PriorError(f"{name} is a function that makes one, such as a class, not a {type(given).__name__}")
        self.lr, self.weight_decay, self.warmup_epochs = lr, weight_decay, warmup_epochs
        self.optimizer, self.scheduler, self.tuning = optimizer, scheduler, Tuning.of(tuning)
        self.num_classes = num_classes
        self.facts: Facts | None = None
        """What the module was trained on; None before the first training step."""
        self._images_seen = 0
        self.epochs_done = math.inf  # with fraction, once training has begun; schedules of a technique follow it
        further = extra_metrics or {}
        self.metrics = nn.ModuleDict({stage: class_metrics(num_classes, stage, further) for stage in ("val", "test")})
        self.spatial_metrics = nn.ModuleDict({stage: spatial_metrics(stage) for stage in ("val", "test")})
        self.means = nn.ModuleDict()

    # ---- what a technique writes

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

    # ---- what it may write besides

    def trained_network(self) -> nn.Module:
        """Gives the module whose parameters the optimiser trains; all of this one by default."""
        return self

    def priors_in_use(self) -> Iterable[Prior]:
        """Gives the priors that act on the networks of this module; none by default."""
        return ()

    def learning_rate_factors(self) -> Iterable[tuple[float, Iterable[nn.Parameter]]]:
        """Gives parameters that learn at another rate, with the factor on it; none by default."""
        return ()

    def evaluate(self, batch: PriorBatch, stage: str) -> Tensor:
        """Classifies the images of a batch and logs how well; a technique with more to report adds it here."""
        return self.log_evaluation(batch, stage, *self.explain(batch["image"]))

    def drop_training_parts(self) -> None:
        """Drops what only training needs, such as metrics and generators; `explain` stays the same to the bit.

        A technique with more such parts adds them here. The module cannot be trained or evaluated any more.
        """
        self.metrics, self.spatial_metrics, self.means = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()

    # ---- what the base does

    def forward(self, image: Tensor) -> Tensor:
        """Classifies images (B, 3, H, W) to logits (B, K)."""
        return self.explain(image)[0]

    def save_hyperparameters(  # type: ignore[override]  # Lightning's takes objects too
        self, *names: str, ignore: str | Sequence[str] = (), frame: FrameType | None = None, logger: bool = True
    ) -> None:
        """Keeps the options of the constructor as plain values, so that a checkpoint loads under ``weights_only``.

        Args:
            names: Those to keep; all if not given.
            ignore: Those to leave out, besides `NOT_SAVED`.
            frame: Of the constructor; the caller's if not given.
            logger: Whether loggers get them.
        """
        here = inspect.currentframe()
        caller = frame or (here.f_back if here is not None else None)
        assert caller is not None
        options: dict[str, Any] = {}
        for arguments in collect_init_args(caller, [], classes=(PriorModule,)):
            options |= arguments
        left_out = {*NOT_SAVED, *([ignore] if isinstance(ignore, str) else ignore)}
        kept = {name: _plain(options[name]) for name in names or options if name not in left_out}
        super().save_hyperparameters(kept, logger=logger)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:  # Lightning's arguments
        """Loads a model as Lightning does, but never imports or calls what a checkpoint names.

        Raises:
            PriorError: If the file would run code, which it may only where ``weights_only=False`` is given.
        """
        chosen: dict[str, Any] = dict.fromkeys(("_instantiator", "_class_path", *NOT_SAVED))
        given = chosen | {"weights_only": True} | kwargs
        try:
            with nothing_imported():
                loaded: Self = super().load_from_checkpoint(checkpoint_path, *args, **given)
        except pickle.UnpicklingError as error:
            raise PriorError(f"{checkpoint_path} holds more than plain values and tensors, or is broken") from error
        return loaded

    def tuned_backbones(self) -> list[Backbone]:
        """Lists the backbones that `tuning` speaks of."""
        return [module for module in self.trained_network().modules() if isinstance(module, Backbone)]

    def setup(self, stage: str) -> None:
        """Checks that the data has what training needs, as far as its data module can tell, and freezes parts for good.

        Raises:
            PriorError: If something is missing, or the numbers are too coarse to train.
        """
        data = self.trainer.datamodule if self._trainer is not None else None  # type: ignore[attr-defined]
        if stage == "fit" and self._trainer is not None and self.trainer.precision == "16-true":
            raise PriorError("precision 16-true trains nothing: float16 has no room for small steps; use 16-mixed")
        if stage == "fit" and isinstance(data, TellsKeys):
            keys = data.annotation_keys()
            self._require(keys)
            self._say_other_priors(keys)
        self.tuning.freeze(self.tuned_backbones())

    def configure_callbacks(self) -> list[Callback]:
        """Gives the schedule of `tuning`, and what lets a resumed run draw the numbers of an uninterrupted one."""
        return [*self.tuning.callbacks(), RandomState()]

    def on_fit_start(self) -> None:
        """Reads the initial weights, unless others were loaded: by now a checkpoint given to the Trainer has been."""
        for module in self.modules():
            if isinstance(module, StartsFromWeights) and module.read_initial_weights():
                rank_zero_info(str(getattr(module, "weights_report", None) or f"weights from {module.weights}"))
        check_weights(self)

    # evaluating a module that was never trained needs its initial weights too
    on_test_start = on_predict_start = on_fit_start

    def on_validation_start(self) -> None:
        """Does the same, and lets each rank validate as many batches as it has."""
        self.on_fit_start()
        hold_buffers(self.trainer.strategy.model)

    def on_validation_end(self) -> None:
        """Goes on as before."""
        release_buffers(self.trainer.strategy.model)

    def on_train_start(self) -> None:
        """Freezes the statistics; before, Lightning would warn of layers in evaluation mode."""
        self.facts = None  # the data may be another than that of a loaded checkpoint
        for backbone in self.tuned_backbones():
            backbone.freeze_statistics |= self.tuning.keeps_statistics()
        if self.trainer.world_size > 1 and any(type(module) is nn.BatchNorm2d for module in self.modules()):
            rank_zero_info("batch normalisation: each process by its own images; on GPUs sync_batchnorm has them share")

    def on_train_epoch_start(self) -> None:
        """Tells the priors."""
        for prior in self._active_priors():
            prior.start_epoch()

    def training_step(self, batch: PriorBatch, batch_idx: int) -> Tensor:
        """Runs `step` and logs its loss, terms and accuracy as means over the epoch."""
        self.begin_step(batch, batch_idx)
        step = self.step(batch)
        self.log_step(step, batch)
        return step.loss

    def begin_step(self, batch: PriorBatch, batch_idx: int) -> None:
        """Checks that the batch has what training needs, notes what is trained on, and counts the epochs."""
        complete(batch)
        if self.facts is None:
            self.facts = training_facts(self.trainer, batch["image"], self.num_classes)
        self._require(batch)
        self.epochs_done = self.current_epoch + batch_idx / self.trainer.num_training_batches

    def log_step(self, step: PriorStep, batch: PriorBatch) -> None:
        """Logs the loss, its terms, the accuracy and whatever else a training step gives, as means over the epoch.

        Args:
            step: What the step gave back.
            batch: The images that it classified.

        Raises:
            NotFiniteError: If the loss or one of its terms is nan or infinite.
        """
        label = batch["label"]
        if not all_finite([step.loss, *step.terms.values()]):
            names = image_names(batch, self.trainer)
            check_images(batch["image"], names)
            check_loss(step.loss, step.terms, self.global_step, names)
        logged = {"loss": step.loss.detach(), "acc": (step.logits.detach().argmax(1) == label).float().mean()}
        logged |= {f"loss_{name}": value.detach() for name, value in step.terms.items()}
        logged |= {name: value.detach() for name, value in step.logged.items()}
        named = {f"train/{name}": value for name, value in logged.items()}
        self.log_dict(named, on_step=False, on_epoch=True, batch_size=len(label), sync_dist=True)
        self.log("loss", logged["loss"], prog_bar=True, logger=False)

    def validation_step(self, batch: PriorBatch, batch_idx: int) -> Tensor:
        """Evaluates on the image alone; gives the logits (B, K) to the callbacks."""
        return self.evaluate(self._numbered(complete(batch), batch_idx), "val")

    def test_step(self, batch: PriorBatch, batch_idx: int) -> Tensor:
        """Evaluates on the image alone; gives the logits (B, K) to the callbacks."""
        return self.evaluate(self._numbered(complete(batch), batch_idx), "test")

    def predict_step(self, batch: PriorBatch, batch_idx: int) -> dict[str, Tensor]:
        """Gives the class ``probabilities`` (B, K) and the row in the source, ``index`` (B,)."""
        self._numbered(complete(batch, needs=("image",)), batch_idx)
        return {"index": batch["index"], "probabilities": self._finite(batch, self(batch["image"])).softmax(1)}

    def log_evaluation(self, batch: PriorBatch, stage: str, logits: Tensor, cam: Tensor) -> Tensor:
        """Updates and logs the metrics of a stage; priors of the batch serve only to judge the evidence maps.

        Args:
            batch: What the labels, groups and priors are taken from.
            stage: ``val`` or ``test``.
            logits: (B, K).
            cam: (B, K, h, w).

        Returns:
            The logits.

        Raises:
            NotFiniteError: If some of the logits are nan or infinite.
        """
        label = batch["label"]
        self._finite(batch, logits)
        classes = cast(MetricCollection, self.metrics[stage])
        classes.update(preds=logits, target=label, group=batch.get("group", label))
        self.log_mean(f"{stage}/loss", F.cross_entropy(logits.float(), label), len(label))
        adjusted = cast(GroupAdjustedAccuracy, classes[ADJUSTED])
        adjusted.counts = self.facts["group_counts"] if self.facts is not None else []
        for name, metric in classes.items():
            if metric is not adjusted or adjusted.counts:
                self.log(name, metric, batch_size=len(label), prog_bar=name == "val/acc")
        if "mask" in batch or "part_boxes" in batch:
            prior, valid = prior_map(batch, batch["image"].shape[2:])
            spatial = cast(MetricCollection, self.spatial_metrics[stage])
            spatial.update(evidence=evidence_map(cam, label), mask=prior, valid=valid)
            self.log_dict(spatial, batch_size=len(label))
        return logits

    def log_mean(self, name: str, value: Tensor, images: int) -> None:
        """Logs a mean over the images of an evaluation.

        Lightning's own means are wrong where ranks have different numbers of images: it halves an odd number.

        Args:
            name: Under which it is logged, such as ``val/loss``.
            value: () the mean over some images.
            images: Their number.
        """
        key = name.replace("/", "_")
        if key not in self.means:
            self.means[key] = MeanMetric(nan_strategy="error").to(value.device)  # "disable" ignores the weights
        metric = cast(MeanMetric, self.means[key])
        metric.update(value, weight=images)
        self.log(name, metric, batch_size=images, metric_attribute=f"means.{key}")

    def on_train_epoch_end(self) -> None:
        """Checks the weights, and logs the metrics of the priors' own."""
        check_weights(self)
        self._log_verdicts("train")

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of the priors' own."""
        self._log_verdicts("val")

    def on_test_epoch_end(self) -> None:
        """Logs the metrics of the priors' own."""
        self._log_verdicts("test")

    def parameter_groups(self) -> Groups:
        """Groups the parameters to optimise by the factor on their learning rate."""
        factors = self.tuning.factors(self.trained_network())
        of_priors = [group for prior in self.priors_in_use() for group in prior.learning_rate_factors()]
        for factor, parameters in (*of_priors, *self.learning_rate_factors()):
            factors |= {parameter: factor * factors[parameter] for parameter in parameters}
        return grouped(factors)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with warm-up and cosine, or what the user gave; both respect the groups' factors."""
        optimizer = build_optimizer(self.parameter_groups(), self.lr, self.weight_decay, self.optimizer)
        lengths = (0.0, math.inf) if self.scheduler is not None else self.schedule_lengths()
        scheduler, interval = build_schedule(optimizer, *lengths, self.scheduler)
        chosen = {"scheduler": scheduler, "interval": interval, "monitor": "val/loss"}
        return {"optimizer": optimizer, "lr_scheduler": chosen}  # type: ignore[return-value]

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips as asked for; then the gradients are what the optimiser will use, and priors may look at them."""
        super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        self.tell_priors_of_step(optimizer)

    def tell_priors_of_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Shows the priors the gradients that the optimiser is about to use."""
        for prior in self._active_priors():
            prior.before_optimizer_step(optimizer)

    def schedule_lengths(self) -> tuple[float, float]:
        """Counts the optimiser steps of the warm-up, and of the whole training, which may be infinite."""
        total, warmup = self.trainer.estimated_stepping_batches, 0.0
        if self.warmup_epochs:
            self.trainer.fit_loop.setup_data()  # counts the batches: nobody has where steps alone end training
            warmup = self.warmup_epochs * self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
        return warmup, total

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the name of the technique, what it was trained on, and how well it did on the validation images.

        Raises:
            NotFiniteError: If the weights are not finite.
        """
        check_weights(self)  # a checkpoint that cannot be used is not written
        checkpoint["technique"] = type(self).__name__
        checkpoint["facts"] = self.facts
        measured = self.trainer.callback_metrics
        checkpoint["metrics"] = {name: float(value) for name, value in measured.items() if name.startswith("val/")}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over what the module was trained on."""
        self.facts = checkpoint.get("facts")

    def _numbered(self, batch: PriorBatch, batch_idx: int) -> PriorBatch:
        """Numbers the images of an evaluation in the order of the loader, where the data does not number them."""
        count = len(batch["image"])
        first = 0 if batch_idx == 0 else self._images_seen
        self._images_seen = first + count
        if "index" not in batch:
            places = torch.arange(first, first + count, device=batch["image"].device)
            batch["index"] = places * self.trainer.world_size + self.global_rank
        return batch

    def _finite(self, batch: PriorBatch, logits: Tensor) -> Tensor:
        """Gives logits (B, K) back, if they are finite."""
        if not all_finite([logits]):
            check_images(batch["image"], image_names(batch, self.trainer))
            check_weights(self)
            wrong = ~logits.isfinite().all(1)
            raise NotFiniteError(f"the logits are nan or infinite for {image_names(batch, self.trainer, wanted=wrong)}")
        return logits

    def needs(self) -> list[tuple[str, ...]]:
        """Lists what training has to know beside the labels.

        Returns:
            For each need the keys of a batch of which one is enough, in technique and priors.
        """
        asking = [self.requires, *(prior.requires for prior in self._active_priors())]
        return list(dict.fromkeys(tuple(keys) for requires in asking for keys in requires))

    def _active_priors(self) -> list[Prior]:
        return [prior for prior in self.priors_in_use() if prior.active]

    def _require(self, keys: Collection[str]) -> None:
        name, active = type(self).__name__, self._active_priors()
        require(keys, self.requires, by=name)
        for prior in active:
            require(keys, prior.requires, by=name if len(active) == 1 else f"{type(prior).__name__} in {name}")

    def _say_other_priors(self, keys: Collection[str]) -> None:
        """Says where the data has another kind of annotation than a prior asks for."""
        for prior in self._active_priors():
            asked = getattr(prior, "prior", None)
            other = next((kind for kind in KINDS if kind in keys), None)
            if asked in KINDS and asked not in keys and other is not None:
                rank_zero_info(f"{type(prior).__name__}: the data has no {asked}; its {other} is used")

    def _log_verdicts(self, stage: str) -> None:
        for prior in self._active_priors():
            self.log_dict({f"{stage}/{name}": value for name, value in prior.verdict(stage).items()})


def _plain(value: Any) -> Any:
    """An option as a checkpoint can hold it."""
    if isinstance(value, Tuning):
        return value.options()
    if isinstance(value, Prior):
        return describe(value)
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
