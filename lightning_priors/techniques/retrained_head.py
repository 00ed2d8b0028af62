"""Base of the baselines that train a network as usual and then its last layer anew on images that were held out."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax
from torch import Tensor
from torchmetrics import Metric

from lightning_priors.batch import PriorBatch, complete
from lightning_priors.errors import PriorError
from lightning_priors.functional.distributed import from_rank_zero
from lightning_priors.nn import CAMHead, Classifier
from lightning_priors.techniques.base import PriorModule, PriorStep
from lightning_priors.techniques.optimisation import PLAIN, Tuning

Floats = NDArray[np.float64]
Penalty = Callable[[Floats], tuple[float, Floats]]

SMALLEST_GRADIENT = 1e-6
"""Where the fit of a last layer ends; the losses are sums over some tens to thousands of images."""


class HeldOut(NamedTuple):
    """What the network makes of N held-out images."""

    features: Floats
    """(N, C), the mean over the cells."""
    logits: Floats
    """(N, K) of the head that was trained with the network."""
    label: NDArray[np.int64]
    """(N,)."""
    group: NDArray[np.int64]
    """(N,); the label where there are no groups."""


class LastLayer(NamedTuple):
    """A linear map from features to logits."""

    weight: Floats
    """(K, C)."""
    bias: Floats
    """(K,)."""


def cross_entropy(
    layer: LastLayer, features: Floats, label: NDArray[np.int64], weights: Floats
) -> tuple[float, Floats]:
    """Computes a weighted sum of cross entropies and its derivative.

    Args:
        layer: The last layer.
        features: (N, C).
        label: (N,).
        weights: (N,) of the images.

    Returns:
        The sum, and its derivative by weight and bias, (K, C + 1) with the bias last.

    >>> flat = LastLayer(np.zeros((2, 1)), np.zeros(2))
    >>> value, gradient = cross_entropy(flat, np.array([[3.0]]), np.array([1]), np.ones(1))
    >>> round(value, 4), gradient.tolist()
    (0.6931, [[1.5, 0.5], [-1.5, -0.5]])
    """
    chosen = np.arange(len(label)), label
    log_probabilities = log_softmax(features @ layer.weight.T + layer.bias, axis=1)
    error = np.exp(log_probabilities)
    error[chosen] -= 1
    error *= weights[:, None]
    gradient = np.concatenate([error.T @ features, error.sum(0)[:, None]], 1)
    return float(-(weights * log_probabilities[chosen]).sum()), gradient


def minimised(
    objective: Callable[[Floats], tuple[float, Floats]], start: Floats, bounds: list[tuple[float, None]] | None = None
) -> Floats:
    """Minimises a smooth convex function of a vector (L-BFGS-B).

    Args:
        objective: Gives the value and the gradient, of the shape of the vector.
        start: Where to begin.
        bounds: The least value of each entry.

    >>> minimised(lambda x: (float(((x - 3) ** 2).sum()), 2 * (x - 3)), np.zeros(1)).round(4)
    array([3.])
    """
    options = {"gtol": SMALLEST_GRADIENT, "ftol": 0.0, "maxiter": 5000, "maxfun": 10000}
    found: Floats = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return found


class RetrainedHead(PriorModule, ABC):
    """Trains a classifier plainly, and before each validation fits the last layer anew that answers for it.

    The images for it are those that ``data.held_out_fraction`` sets aside, from the training or the validation split.
    So the checkpoint is selected by what the classifier with its new last layer does.

    Args:
        num_classes: Number of classes K of the primary task.
        backbone: A timm model name, or ``tiny``.
        weights: ``none``, ``imagenet``, or the path of a checkpoint.
        tuning: As in `PriorModule`, as are the options that follow.
        lr: As in `PriorModule`.
        weight_decay: As in `PriorModule`.
        warmup_epochs: As in `PriorModule`.
        optimizer: As in `PriorModule`.
        scheduler: As in `PriorModule`.
        extra_metrics: As in `PriorModule`.

    Raises:
        PriorError: In training, if the data holds no images out, or nothing is validated.
    """

    def __init__(
        self,
        *,
        num_classes: int = 2,
        backbone: str = "tiny",
        weights: str = "none",
        tuning: Tuning | Mapping[str, Any] = PLAIN,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup_epochs: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
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
        self.head = CAMHead(self.classifier.backbone.num_features, num_classes).requires_grad_(False)
        self.head.load_state_dict(self.classifier.head.state_dict())

    @abstractmethod
    def fitted(self, held_out: HeldOut) -> LastLayer:
        """Fits a last layer to held-out images."""

    def trained_network(self) -> Classifier:
        """Gives the classifier; the last layer that answers is fitted, not trained."""
        return self.classifier

    def explain(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Classifies images (B, 3, H, W) through the fitted last layer: logits (B, K) and maps (B, K, h, w)."""
        self.classifier.read_initial_weights()
        logits, cam = self.head(self.classifier.backbone(image))
        return logits, cam

    def step(self, batch: PriorBatch) -> PriorStep:
        """Computes the plain cross entropy of the classifier with the last layer that is trained with it."""
        logits, _ = self.classifier(batch["image"])
        loss = F.cross_entropy(logits, batch["label"])
        return PriorStep(loss, logits, {"primary": loss})

    def on_train_start(self) -> None:
        """Checks that there are images to fit the last layer to, and that it will be fitted."""
        super().on_train_start()
        self._loader()
        if not self.trainer.enable_validation:
            raise PriorError(f"{type(self).__name__} fits its last layer before each validation; validate")

    def on_validation_start(self) -> None:
        """Fits the last layer, if the network is being trained."""
        super().on_validation_start()
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            layer = self.fitted(self._held_out())
            for parameter, value in zip((self.head.weight, self.head.bias), layer, strict=True):
                parameter.data.copy_(from_rank_zero(torch.as_tensor(value).to(parameter)))

    def _loader(self) -> Any:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not hasattr(data, "held_out_dataloader"):
            raise PriorError(f"{type(self).__name__} needs a data module with a held_out_dataloader()")
        return data.held_out_dataloader()

    @torch.no_grad()
    def _held_out(self) -> HeldOut:
        """Passes the held-out images through the network."""
        found: dict[str, list[Tensor]] = {name: [] for name in HeldOut._fields}
        for given in self._loader():
            batch = complete(self.trainer.strategy.batch_to_device(given))
            features = self.classifier.backbone(batch["image"]).float()
            found["features"].append(features.mean((2, 3)))
            found["logits"].append(self.classifier.head(features)[0])
            found["label"].append(batch["label"])
            found["group"].append(batch.get("group", batch["label"]))
        arrays = {name: torch.cat(parts).cpu().numpy() for name, parts in found.items()}
        return HeldOut(
            arrays["features"].astype(np.float64), arrays["logits"].astype(np.float64), arrays["label"], arrays["group"]
        )
