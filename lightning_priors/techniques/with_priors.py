"""A technique that is one classifier and the priors that act on it while it is trained."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_priors.batch import PriorBatch
from lightning_priors.nn import Classifier
from lightning_priors.priors import Prior, PriorStep, attach_priors, needed_in_evaluation, see, training_step
from lightning_priors.techniques.base import PriorModule
from lightning_priors.techniques.optimisation import PLAIN, Tuning


class ClassifierWithPriors(PriorModule):
    """Base of the techniques that train one classifier: each chooses its priors.

    `classifier` is the whole network at inference, unless attention is among the priors: its state dict loads into a
    `lightning_priors.nn.Classifier`, and saved serves as ``weights`` of every technique.

    Args:
        priors: What is known about the images, as modules; in any order.
        num_classes: Number of classes K of the primary task.
        aux_num_classes: Number of classes of each auxiliary task of the data.
        backbone: A timm model name, or ``tiny``.
        weights: ``none``, ``imagenet``, or the path of a checkpoint of this library, a torch or a safetensors file.
        lr: As in `PriorModule`, as are the options that follow.
        weight_decay: As in `PriorModule`.
        warmup_epochs: As in `PriorModule`.
        optimizer: As in `PriorModule`.
        scheduler: As in `PriorModule`.
        tuning: As in `PriorModule`.
        extra_metrics: As in `PriorModule`.

    Raises:
        PriorError: If the backbone does not suit a prior, or two priors replace features.
    """

    def __init__(
        self,
        priors: Sequence[Prior],
        *,
        num_classes: int = 2,
        aux_num_classes: Sequence[int] = (),
        backbone: str = "tiny",
        weights: str = "none",
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup_epochs: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        tuning: Tuning | Mapping[str, Any] = PLAIN,
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
        self.classifier = Classifier(num_classes, backbone)
        self.classifier.backbone.start_from(weights)
        self.priors = nn.ModuleList(priors)
        attach_priors(priors, self.classifier, aux_num_classes)

    def priors_in_use(self) -> list[Prior]:
        """Lists the priors."""
        return list(self.priors)  # type: ignore[arg-type]

    def drop_training_parts(self) -> None:
        """Drops the priors that do nothing without a batch, besides what the base drops."""
        super().drop_training_parts()
        self.priors = nn.ModuleList(needed_in_evaluation(self.priors_in_use()))

    def step(self, batch: PriorBatch) -> PriorStep:
        """Computes the cross entropy of the primary task and the terms of the priors."""
        return training_step(self.classifier, self.priors_in_use(), batch, self.epochs_done)

    def explain(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Classifies images (B, 3, H, W) to logits (B, K) and class activation maps (B, K, h, w)."""
        seen = see(self.classifier, self.priors_in_use(), image)
        return seen.logits, seen.cam

    def explain_maps(self, image: Tensor) -> dict[str, Tensor]:
        """Gives from images (B, 3, H, W) what priors found in them, maps (B, i, j) in [0, 1] by name, for panels."""
        priors = self.priors_in_use()
        seen = see(self.classifier, priors, image, every=True)
        looked = [(prior, memory) for prior, memory in zip(priors, seen.memories, strict=True) if memory is not None]
        return {name: maps for prior, memory in looked for name, maps in prior.maps(memory).items()}

    def evaluate(self, batch: PriorBatch, stage: str) -> Tensor:
        """Runs the shared evaluation, and has the priors judge what they have metrics for."""
        priors = self.priors_in_use()
        seen = see(self.classifier, priors, batch["image"])
        for prior in (prior for prior in priors if prior.active):
            prior.judge(batch, seen, stage)
        return self.log_evaluation(batch, stage, seen.logits, seen.cam)
