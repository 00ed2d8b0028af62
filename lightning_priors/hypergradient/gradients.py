"""Gradients by parameter name: taking them, measuring their norm, clipping it."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def named_gradients(
    outputs: Tensor | Sequence[Tensor],
    parameters: Mapping[str, Tensor],
    cotangents: Sequence[Tensor] | None = None,
    retain_graph: bool = False,
    create_graph: bool = False,
) -> dict[str, Tensor]:
    """Computes gradients by parameter name; ``.grad`` stays as it is.

    Args:
        outputs: A loss (), or several tensors of any shape.
        parameters: By name, such as ``dict(network.named_parameters())``; those that require no gradient are left out.
        cotangents: The gradient of each of the outputs, of its shape; needed unless the output is a scalar.
        retain_graph: Whether the same forward pass will be differentiated once more.
        create_graph: Whether the gradients themselves will be differentiated.

    Returns:
        The gradients of the parameters that the outputs depend on.

    >>> network = torch.nn.Linear(1, 1)
    >>> named_gradients(3 * network.bias.sum(), dict(network.named_parameters()))
    {'bias': tensor([3.])}
    """
    wanted = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    found = torch.autograd.grad(
        outputs,
        list(wanted.values()),
        cotangents,
        retain_graph=retain_graph or create_graph,
        create_graph=create_graph,
        allow_unused=True,
    )
    return {name: gradient for name, gradient in zip(wanted, found, strict=True) if gradient is not None}


def global_norm(tensors: Mapping[str, Tensor]) -> Tensor:
    """Computes the Euclidean norm () of all entries of all tensors together.

    Args:
        tensors: At least one, of any shapes.

    >>> global_norm({"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])})
    tensor(5.)
    """
    norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t) for t in tensors.values()]))
    return norm


def clip_by_norm(gradients: Mapping[str, Tensor], max_norm: float) -> tuple[dict[str, Tensor], Tensor]:
    """Clips gradients by their joint norm, as ``torch.nn.utils.clip_grad_norm_`` does; differentiable.

    Args:
        gradients: By name.
        max_norm: The greatest norm.

    Returns:
        The clipped gradients, and the factor () in [0, 1] that they were multiplied by.

    >>> clip_by_norm({"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}, max_norm=2.5)
    ({'a': tensor([1.5000]), 'b': tensor([2.0000])}, tensor(0.5000))
    """
    factor = (max_norm / (global_norm(gradients) + 1e-6)).clamp(max=1)
    return {name: factor * gradient for name, gradient in gradients.items()}, factor
