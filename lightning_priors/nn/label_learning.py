"""How a label generator learns from a step of the network: one that was made, or one that is only looked ahead at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from lightning_priors.batch import PriorBatch
from lightning_priors.functional.generator_update import (
    MetaGradient,
    entropy_cotangent,
    generator_gradients,
    joint_norm,
    scaled_cotangents,
)
from lightning_priors.functional.hypergradient import (
    InnerStep,
    Method,
    named_gradients,
    unrolled_label_gradient,
)
from lightning_priors.functional.kept_convolutions import KeptConvolutions
from lightning_priors.functional.processes import mean_gradients, process_count, total_over_processes
from lightning_priors.functional.random_state import RandomState
from lightning_priors.functional.soft_labels import per_class_losses, soft_label_loss
from lightning_priors.functional.update_rules import global_norm, stepped_parameters
from lightning_priors.nn.label_generator import LabelGenerator, TaskOutputs, TwoTasks

MetaMethod = Literal["forward_mode", "one_convolution", "finite_difference", "unrolled"]


class Part(NamedTuple):
    """Images of a batch that serve one purpose."""

    batch: PriorBatch
    share: float
    """What a mean over these images is multiplied by, so that the mean over all processes is that of all images."""
    weight: float = 1.0
    """What a loss of these images is multiplied by besides, where they are not all that a step is made with."""

    def primary_loss(self, outputs: TaskOutputs) -> Tensor:
        """The weighted cross entropy of the primary task, ()."""
        return self.share * self.weight * F.cross_entropy(outputs.logits, self.batch["label"])


@dataclass
class InnerBatch:
    """A batch that a step was made with."""

    part: Part
    state: RandomState
    """From before the network's forward pass."""
    logits: Tensor
    """(B, A) of the generator, with their graph."""
    labels: Tensor
    """(B, A), with their graph back to the logits."""
    kept: KeptConvolutions | None = None
    """Of the network's forward pass."""


class Lesson(NamedTuple):
    """What the generator learns from a step."""

    gradients: dict[str, Tensor]
    """On the generator, by parameter name, the mean over all processes."""
    norms: dict[str, Tensor]
    """Of what it is made of, on the generator's logits, by name."""


class LookAhead(NamedTuple):
    """A step that is not made."""

    lesson: Lesson
    labels: Tensor
    """(B, A)."""
    outputs: TaskOutputs
    """Of the network, before the step."""
    primary: Tensor
    """() the primary loss before the step, of the images that it is made with."""
    auxiliary: Tensor
    """() their auxiliary loss."""
    after: Tensor | None
    """() the primary loss after the step, of the meta batch; None for the method ``unrolled``."""


