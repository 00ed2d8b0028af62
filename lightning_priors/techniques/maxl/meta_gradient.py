"""The gradient on a label generator: from what its labels do to the primary loss, and against their collapse."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_priors.functional.distributed import mean_gradients_over_ranks, sum_over_ranks, world_size
from lightning_priors.hypergradient import named_gradients
from lightning_priors.techniques.maxl.soft_labels import label_entropy

MetaGradient = Literal["normalised", "raw"]


def mean_label(labels: Sequence[Tensor]) -> Tensor:
    """Computes the mean label of all images of all ranks.

    Args:
        labels: (B, A) for each of some batches.

    Returns:
        (A,), without a graph.

    >>> mean_label([torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])])
    tensor([0.3333, 0.6667])
    """
    sums = torch.stack([batch.detach().sum(0) for batch in labels]).sum(0)
    totals = sum_over_ranks(torch.cat([sums, sums.new_tensor([sum(map(len, labels))])]))
    return totals[:-1] / totals[-1]


def entropy_cotangent(labels: Sequence[Tensor]) -> Tensor:
    """Computes the derivative of `label_entropy` of the mean label of all ranks with respect to one image's label.

    Args:
        labels: (B, A) for each of some batches.

    Returns:
        (A,), the same for all images, scaled so that the mean over the ranks of the gradients is that of the entropy.

    >>> entropy_cotangent([torch.tensor([[0.5, 0.5]])])
    tensor([0.3069, 0.3069])
    """
    mean = mean_label(labels).requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(label_entropy(mean), mean)
    images = sum_over_ranks(slope.new_tensor(float(sum(map(len, labels)))))
    return slope * world_size() / images


def scaled_cotangents(gradients: Sequence[Tensor], masks: Sequence[Tensor], mode: MetaGradient) -> list[Tensor]:
    """Brings the meta-gradient on the labels to a scale that the generator can learn from.

    The labels of an image add up to 1, so what its sub-classes have in common is subtracted, and what lies outside them
    is set to zero. The scale is that of one image's derivative: it does not depend on the size of the batch.

    Args:
        gradients: (B, A) for each of some batches.
        masks: (B, A) bool, the sub-classes that each image may have.
        mode: ``normalised``: for each image, times their number, with root mean square 1 over all sub-classes that the
            images of all ranks may have; ``raw``: as it is.

    Returns:
        (B, A) for each batch; zeros stay zeros.

    >>> masks = [torch.tensor([[True, True, False], [True, True, False]])]
    >>> scaled_cotangents([torch.tensor([[3.0, 1.0, 7.0], [5.0, 3.0, 0.0]])], masks, "normalised")
    [tensor([[ 0.5000, -0.5000,  0.0000],
            [ 0.5000, -0.5000, -0.0000]])]
    """
    if mode == "raw":
        return list(gradients)
    centred = []
    for gradient, mask in zip(gradients, masks, strict=True):
        mean = (gradient * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
        centred.append((gradient - mean) * mask)
    squares_here = torch.stack([part.double().square().sum() for part in centred]).sum()
    entries_here = torch.stack([mask.sum() for mask in masks]).sum()
    counts = torch.stack([squares_here, entries_here, squares_here.new_tensor(sum(map(len, masks)))])
    squares, entries, images = sum_over_ranks(counts)
    per_image = images / world_size()
    size = (squares / entries).sqrt() * per_image
    factor = torch.where(size > 0, 1 / size, 0.0)
    return [(c * factor).to(c.dtype) for c in centred]


def generator_gradients(
    generator: nn.Module, logits: Sequence[Tensor], cotangents: Sequence[Tensor], scale: float = 1.0
) -> dict[str, Tensor]:
    """Computes the gradient on the generator's parameters, the mean over all ranks.

    Args:
        generator: What the logits come from.
        logits: (B, A) for each of some batches, with their graph.
        cotangents: Their gradients.
        scale: What the backward pass is made at, so that small gradients do not vanish in half precision.

    Returns:
        By parameter name.

    >>> generator = nn.Linear(1, 1)
    >>> generator_gradients(generator, [generator(torch.tensor([[2.0]]))], [torch.tensor([[3.0]])])
    {'weight': tensor([[6.]]), 'bias': tensor([3.])}
    """
    asked = [(scale * cotangent).to(output.dtype) for output, cotangent in zip(logits, cotangents, strict=True)]
    found = named_gradients(logits, dict(generator.named_parameters()), asked)
    return mean_gradients_over_ranks({name: gradient / scale for name, gradient in found.items()})


def joint_norm(parts: Sequence[Tensor]) -> Tensor:
    """Computes the norm of a gradient whose parts lie on several ranks, each scaled for a mean over them.

    Args:
        parts: Of this rank, any shapes.

    Returns:
        ().

    >>> joint_norm([torch.tensor([3.0]), torch.tensor([4.0])])
    tensor(5.)
    """
    squares = torch.stack([part.detach().float().square().sum() for part in parts]).sum()
    return sum_over_ranks(squares).sqrt() / world_size()


def shared_cosine(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Tensor:
    """Computes the cosine of two gradients on the parameters that both have.

    Args:
        first: By parameter name.
        second: By parameter name.

    Returns:
        () in [-1, 1]; zero where one of them is zero, or there is nothing in common.

    >>> shared_cosine({"a": torch.tensor([1.0]), "b": torch.tensor([2.0])}, {"a": torch.tensor([-3.0])})
    tensor(-1.)
    """
    pairs = [(first[name].flatten(), second[name].flatten()) for name in first if name in second]
    products = [torch.stack([a @ b, a @ a, b @ b]).double() for a, b in pairs] or [torch.zeros(3)]
    product, left, right = torch.stack(products).sum(0)
    cosine: Tensor = product / (left * right).sqrt()
    return cosine.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).float()
