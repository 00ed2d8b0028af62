"""The network that makes auxiliary labels, and the one that learns them beside its primary task."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, cast

from torch import Tensor, nn

from lightning_priors.batch import PriorBatch
from lightning_priors.functional.distributed import gather_rows
from lightning_priors.nn import Backbone, Classifier
from lightning_priors.priors import Prior, Seen, see
from lightning_priors.techniques.maxl.soft_labels import hierarchy_mask, masked_softmax, sinkhorn

Balance = Literal["entropy", "sinkhorn"]


class LabelGenerator(nn.Module):
    """Makes soft auxiliary labels for images, inside their primary class (MAXL, Liu et al. 2019, section 3.3).

    Either a network of its own looks at the image, or a small head looks at the features that another network has of
    it; the gradient of the labels never goes back into those.

    Args:
        sub_classes: Number of sub-classes psi of each primary class, A in all.
        backbone: A timm model name or ``tiny`` for a network of its own; None for a head on features.
        num_features: Channels C of these features.
        balance: ``entropy`` makes a masked softmax, which needs a loss against collapse; ``sinkhorn`` gives each
            sub-class an equal share of the batch, over all ranks.
        temperature: Above 0; below 1 the labels are harder.

    Raises:
        ValueError: If not exactly one of backbone and features is given.
        PriorError: As `lightning_priors.nn.Backbone` does.

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
    ) -> None:
        super().__init__()
        if (backbone is None) == (num_features is None):
            raise ValueError("a label generator has either a backbone or the features of another network")
        self.balance, self.temperature = balance, temperature
        self.backbone = None if backbone is None else Backbone(backbone)
        channels = self.backbone.num_features if self.backbone is not None else num_features or 0
        hidden: list[nn.Module] = [] if self.backbone is not None else [nn.Linear(channels, channels), nn.ReLU()]
        self.head = nn.Sequential(*hidden, nn.Linear(channels, sum(sub_classes)))
        self.register_buffer("mask", hierarchy_mask(sub_classes), persistent=False)

    def forward(self, inputs: Tensor, label: Tensor) -> Tensor:
        """Makes labels.

        Args:
            inputs: Images (B, 3, H, W), or features (B, C, h, w) for a generator without a network of its own.
            label: (B,) int64 primary classes.

        Returns:
            (B, A) float32 or float64; rows add up to 1, and are zero outside the sub-classes of the primary class.
        """
        return self.labels(self.logits(inputs), label)

    def logits(self, inputs: Tensor) -> Tensor:
        """Computes the scores (B, A) of all sub-classes, from the inputs of `forward`."""
        features = inputs.detach() if self.backbone is None else self.backbone(inputs)
        scores: Tensor = self.head(features.mean((2, 3)))
        return scores

    def labels(self, logits: Tensor, label: Tensor) -> Tensor:
        """Makes labels (B, A) of the scores (B, A) and primary classes (B,)."""
        if self.balance == "entropy":
            return masked_softmax(logits, self.mask[label], self.temperature)
        everybody, own = gather_rows(logits)
        masks, _ = gather_rows(self.mask[label].to(logits.dtype))
        return sinkhorn(everybody, masks > 0, self.temperature)[own]


class TaskOutputs(NamedTuple):
    """What a network with a primary and an auxiliary task says of B images."""

    seen: Seen
    """Its pass for the primary task."""
    auxiliary: Tensor
    """(B, A) logits of the auxiliary task."""


class TwoTasks(nn.Module):
    """A classifier with a second, linear head for an auxiliary task on its features, and priors that act on it.

    Args:
        classifier: Of the primary task.
        num_labels: Number of auxiliary classes A.
        priors: Of the classifier, to be attached to it.

    >>> import torch
    >>> network = TwoTasks(Classifier(num_classes=2), num_labels=5)
    >>> network({"image": torch.zeros(3, 3, 32, 32)}).auxiliary.shape
    torch.Size([3, 5])
    """

    def __init__(self, classifier: Classifier, num_labels: int, priors: Sequence[Prior] = ()) -> None:
        super().__init__()
        self.classifier, self.priors = classifier, nn.ModuleList(priors)
        self.auxiliary = nn.Linear(classifier.backbone.num_features, num_labels)

    def forward(self, batch: Mapping[str, Tensor], image_alone: bool = False) -> TaskOutputs:
        """Classifies images for both tasks.

        Args:
            batch: A `PriorBatch`.
            image_alone: Whether priors see the image alone, as in evaluation.
        """
        known = None if image_alone else cast(PriorBatch, batch)
        seen = see(self.classifier, self.acting(), batch["image"], known)
        return TaskOutputs(seen, self.auxiliary(seen.features.mean((2, 3))))

    def acting(self) -> list[Prior]:
        """Lists the priors."""
        return list(self.priors)  # type: ignore[arg-type]