@dataclass(frozen=True)
class LabelLearner:
    """A network, its label generator, and how the one learns from steps of the other.

    Gradients come without loss scale and averaged over all processes of a data-parallel training, as the primary
    gradient after the step, the step itself and the entropy have to be: then several processes do what one does with
    their joint batch.

    Args:
        network: Of the two tasks.
        generator: Of the labels of the second.
        gamma: Of the focal loss; 0 is cross entropy.
        aux_weight: Weight of the auxiliary loss.
        method: Of the derivative by the labels.
        meta_gradient: Its scale, see `scaled_cotangents`.
        entropy_weight: Weight of the negative entropy of the mean label.
        frozen_preconditioner: As for `InnerStep`.
        clip_norm: Greatest norm of the network's gradient.
        loss_scale: What losses are multiplied by before backward passes in half precision.

    >>> from lightning_priors.nn import Classifier
    >>> network = TwoTasks(Classifier(num_classes=2), nn.Linear(128, 4))
    >>> learner = LabelLearner(network, LabelGenerator([2, 2], num_features=128))
    >>> batch = {"image": torch.zeros(2, 3, 32, 32), "label": torch.tensor([0, 1]), "index": torch.arange(2)}
    >>> part, optimizer = Part(batch, share=1.0), torch.optim.SGD(network.parameters(), lr=0.1)
    >>> sorted(learner.look_ahead(part, part, optimizer).lesson.gradients)
    ['head.0.bias', 'head.0.weight', 'head.2.bias', 'head.2.weight']
    """

    network: TwoTasks
    generator: LabelGenerator
    gamma: float = 2.0
    aux_weight: float = 1.0
    method: MetaMethod = "forward_mode"
    meta_gradient: MetaGradient = "normalised"
    entropy_weight: float = 0.2
    frozen_preconditioner: bool = False
    clip_norm: float | None = None
    loss_scale: float = 1.0

    def generated(self, batch: PriorBatch, features: Tensor) -> tuple[Tensor, Tensor]:
        """The generator's logits and labels (B, A) for images with the network's features (B, C, h, w)."""
        logits = self.generator.logits(features if self.generator.backbone is None else batch["image"])
        return logits, self.generator.labels(logits, batch["label"])

    def losses(self, outputs: TaskOutputs) -> Tensor:
        """What each auxiliary class would cost each image, (B, A)."""
        return per_class_losses(outputs.auxiliary, self.gamma)

    def look_back(self, inner: Sequence[InnerBatch], step: InnerStep, v: Mapping[str, Tensor]) -> Lesson:
        """Learns from a step that was made.

        Args:
            inner: The batches it was made with.
            step: Of the network.
            v: The primary gradient after it, by parameter name.
        """
        return self._lesson(inner, [self._label_gradient(batch, step, v) / len(inner) for batch in inner])

    def look_ahead(self, train: Part, meta: Part, optimizer: torch.optim.Optimizer) -> LookAhead:
        """Learns from a step that is not made; no buffer is changed.

        Args:
            train: What the step would be made with.
            meta: Where the primary loss is to be low after it.
            optimizer: Of the network.
        """
        state = RandomState(train.batch["image"].device)
        outputs = untouched(self.network, train.batch["image"])
        logits, labels = self.generated(train.batch, outputs.features)
        primary = train.primary_loss(outputs)
        auxiliary = train.share * self.aux_weight * soft_label_loss(self.losses(outputs), labels.detach())
        inner = InnerBatch(train, state, logits, labels)
        if self.method == "unrolled":
            gradient, after = self._unrolled(inner, meta, optimizer), None
        else:
            gradients = network_gradients(primary + auxiliary, self.network, self.loss_scale)
            factor = clip(gradients, self.clip_norm)
            step = InnerStep(self.network, optimizer, gradients, factor, self.frozen_preconditioner)
            point = stepped_parameters(self.network, optimizer, gradients)
            v, after = self.primary_gradient(meta, {name: p.detach().requires_grad_() for name, p in point.items()})
            gradient = self._label_gradient(inner, step, v)
        return LookAhead(self._lesson([inner], [gradient]), labels, outputs, primary, auxiliary, after)

    def primary_gradient(
        self, meta: Part, point: Mapping[str, Tensor] | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The gradient of the primary loss, and the loss (); no buffer is changed.

        Args:
            meta: Images.
            point: The network's parameters by name; those that it has, where not given.
        """
        point = dict(self.network.named_parameters()) if point is None else point
        loss = meta.primary_loss(untouched(self.network, meta.batch["image"], point=point))
        wanted = {name: p for name, p in point.items() if p.requires_grad}
        found = torch.autograd.grad(loss * self.loss_scale, list(wanted.values()), allow_unused=True)
        return mean_gradients(_unscaled(wanted, found, self.loss_scale)), loss.detach()

    def _label_gradient(self, inner: InnerBatch, step: InnerStep, v: Mapping[str, Tensor]) -> Tensor:
        """The derivative of the primary loss after the step by the labels (B, A) of one of its batches."""
        image = (inner.part.batch["image"],)
        method = cast(Method, self.method)
        gradient = step.label_gradient(image, self.losses, v, method, inner.state, inner.kept)
        return inner.part.share * inner.part.weight * self.aux_weight * gradient

    def _unrolled(self, inner: InnerBatch, meta: Part, optimizer: torch.optim.Optimizer) -> Tensor:
        """The same by double backward, for one process."""
        train, label = inner.part, inner.part.batch["label"]

        def inner_loss(outputs: TaskOutputs, labels: Tensor) -> Tensor:
            auxiliary = self.aux_weight * soft_label_loss(self.losses(outputs), labels)
            return train.share * (F.cross_entropy(outputs.logits, label) + auxiliary)

        images = (train.batch["image"],), (meta.batch["image"],)
        return unrolled_label_gradient(
            self.network, optimizer, images[0], inner.labels, inner_loss, images[1], meta.primary_loss, self.clip_norm
        )

    def _lesson(self, inner: Sequence[InnerBatch], gradients: Sequence[Tensor]) -> Lesson:
        """The gradient on the generator, from that on the labels of some batches."""
        logits, labels = [batch.logits for batch in inner], [batch.labels for batch in inner]
        masks = [self.generator.mask[batch.part.batch["label"]] for batch in inner]
        asked = scaled_cotangents(gradients, masks, self.meta_gradient)
        total = list(torch.autograd.grad(labels, logits, asked, retain_graph=True))
        norms = {"meta_gradient_norm": joint_norm(total)}
        if self.entropy_weight:
            slope = self.entropy_weight * entropy_cotangent(labels)
            spread = torch.autograd.grad(labels, logits, [slope.expand_as(batch) for batch in labels])
            norms["entropy_gradient_norm"] = joint_norm(spread)
            total = [first + second for first, second in zip(total, spread, strict=True)]
        return Lesson(generator_gradients(self.generator, logits, total, self.loss_scale), norms)


def network_gradients(
    loss: Tensor, network: nn.Module, loss_scale: float, retain_graph: bool = False
) -> dict[str, Tensor]:
    """The gradient of a loss by parameter name, without loss scale, averaged over all processes.

    Args:
        loss: ().
        network: Its parameters that require gradients are asked for.
        loss_scale: What the loss is multiplied by before the backward pass.
        retain_graph: Whether another loss will be differentiated through the same forward pass.

    >>> network = nn.Linear(1, 1)
    >>> network_gradients(3 * network.bias.sum(), network, loss_scale=1024.0)
    {'bias': tensor([3.])}
    """
    found = named_gradients(loss * loss_scale, network, retain_graph)
    return mean_gradients(_unscaled(found, list(found.values()), loss_scale))


def clip(gradients: Mapping[str, Tensor], norm: float | None) -> Tensor | None:
    """Shortens gradients in place to a norm, all together.

    Args:
        gradients: By name.
        norm: The greatest; None leaves them alone.

    Returns:
        What they were multiplied by, if they may have been.

    >>> clip({"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}, norm=2.5)
    tensor(0.5000)
    """
    if norm is None:
        return None
    factor = (norm / (global_norm(gradients) + 1e-6)).clamp(max=1)
    for gradient in gradients.values():
        gradient *= factor
    return factor


def part_of(batch: PriorBatch, chosen: Tensor) -> Part:
    """Some images of a batch; if there are none in this process, all of them with a share of zero.

    Args:
        batch: Tensors that begin with the batch dimension.
        chosen: (B,) bool.

    >>> batch = {"image": torch.zeros(2, 3, 1, 1), "label": torch.tensor([5, 7]), "index": torch.arange(2)}
    >>> part_of(batch, torch.tensor([False, True])).batch["label"]
    tensor([7])
    """
    count = chosen.sum()
    total = total_over_processes(count)
    if not count:
        return Part(batch, 0.0)
    some = cast(PriorBatch, {name: cast(Tensor, value)[chosen] for name, value in batch.items()})
    return Part(some, (count * process_count() / total).item())


def halves_of(batch: PriorBatch) -> tuple[Part, float, Part]:
    """The first half of a batch by itself, and the other one as a part of the batch.

    Args:
        batch: Tensors that begin with the batch dimension.

    Returns:
        The first half, the larger one, by itself; the weight that it has in the whole batch; and the other half with
        the weight that is left.

    >>> batch = {"image": torch.zeros(3, 3, 1, 1), "label": torch.tensor([5, 7, 9]), "index": torch.arange(3)}
    >>> first, weight, second = halves_of(batch)
    >>> first.batch["label"], first.weight, round(weight, 3), second.batch["label"], round(second.weight, 3)
    (tensor([5, 7]), 1.0, 0.667, tensor([9]), 0.333)
    """
    position = torch.arange(len(batch["label"]), device=batch["label"].device)
    chosen = 2 * position < len(position)
    counts = torch.stack([chosen.sum(), (~chosen).sum()])
    first, second = total_over_processes(counts).tolist()
    weight = first / (first + second)
    return part_of(batch, chosen), weight, part_of(batch, ~chosen)._replace(weight=1 - weight)


def untouched(network: nn.Module, *inputs: Tensor, point: Mapping[str, Tensor] | None = None) -> Any:
    """What a network says, its buffers, such as running statistics, staying as they are.

    Args:
        network: Any module.
        inputs: Its arguments.
        point: Parameters by name to use instead of its own.

    >>> network = nn.BatchNorm1d(1)
    >>> _ = untouched(network, torch.randn(4, 1))
    >>> network.running_mean
    tensor([0.])
    """
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    return functional_call(network, {**buffers, **(point or {})}, inputs)


def _unscaled(names: Mapping[str, Tensor], found: Sequence[Tensor | None], loss_scale: float) -> dict[str, Tensor]:
    """Gradients by name, the loss scale taken off."""
    named = {name: g for name, g in zip(names, found, strict=True) if g is not None}
    return named if loss_scale == 1 else {name: g / loss_scale for name, g in named.items()}
