"""Baseline: the last layer is tuned on held-out images, those most that the classifier has wrong; it needs no groups.

Qiu, Potapczynski, Izmailov, Wilson: Simple and Fast Group Robustness by Automatic Feature Reweighting. ICML 2023.
"""

from collections.abc import Mapping

import numpy as np
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from numpy.typing import NDArray
from scipy.special import softmax
from torchmetrics import Metric

from lightning_priors.ranges import check_not_negative, check_positive
from lightning_priors.techniques.optimisation import PLAIN, Tuning
from lightning_priors.techniques.retrained_head import (
    Floats,
    HeldOut,
    LastLayer,
    RetrainedHead,
    cross_entropy,
    minimised,
)


def image_weights(logits: Floats, label: NDArray[np.int64], gamma: float) -> Floats:
    """Weighs images by how wrong the classifier has them (equation 3): ``exp(-gamma * p_label) / count of the label``.

    Args:
        logits: (N, K).
        label: (N,).
        gamma: How much those count that are wrong; 0 balances the classes alone.

    Returns:
        (N,) that add up to 1.

    >>> even = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    >>> image_weights(even, np.array([0, 1, 1]), gamma=4.0)
    array([0.5 , 0.25, 0.25])
    """
    probability = softmax(logits, axis=1)[np.arange(len(label)), label]
    weights = np.exp(-gamma * probability) / np.bincount(label)[label]
    return np.asarray(weights / weights.sum())


def tuned_last_layer(
    features: Floats, label: NDArray[np.int64], weights: Floats, start: LastLayer, penalty: float
) -> LastLayer:
    """Fits the last layer near the one that it starts from (equation 4).

    Minimises ``sum of weight * cross entropy + penalty * |layer - start|^2``, to the minimum, where the authors stop
    gradient descent by the validation images.

    Args:
        features: (N, C).
        label: (N,).
        weights: (N,) that add up to 1.
        start: The last layer that was trained with the network.
        penalty: The weight lambda of the distance, above 0.
    """
    first = np.concatenate([start.weight, start.bias[:, None]], 1)

    def objective(vector: Floats) -> tuple[float, Floats]:
        both = vector.reshape(first.shape)
        value, gradient = cross_entropy(LastLayer(both[:, :-1], both[:, -1]), features, label, weights)
        away = both - first
        return value + penalty * float((away**2).sum()), (gradient + 2 * penalty * away).ravel()

    found = minimised(objective, first.ravel()).reshape(first.shape)
    return LastLayer(found[:, :-1], found[:, -1])


class AFR(RetrainedHead):
    """Trains a classifier plainly, then tunes its last layer on held-out images, those most that it has wrong.

    Set ``data.held_out_fraction``; the authors hold a fifth of the training images out.

    Args:
        num_classes: Number of classes K of the primary task.
        gamma: How much the images count that are wrong; the authors try 4 to 20 on Waterbirds.
        penalty: Weight of the distance to the last layer that was trained with the network, above 0.
        backbone: A timm model name, or ``tiny``.
        weights: ``none``, ``imagenet``, or the path of a checkpoint.
        tuning: How pretrained weights are tuned.
        lr: Learning rate of the default optimiser, AdamW.
        weight_decay: Weight decay of the default optimiser.
        warmup_epochs: Linear warm-up of the learning rate before its cosine, in epochs.
        optimizer: Replaces the default optimiser.
        scheduler: Replaces the default schedule.
        extra_metrics: Further metrics by name.

    Raises:
        PriorError: If the penalty is not above 0; in training, if the data holds no images out.

    >>> AFR(gamma=10.0).hparams["gamma"]
    10.0
    """

    def __init__(
        self,
        *,
        num_classes: int = 2,
        gamma: float = 4.0,
        penalty: float = 0.1,
        backbone: str = "tiny",
        weights: str = "none",
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
            backbone=backbone,
            weights=weights,
            tuning=tuning,
            lr=lr,
            weight_decay=weight_decay,
            warmup_epochs=warmup_epochs,
            optimizer=optimizer,
            scheduler=scheduler,
            extra_metrics=extra_metrics,
        )
        self.save_hyperparameters()
        check_not_negative({"gamma": gamma})
        check_positive({"penalty": penalty})  # without one the last layer may grow without end
        self.gamma, self.penalty = gamma, penalty

    def fitted(self, held_out: HeldOut) -> LastLayer:
        """Tunes the last layer on the held-out images by how wrong each is."""
        head = self.classifier.head
        start = LastLayer(*(part.detach().double().cpu().numpy() for part in (head.weight, head.bias)))
        weights = image_weights(held_out.logits, held_out.label, self.gamma)
        return tuned_last_layer(held_out.features, held_out.label, weights, start, self.penalty)
