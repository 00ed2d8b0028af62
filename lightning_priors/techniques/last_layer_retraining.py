"""Baseline: the last layer is trained anew on held-out images with balanced groups or classes (DFR).

Kirichenko, Izmailov, Wilson: Last Layer Re-Training is Sufficient for Robustness to Spurious Correlations. ICLR 2023.
LaBonte, Muthukumar, Kumar: Towards Last-Layer Retraining for Group Robustness with Fewer Annotations. NeurIPS 2023.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from numpy.typing import NDArray
from torchmetrics import Metric

from lightning_priors.errors import PriorError
from lightning_priors.techniques.optimisation import PLAIN, Tuning
from lightning_priors.techniques.retrained_head import (
    Floats,
    HeldOut,
    LastLayer,
    RetrainedHead,
    cross_entropy,
    minimised,
)

STRENGTHS = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)
"""Inverse strengths of the penalty that the authors try."""

FITS = 10
"""The last layer is the mean of so many, each fitted to another balanced draw."""


def balanced_draw(kinds: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Draws as many images of each kind as the rarest kind has.

    Args:
        kinds: (N,) the group or class of each image.
        generator: What draws.

    Returns:
        Positions, kind by kind.

    >>> balanced_draw(np.array([0, 0, 0, 1]), np.random.default_rng(0))
    array([2, 3])
    """
    places = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
    rarest = min(map(len, places))
    return np.concatenate([generator.permutation(of_kind)[:rarest] for of_kind in places])


def sparse_last_layer(features: Floats, label: NDArray[np.int64], num_classes: int, strength: float) -> LastLayer:
    """Fits a logistic regression with an L1 penalty: minimises ``|W|_1 + strength * sum of cross entropies``.

    The bias has no penalty. With two classes ``W[1] - W[0]`` is that of a regression with one vector of weights.

    Args:
        features: (N, C).
        label: (N,).
        num_classes: Number of classes K.
        strength: The inverse of the penalty's weight, C of scikit-learn.

    >>> layer = sparse_last_layer(np.array([[-1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]), 2, strength=4.0)
    >>> np.round(layer.weight[1] - layer.weight[0], 3)  # 2 * 4 * sigmoid(-w) == 1
    array([1.946, 0.   ])
    """
    size = num_classes * features.shape[1]
    every = np.full(len(label), strength)

    def layer_of(vector: Floats) -> LastLayer:
        weight = vector[:size] - vector[size : 2 * size]
        return LastLayer(weight.reshape(num_classes, -1), vector[2 * size :])

    def objective(vector: Floats) -> tuple[float, Floats]:
        value, gradient = cross_entropy(layer_of(vector), features, label, every)
        by_weight, by_bias = gradient[:, :-1].ravel(), gradient[:, -1]
        penalty = float(vector[: 2 * size].sum())
        return value + penalty, np.concatenate([1 + by_weight, 1 - by_weight, by_bias])

    bounds = [(0.0, None)] * 2 * size + [(-np.inf, None)] * num_classes
    return layer_of(minimised(objective, np.zeros(2 * size + num_classes), bounds))


def worst(layer: LastLayer, features: Floats, label: NDArray[np.int64], kinds: NDArray[np.int64]) -> float:
    """Computes the accuracy of the kind of images that has the lowest."""
    right = (features @ layer.weight.T + layer.bias).argmax(1) == label
    return float(min(right[kinds == kind].mean() for kind in np.unique(kinds)))


def retrained(held_out: HeldOut, kinds: NDArray[np.int64], num_classes: int, strengths: Sequence[float]) -> LastLayer:
    """Trains the last layer anew as the authors do.

    The features are standardised. The strength of the penalty is the one that does best on the worst kind of one half
    of the images when it is fitted to the other; then the mean of `FITS` last layers is taken, each of which is fitted
    to a balanced draw of all images.

    Args:
        held_out: N images.
        kinds: (N,) the group or class that is balanced.
        num_classes: Number of classes K.
        strengths: To choose from.

    Returns:
        The last layer for features that are not standardised.
    """
    generator = np.random.default_rng(0)
    mean, std = held_out.features.mean(0), held_out.features.std(0)
    std = np.where(std > 0, std, 1.0)
    features, label = (held_out.features - mean) / std, held_out.label

    def fit(rows: NDArray[np.int64], strength: float) -> LastLayer:
        drawn = rows[balanced_draw(kinds[rows], generator)]
        return sparse_last_layer(features[drawn], label[drawn], num_classes, strength)

    order = generator.permutation(len(label))
    tuned, judged = np.array_split(order, 2)
    scores = [worst(fit(tuned, strength), features[judged], label[judged], kinds[judged]) for strength in strengths]
    best = strengths[int(np.argmax(scores))]
    fits = [fit(np.arange(len(label)), best) for _ in range(FITS)]
    weight = np.mean([layer.weight for layer in fits], 0) / std
    return LastLayer(weight, np.mean([layer.bias for layer in fits], 0) - weight @ mean)


class LastLayerRetraining(RetrainedHead):
    """Trains a classifier plainly, then its last layer on held-out images of which all groups are equally many.

    ``balance: classes`` needs no groups. Set ``data.held_out_fraction``; the authors hold half of the validation images
    out (``data.held_out_of: val``), whose groups have to be known then, or a fifth of the training images.

    Args:
        num_classes: Number of classes K of the primary task.
        balance: What is balanced, ``groups`` or ``classes``.
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
        PriorError: In training, if the data holds no images out.

    >>> LastLayerRetraining(balance="classes").hparams["balance"]
    'classes'
    """

    def __init__(
        self,
        *,
        num_classes: int = 2,
        balance: Literal["groups", "classes"] = "groups",
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
        if balance not in ("groups", "classes"):
            raise PriorError(f"balance is 'groups' or 'classes', not {balance!r}")
        self.balance = balance
        if balance == "groups":
            self.requires = (("group",),)

    def fitted(self, held_out: HeldOut) -> LastLayer:
        """Fits the last layer to balanced draws of the held-out images."""
        kinds = held_out.group if self.balance == "groups" else held_out.label
        return retrained(held_out, kinds, self.num_classes, STRENGTHS)
