"""The forward-mode derivative of batch normalisation, in half of the time and memory of torch's own."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode


class LeanBatchNorm(TorchFunctionMode):
    """Replaces torch's forward-mode rule of batch normalisation in training mode by `batch_norm_tangent`.

    A context, to be entered within a dual level. Running statistics stay as they are. In evaluation mode, where batch
    normalisation is an affine map, torch's rule is kept. Group normalisation keeps torch's rule too, which gets its
    maps in the layout that it can take.

    >>> from lightning_priors.hypergradient import forward_mode  # it makes its pass within this context
    >>> norm, x = torch.nn.BatchNorm1d(1), torch.tensor([[1.0], [-1.0]])
    >>> point = dict(norm.named_parameters())
    >>> forward_mode(norm, point, dict(norm.named_buffers()), (x,), lambda y: y, {"weight": torch.ones(1)}).round()
    tensor([[ 1.],
            [-1.]])
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Handles batch normalisation in training and the layout of group normalisation; passes everything else on."""
        kwargs = kwargs or {}
        if func is F.group_norm:  # torch 2.8's rule takes a view of the maps, which the channels-last layout forbids
            return func(args[0].contiguous(), *args[1:], **kwargs)
        if func is not F.batch_norm or not kwargs["training"]:
            return func(*args, **kwargs)
        return _normalised(args[0], kwargs["weight"], kwargs["bias"], kwargs["eps"])


def batch_norm_tangent(
    x: Tensor,
    mean: Tensor,
    inverse_std: Tensor,
    weight: Tensor | None,
    dx: Tensor | None,
    dweight: Tensor | None,
    dbias: Tensor | None,
) -> Tensor:
    """Computes the derivative of batch normalisation along a direction (Ioffe and Szegedy 2015, algorithm 1).

    Args:
        x: (B, C, ...) the input.
        mean: (C,) its mean.
        inverse_std: (C,) one over its standard deviation, epsilon included.
        weight: (C,), or None for 1.
        dx: (B, C, ...) direction of the input; None is zero, as for the others.
        dweight: (C,) direction of the weight.
        dbias: (C,) direction of the bias.

    Returns:
        (B, C, ...).

    >>> x, zero, one = torch.tensor([[-1.0], [1.0]]), torch.zeros(1), torch.ones(1)
    >>> batch_norm_tangent(x, zero, one, None, None, dweight=2 * one, dbias=one)
    tensor([[-1.],
            [ 3.]])
    """
    shape, dims = (1, -1, *[1] * (x.ndim - 2)), [0, *range(2, x.ndim)]
    tangent = x - mean.view(shape)  # what is computed in place here is as large as the network's largest map
    slope = torch.zeros_like(inverse_std) if dweight is None else dweight * inverse_std
    shift = torch.zeros_like(inverse_std) if dbias is None else dbias
    if dx is None:
        return tangent.mul_(slope.view(shape)).add_(shift.view(shape))
    scale = inverse_std if weight is None else inverse_std * weight
    covariance = (tangent * dx).mean(dims)
    slope = slope - scale * inverse_std**2 * covariance
    shift = shift - scale * dx.mean(dims)
    return tangent.mul_(slope.view(shape)).addcmul_(dx, scale.view(shape)).add_(shift.view(shape))


def _normalised(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Batch normalisation of dual tensors."""
    x, dx = forward_ad.unpack_dual(x)  # type: ignore[no-untyped-call]
    (weight, dweight), (bias, dbias) = _parts(weight), _parts(bias)
    value, mean, inverse_std = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)
    if dx is None and dweight is None and dbias is None:
        return value
    tangent = batch_norm_tangent(x, mean, inverse_std, weight, dx, dweight, dbias)
    dual: Tensor = forward_ad.make_dual(value, tangent)  # type: ignore[no-untyped-call]
    return dual


def _parts(value: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """The value and the tangent of a dual tensor."""
    return (None, None) if value is None else tuple(forward_ad.unpack_dual(value))  # type: ignore[no-untyped-call]
