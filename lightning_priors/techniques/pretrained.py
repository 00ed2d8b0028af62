"""Technique 1: the weights of the network are replaced by those trained on another task, then tuned."""

from typing import Literal

import torch.nn.functional as F
from lightning.pytorch import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lightning_priors.batch import PriorBatch
from lightning_priors.callbacks.unfreezing import Unfreezing
from lightning_priors.errors import PriorError
from lightning_priors.nn import Backbone, Classifier
from lightning_priors.techniques.base import PriorModule, PriorStep

Tuning = Literal["full", "probe", "probe_then_tune", "gradual"]


def l2_starting_point(parameters: list[Tensor], starting_point: list[Tensor]) -> Tensor:
    """Half the squared distance of the weights to those that the training started from.

    L2-SP (Li, Grandvalet and Davoine 2018, "Explicit Inductive Bias for Transfer Learning with Convolutional
    Networks"), the part of the penalty for the layers that the two tasks share.

    Args:
        parameters: Tensors of any shape.
        starting_point: The same number of tensors of the same shapes.

    Returns:
        A scalar ().

    >>> import torch
    >>> l2_starting_point([torch.tensor([1.0, 2.0])], [torch.tensor([0.0, 0.0])])
    tensor(2.5000)
    """
    squares = [(now - start).square().sum() for now, start in zip(parameters, starting_point, strict=True)]
    return sum(squares[1:], squares[0]) / 2


class Pretrained(PriorModule):
    """Fine-tuning of a network that another task has trained.

    Args:
        num_classes: Number of classes K of the primary task.
        backbone: A timm model name, or ``tiny``.
        weights: ``none``, ``imagenet``, or the path of a checkpoint of this library or a safetensors file.
        tuning: ``full``; ``probe`` trains the head alone; ``probe_then_tune`` trains the head for `probe_epochs` and
            then everything (LP-FT, Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform
            Out-of-Distribution"); ``gradual`` frees one layer more, from the head downwards, every `unfreeze_every`
            epochs (Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text Classification").
        probe_epochs: Epochs of the probe in ``probe_then_tune``.
        unfreeze_every: Epochs between two layers in ``gradual``.
        layer_decay: Factor on the learning rate from one layer to the next one below it; 1 treats all alike.
        l2_sp: Weight of the L2-SP penalty that keeps the backbone near its initial weights.
        freeze_statistics: Whether batch normalisation keeps the running statistics that it came with.
        lr: Learning rate of the default optimiser, AdamW.
        weight_decay: Weight decay of the default optimiser.
        warmup_epochs: Linear warm-up of the learning rate before its cosine, in epochs.
        optimizer: Replaces the default optimiser.
        scheduler: Replaces the default schedule.

    >>> model = Pretrained(num_classes=2, backbone="tiny")
    >>> import torch
    >>> model(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 2])
    """

    def __init__(
        self,
        num_classes: int = 2,
        backbone: str = "tiny",
        weights: str = "none",
        tuning: Tuning = "full",
        probe_epochs: int = 1,
        unfreeze_every: int = 1,
        layer_decay: float = 1.0,
        l2_sp: float = 0.0,
        freeze_statistics: bool = False,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup_epochs: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(num_classes, weights, lr, weight_decay, warmup_epochs, optimizer, scheduler)
        self.save_hyperparameters(ignore=["optimizer", "scheduler"])
        self.classifier = Classifier(num_classes, backbone)
        if l2_sp and weights == "none":
            raise PriorError("l2_sp keeps the network near its pretrained weights: it needs weights other than none")
        self.tuning, self.probe_epochs, self.unfreeze_every = tuning, probe_epochs, unfreeze_every
        self.layer_decay, self.l2_sp, self.freeze_statistics = layer_decay, l2_sp, freeze_statistics
        self._starting_point: list[Tensor] = []

    def explain(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Classifies images (B, 3, H, W) to logits (B, K) and class activation maps (B, K, h, w)."""
        logits, cam = self.classifier(image)
        return logits, cam

    def step(self, batch: PriorBatch) -> PriorStep:
        """Cross entropy, plus the L2-SP penalty where its weight is not zero."""
        logits = self(batch["image"])
        loss = F.cross_entropy(logits, batch["label"])
        if self.l2_sp == 0:
            return PriorStep(loss, logits, {})
        penalty = self.l2_sp * l2_starting_point(self._shared(), self._starting_point)
        return PriorStep(loss + penalty, logits, {"class": loss, "l2_sp": penalty})

    def setup(self, stage: str) -> None:
        """Freezes the backbone of a probe before a strategy wraps the module."""
        if self.tuning == "probe":
            self.classifier.backbone.requires_grad_(False)

    def on_fit_start(self) -> None:
        """Loads the initial weights and keeps a copy where L2-SP needs it."""
        super().on_fit_start()
        if self.l2_sp:
            # read anew: a resumed or reloaded run has already left its starting point
            layers = Backbone(self.classifier.backbone.name, self.weights).to(self.device).layers()
            self._starting_point = [parameter.detach() for layer in layers for parameter in layer]

    def on_train_start(self) -> None:
        """Freezes the statistics; before, Lightning would warn of layers in evaluation mode."""
        self.classifier.backbone.freeze_statistics = self.freeze_statistics or self.tuning == "probe"

    def configure_callbacks(self) -> list[Callback]:
        """The schedule of `tuning`, which is a callback so that other modules can use it."""
        if self.tuning == "probe_then_tune":
            return [Unfreezing(probe_epochs=self.probe_epochs)]
        if self.tuning == "gradual":
            return [Unfreezing(probe_epochs=self.unfreeze_every, unfreeze_every=self.unfreeze_every)]
        return []

    def parameter_groups(self) -> list[tuple[float, list[nn.Parameter]]]:
        """The head at the full learning rate, each layer below at `layer_decay` times that of the layer above."""
        layers = self.classifier.backbone.layers()
        heights = enumerate(reversed(layers), start=1)
        return [(1.0, list(self.classifier.head.parameters()))] + [
            (self.layer_decay**height, layer) for height, layer in heights
        ]

    def _shared(self) -> list[Tensor]:
        """The weights that the task shares with the one that the initial weights come from."""
        return [parameter for layer in self.classifier.backbone.layers() for parameter in layer]
