"""The network that invents auxiliary labels, and the one that learns them beside its primary task."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_priors.functional.processes import gather_rows
from lightning_priors.functional.soft_labels import hierarchy_mask, masked_softmax, sinkhorn
from lightning_priors.nn.backbone import Backbone
from lightning_priors.nn.classifier import Classifier

Balance = Literal["entropy", "sinkhorn"]


class LabelGenerator(nn.Module):
    """Soft auxiliary labels for images, inside of their primary class (MAXL, Liu et al. 2019, section 3.3).

    Either a network of its own looks at the image, or a small head at the features that another network has of it; the
    gradient of the labels never goes back into those.

    Args:
        sub_classes: Number of sub-classes psi of each primary class, A in all.
        backbone: A timm model name or ``tiny`` for a network of its own; None for a head on features.
        num_features: Channels C of these features.
        balance: ``entropy`` makes a masked softmax, which needs a loss against collapse; ``sinkhorn`` gives each
            sub-class an equal share of the batch, over all processes.
        temperature: Above 0; below 1 the labels are harder.
        checkpoint: Whether a network of its own keeps no activations for the backward pass, but computes them again
            (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").

    Raises:
        ValueError: If not exactly one of backbone and features is given.
        PriorError: As `Backbone` does.

    >>> import torch
    >>> generator = LabelGenerator(sub_classes=[2, 3], num_features=8)
    >>> labels = generator(torch.rand(4, 8, 2, 2), torch.tensor([0, 0, 1, 1]))
    >>> labels[:2, 2:].sum().item(), torch.allclose(labels.sum(1), torch.ones(4))
    (0.0, True)
    """

    mask: Tensor

    def __init__(
        self,
        sub_classes: Sequence[int],
        backbone: str | None = None,
        num_features: int | None = None,
        balance: Balance = "entropy",
        temperature: float = 1.0,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if (backbone is None) == (num_features is None):
            raise ValueError("a label generator has either a backbone or the features of another network")
        self.balance, self.temperature, self.checkpoint = balance, temperature, checkpoint
        self.backbone = None if backbone is None else Backbone(backbone)
        channels = self.backbone.num_features if self.backbone is not None else num_features or 0
        hidden: list[nn.Module] = [] if self.backbone is not None else [nn.Linear(channels, channels), nn.ReLU()]
        self.head = nn.Sequential(*hidden, nn.Linear(channels, sum(sub_classes)))
        self.register_buffer("mask", hierarchy_mask(sub_classes), persistent=False)

    def forward(self, inputs: Tensor, label: Tensor) -> Tensor:
        """Invents labels.

        Args:
            inputs: Images (B, 3, H, W), or features (B, C, h, w) for a generator without network of its own.
            label: (B,) int64 primary classes.

        Returns:
            (B, A) float32 or float64; rows add up to 1, and are zero outside of the sub-classes of the primary class.
        """
        return self.labels(self.logits(inputs), label)

    def logits(self, inputs: Tensor) -> Tensor:
        """The scores (B, A) of all sub-classes, for the inputs of `forward`."""
        if self.checkpoint and torch.is_grad_enabled():
            contexts = partial(_first_and_second_time, self)
            scores: Tensor = checkpoint(self._scores, inputs, use_reentrant=False, context_fn=contexts)
            return scores
        return self._scores(inputs)

    def _scores(self, inputs: Tensor) -> Tensor:
        features = inputs.detach() if self.backbone is None else self.backbone(inputs)
        scores: Tensor = self.head(features.mean((2, 3)))
        return scores

    def labels(self, logits: Tensor, label: Tensor) -> Tensor:
        """Labels (B, A) from the scores (B, A) and primary classes (B,)."""
        if self.balance == "entropy":
            return masked_softmax(logits, self.mask[label], self.temperature)
        everybody, own = gather_rows(logits)
        masks, _ = gather_rows(self.mask[label].to(logits.dtype))
        return sinkhorn(everybody, masks > 0, self.temperature)[own]


@contextlib.contextmanager
def _unchanged_buffers(module: nn.Module) -> Iterator[None]:
    """Puts buffers, such as running statistics, back to what they were."""
    before = [buffer.clone() for buffer in module.buffers()]
    try:
        yield
    finally:  # the repetition ends with an exception of its own once it has what the backward pass needs
        for buffer, value in zip(module.buffers(), before, strict=True):
            buffer.copy_(value)


def _first_and_second_time(
    module: nn.Module,
) -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
    """What a pass and its repetition are made in: the images count once in the running statistics."""
    return contextlib.nullcontext(), _unchanged_buffers(module)


class TaskOutputs(NamedTuple):
    """What a network with a primary and an auxiliary task says of B images."""

    logits: Tensor
    """(B, K) of the primary task."""
    auxiliary: Tensor
    """(B, A)."""
    features: Tensor
    """(B, C, h, w)."""


class TwoTasks(nn.Module):
    """A classifier with a second, linear head for an auxiliary task on its features.

    Args:
        classifier: Of the primary task.
        auxiliary: A linear map from the mean features (B, C) to the auxiliary logits (B, A); None where A is 0.

    >>> import torch
    >>> network = TwoTasks(Classifier(num_classes=2), nn.Linear(128, 5))
    >>> network(torch.zeros(3, 3, 32, 32)).auxiliary.shape
    torch.Size([3, 5])
    """

    def __init__(self, classifier: Classifier, auxiliary: nn.Linear | None) -> None:
        super().__init__()
        self.classifier, self.auxiliary = classifier, auxiliary

    def forward(self, image: Tensor) -> TaskOutputs:
        """Classifies images (B, 3, H, W) for both tasks."""
        features = self.classifier.backbone(image)
        logits, _ = self.classifier.head(features)
        auxiliary = logits[:, :0] if self.auxiliary is None else self.auxiliary(features.mean((2, 3)))
        return TaskOutputs(logits, auxiliary, features)
