"""The derivative of a network's losses along a direction in the space of its parameters."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_priors.hypergradient.batch_norm import LeanBatchNorm
from lightning_priors.hypergradient.gradients import global_norm

Losses = Callable[[Any], Tensor]
"""From what the network returns to the losses (B, A) that each class would cost each image."""


def forward_mode(
    network: nn.Module,
    parameters: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    inputs: tuple[Any, ...],
    losses: Losses,
    direction: Mapping[str, Tensor],
) -> Tensor:
    """Computes the derivative of each image's losses along a direction, exactly, for about two forward passes.

    Args:
        network: Any module whose operations have forward-mode derivatives.
        parameters: The point, by parameter name.
        buffers: By name; not changed.
        inputs: The arguments of the network.
        losses: From what the network returns to losses (B, A).
        direction: By parameter name; parameters without one stay where they are.

    Returns:
        (B, A).

    Raises:
        NotImplementedError: If an operation of the network has no forward-mode derivative.

    >>> network, point = nn.Linear(1, 1), {"weight": torch.tensor([[2.0]]), "bias": torch.tensor([0.0])}
    >>> x, along = torch.tensor([[3.0]]), {"weight": torch.tensor([[1.0]])}
    >>> forward_mode(network, point, {}, (x,), lambda y: y**2, along)  # 2 * (2 * 3) * 3
    tensor([[36.]])
    """
    load_forward_rules()
    with torch.no_grad(), differentiable_kernels(parameters), forward_ad.dual_level(), LeanBatchNorm():
        point = {name: _dual(p, direction[name]) if name in direction else p for name, p in parameters.items()}
        value, derivative = forward_ad.unpack_dual(losses(call_at(network, inputs, point, buffers)))  # type: ignore[no-untyped-call]
        return torch.zeros_like(value) if derivative is None else derivative


def finite_difference(
    network: nn.Module,
    parameters: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    inputs: tuple[Any, ...],
    losses: Losses,
    direction: Mapping[str, Tensor],
    replay: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> Tensor:
    """Estimates the derivative of `forward_mode` from the losses at two points, one on either side of the present one.

    The points lie 1e-4 away in float32, 1e-6 in float64: further away the kinks of ReLU spoil the difference (12 to
    25 % at the 1e-2 of Liu et al. 2019), nearer the rounding.

    Args:
        network: Any module.
        parameters: The point, by parameter name.
        buffers: By name; not changed.
        inputs: The arguments of the network.
        losses: From what the network returns to losses (B, A).
        direction: By parameter name; parameters without one stay where they are.
        replay: Makes the context of each of the two passes, which have to draw the same random numbers.

    Returns:
        (B, A).

    >>> network, point = nn.Linear(1, 1), {"weight": torch.tensor([[2.0]]), "bias": torch.tensor([0.0])}
    >>> x, along = torch.tensor([[3.0]]), {"weight": torch.tensor([[1.0]])}
    >>> finite_difference(network, point, {}, (x,), lambda y: y**2, along).round()
    tensor([[36.]])
    """
    length = global_norm(direction)
    distance = 1e-6 if length.dtype == torch.float64 else 1e-4
    scale = torch.where(length > 0, distance / length, 0.0)

    def losses_at(sign: int) -> Tensor:
        point = {name: p + sign * scale * direction[name] if name in direction else p for name, p in parameters.items()}
        with torch.no_grad(), torch.autocast(length.device.type, enabled=False), replay():
            return losses(call_at(network, inputs, point, buffers))

    return (losses_at(1) - losses_at(-1)) * (length / (2 * distance))


def supports_forward_mode(network: nn.Module, inputs: tuple[Any, ...]) -> bool:
    """Tells whether all operations of a network have forward-mode derivatives, for one forward-mode pass.

    Args:
        network: Any module that returns a tensor, or tensors in a tuple, list or dict; not changed.
        inputs: The arguments of the network, such as one batch.

    Returns:
        False where `InnerStep.label_gradient` would fall back to finite differences.

    >>> supports_forward_mode(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), (torch.ones(1, 2),))
    True
    """
    point = {name: p.detach() for name, p in network.named_parameters()}
    direction = {name: torch.zeros_like(p) for name, p in point.items()}
    try:
        forward_mode(network, point, dict(network.named_buffers()), inputs, lambda _: torch.zeros(()), direction)
    except NotImplementedError:
        return False
    return True


def call_at(
    network: nn.Module,
    inputs: tuple[Any, ...],
    parameters: Mapping[str, Tensor] | None = None,
    buffers: Mapping[str, Tensor] | None = None,
) -> Any:
    """Calls a network at any point in the space of its parameters; its buffers, such as running statistics, stay.

    Args:
        network: Any module.
        inputs: Its arguments: tensors, or mappings with tensors; floating ones come in the precision of the parameters.
        parameters: The point, by parameter name; those that are missing are the network's own.
        buffers: By name; the network's own where not given. Copies of them take the updates.

    >>> call_at(nn.Linear(1, 1, bias=False), (torch.tensor([[3.0]]).double(),), {"weight": torch.tensor([[2.0]])})
    tensor([[6.]])
    >>> network = nn.BatchNorm1d(1)
    >>> _ = call_at(network, (torch.randn(4, 1),))
    >>> network.running_mean
    tensor([0.])
    """
    parameters = dict(network.named_parameters()) if parameters is None else parameters
    buffers = dict(network.named_buffers()) if buffers is None else buffers
    dtype = next(p.dtype for p in parameters.values() if p.is_floating_point())
    state = dict(parameters) | {name: buffer.clone() for name, buffer in buffers.items()}
    return functional_call(network, state, tuple(_in_precision(value, dtype) for value in inputs))


@contextlib.contextmanager
def differentiable_kernels(parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """Switches autocast off, and attention to kernels that have forward-mode and second derivatives.

    Args:
        parameters: Of the network, by name, for their device.

    >>> with torch.autocast("cpu"), differentiable_kernels({"weight": torch.zeros(1)}):
    ...     torch.is_autocast_enabled("cpu")
    False
    """
    device = next(iter(parameters.values())).device.type
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.autocast(device, enabled=False), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)


def _in_precision(value: Any, dtype: torch.dtype) -> Any:
    """Casts floating tensors, also those in a mapping."""
    if isinstance(value, Mapping):
        return {name: _in_precision(entry, dtype) for name, entry in value.items()}
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _dual(value: Tensor, derivative: Tensor) -> Tensor:
    dual: Tensor = forward_ad.make_dual(value, derivative.to(value.dtype))  # type: ignore[no-untyped-call]
    return dual


@functools.cache
def load_forward_rules() -> None:
    """Has torch load its forward-mode rules, which it does on first use and with a warning about code of its own."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
        _dual(torch.zeros(()), torch.zeros(()))
