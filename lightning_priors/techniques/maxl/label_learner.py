"""How a label generator learns from a step of the network that its labels were used in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from lightning_priors.batch import SHAPES, PriorBatch
from lightning_priors.functional.distributed import sum_over_ranks, world_size
from lightning_priors.functional.focal import per_class_losses
from lightning_priors.hypergradient import InnerStep, RandomState
from lightning_priors.hypergradient.inner_step import Method
from lightning_priors.techniques.maxl.label_generator import LabelGenerator, TaskOutputs
from lightning_priors.techniques.maxl.meta_gradient import (
    MetaGradient,
    entropy_cotangent,
    generator_gradients,
    joint_norm,
    scaled_cotangents,
)
from lightning_priors.techniques.maxl.soft_labels import soft_label_loss


class PartOfBatch(NamedTuple):
    """Some images of a batch, or all of them."""

    batch: PriorBatch
    weight: float = 1.0
    """What a mean loss of these images is multiplied by, so that the mean over all ranks is what it counts as."""


@dataclass
class LabelledPart:
    """Images that a step of the network was made with, and the labels that the generator gave them."""

    part: PartOfBatch
    state: RandomState
    """From before the network's forward pass."""
    logits: Tensor
    """(B, A) of the generator, with their graph."""
    labels: Tensor
    """(B, A), with their graph back to the logits."""


class GeneratorGradient(NamedTuple):
    """What the generator is to be stepped with."""

    gradients: dict[str, Tensor]
    """By parameter name, the mean over all ranks."""
    norms: dict[str, Tensor]
    """Of its parts, () each, on the generator's logits, by name."""


@dataclass
class LabelLearner:
    """Computes the gradient on a label generator from a step of the network.

    Gradients are averaged over all ranks of a data-parallel training, as the primary gradient after the step, the step
    itself and the entropy have to be: then several ranks do what one does with their joint batch.

    Args:
        generator: Of the labels.
        gamma: Of the focal loss of the auxiliary task; 0 is cross entropy.
        aux_weight: Weight of the auxiliary loss.
        meta_gradient: The scale of the derivative, see `scaled_cotangents`.
        entropy_weight: Weight of the negative entropy of the mean label.
        method: How the derivative is computed, see `InnerStep.label_gradient`.

    >>> generator = LabelGenerator([2, 2], num_features=8)
    >>> LabelLearner(generator).generated({"label": torch.tensor([0, 1])}, torch.rand(2, 8, 1, 1))[1].shape
    torch.Size([2, 4])
    """

    generator: LabelGenerator
    gamma: float = 2.0
    aux_weight: float = 1.0
    meta_gradient: MetaGradient = "normalised"
    entropy_weight: float = 0.0
    method: Method = "forward_mode"

    def generated(self, batch: PriorBatch, features: Tensor) -> tuple[Tensor, Tensor]:
        """Has the generator label images; gives its logits and its labels (B, A).

        Args:
            batch: The images and their primary classes.
            features: (B, C, h, w) that the network has of them.
        """
        logits = self.generator.logits(features if self.generator.backbone is None else batch["image"])
        return logits, self.generator.labels(logits, batch["label"])

    def losses(self, outputs: TaskOutputs) -> Tensor:
        """Computes what each auxiliary class would cost each image, (B, A)."""
        return per_class_losses(outputs.auxiliary, self.gamma)

    def auxiliary_loss(self, outputs: TaskOutputs, labels: Tensor, part: PartOfBatch) -> Tensor:
        """Computes the weighted loss () of the auxiliary task on labels (B, A)."""
        return part.weight * self.aux_weight * soft_label_loss(self.losses(outputs), labels)

    def look_back(
        self, labelled: Sequence[LabelledPart], step: InnerStep, v: Mapping[str, Tensor], loss_scale: float = 1.0
    ) -> GeneratorGradient:
        """Computes the gradient from a step that was made.

        Args:
            labelled: The images that it was made with.
            step: Of the network.
            v: The primary gradient after it, by parameter name.
            loss_scale: What the backward pass of the generator is made at, in half precision.
        """
        derivatives = []
        for each in labelled:
            derivative = step.label_gradient((each.part.batch,), self.losses, v, self.method, each.state)
            derivatives.append(each.part.weight * self.aux_weight * derivative / len(labelled))
        return self.from_derivatives(labelled, derivatives, loss_scale)

    def from_derivatives(
        self, labelled: Sequence[LabelledPart], derivatives: Sequence[Tensor], loss_scale: float
    ) -> GeneratorGradient:
        """Computes the gradient from the derivatives (B, A) of the primary loss by the labels of some images."""
        logits, labels = [each.logits for each in labelled], [each.labels for each in labelled]
        masks = [self.generator.mask[each.part.batch["label"]] for each in labelled]
        asked = scaled_cotangents(derivatives, masks, self.meta_gradient)
        total = list(torch.autograd.grad(labels, logits, asked, retain_graph=True))
        norms = {"meta_gradient_norm": joint_norm(total)}
        if self.entropy_weight:
            slope = self.entropy_weight * entropy_cotangent(labels)
            spread = torch.autograd.grad(labels, logits, [slope.expand_as(each) for each in labels])
            norms["entropy_gradient_norm"] = joint_norm(spread)
            total = [first + second for first, second in zip(total, spread, strict=True)]
        return GeneratorGradient(generator_gradients(self.generator, logits, total, loss_scale), norms)


def halves_of(batch: PriorBatch) -> tuple[PartOfBatch, float, PartOfBatch]:
    """Halves a batch.

    Of a batch of one image the second half is that image too, with weight zero.

    Args:
        batch: Tensors that begin with the batch dimension.

    Returns:
        The first half, the larger one, by itself; the share that it has in the whole batch; and the second half with
        the weight that is left to it.

    >>> batch = {"image": torch.zeros(3, 3, 1, 1), "label": torch.tensor([5, 7, 9])}
    >>> first, share, second = halves_of(batch)
    >>> first.batch["label"], first.weight, round(share, 3), second.batch["label"], round(second.weight, 3)
    (tensor([5, 7]), 1.0, 0.667, tensor([9]), 0.333)
    """
    position = torch.arange(len(batch["label"]), device=batch["label"].device)
    chosen = 2 * position < len(position)
    here = [(len(position) + 1) // 2, len(position) // 2]
    first, second = sum_over_ranks(torch.tensor(here, device=position.device)).tolist()
    share = first / (first + second)
    weights = [count * world_size() / max(total, 1) for count, total in zip(here, (first, second), strict=True)]
    return _some(batch, chosen, weights[0]), share, _some(batch, ~chosen, weights[1] * (1 - share))


def _some(batch: PriorBatch, chosen: Tensor, weight: float) -> PartOfBatch:
    """Some images of a batch; all of them, with weight zero, where none is chosen."""
    if weight == 0:
        return PartOfBatch(batch, 0.0)
    known = {name: value for name, value in cast(Mapping[str, Tensor], batch).items() if name in SHAPES}
    return PartOfBatch(cast(PriorBatch, {name: value[chosen] for name, value in known.items()}), weight)
