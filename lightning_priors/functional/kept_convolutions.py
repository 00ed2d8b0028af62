"""Convolutions whose results are kept, so that a forward-mode pass at the same point computes derivatives alone."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
FULL_PRECISION = "convolutions in full precision: set torch.backends.cudnn.allow_tf32 = False, or take forward_mode"


class KeptConvolutions(TorchFunctionMode):
    """Within this context the results of convolutions are kept, in the order in which they are made.

    They take as much memory as the inputs of the layers after them, for as long as this object lives; where those
    layers keep them for a backward pass anyway, only the time after it counts.

    >>> import torch
    >>> kept, network, image = KeptConvolutions(), torch.nn.Conv2d(3, 4, 1), torch.zeros(2, 3, 5, 5)
    >>> with kept:
    ...     _ = network(image)
    >>> [result.shape for result, _ in kept.results]
    [torch.Size([2, 4, 5, 5])]
    """

    def __init__(self) -> None:
        super().__init__()
        self.results: list[tuple[Tensor, int]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Keeps what convolutions give, with its version, which a change in place raises."""
        result = func(*args, **(kwargs or {}))
        if func in CONVOLUTIONS:
            self.results.append((result.detach(), result._version))
        return result


class ReplayedConvolutions(TorchFunctionMode):
    """Within this context and a dual level, convolutions give the results that were kept, with new derivatives.

    What was kept in another precision, or has been changed in place since, is computed anew.

    Args:
        kept: Of a forward pass of the same network with the same parameters and inputs.
        displaced: Whether a derivative costs one convolution, see `displaced_tangent`, and not two.

    >>> from lightning_priors.functional.directional import forward_mode  # which makes its pass within this context
    >>> kept, network, image = KeptConvolutions(), torch.nn.Conv2d(1, 1, 1, bias=False), torch.full((1, 1, 1, 1), 3.0)
    >>> with kept:
    ...     _ = network(image)
    >>> along = {"weight": torch.ones(1, 1, 1, 1)}
    >>> forward_mode(network, dict(network.named_parameters()), {}, (image,), lambda y: y, along, kept).item()
    3.0
    """

    def __init__(self, kept: KeptConvolutions, displaced: bool = False) -> None:
        super().__init__()
        self._results: Iterator[tuple[Tensor, int]] = iter(kept.results)
        self._displaced = displaced

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Handles convolutions; passes everything else on."""
        if func not in CONVOLUTIONS:
            return func(*args, **(kwargs or {}))
        result, version = next(self._results)
        known = result if result._version == version else None
        return _differentiated(func, known, self._displaced, *args, **(kwargs or {}))


def displaced_tangent(
    convolve: Callable[[Tensor, Tensor], Tensor], result: Tensor, x: Tensor, w: Tensor, dx: Tensor, dw: Tensor
) -> Tensor:
    """The derivative of a convolution, from one convolution of displaced arguments.

    As the convolution * is bilinear, a displacement by e gives, without the kinks that a difference through a whole
    network meets,

        ((x + e dx) * (w + e dw) - x * w) / e = dx * w + x * dw + e dx * dw.

    With ``e^2 = eps |x| |w| / (|dx| |dw|)``, for the relative precision eps, what is too much and the rounding are
    alike, of the order of eps^(1/2): through a whole network up to 1e-3 of the derivative in float32, 1e-7 in float64.

    Args:
        convolve: Of an input and a weight, linear in each but for a bias, in full precision, see `rounds_convolutions`.
        result: What it gives for `x` and `w`, any shape.
        x: The input.
        w: The weight.
        dx: Direction of the input.
        dw: Direction of the weight.

    Returns:
        Of the shape of `result`.

    >>> x, w, one = torch.tensor([[3.0]]).double(), torch.tensor([[5.0]]).double(), torch.ones(1, 1).double()
    >>> displaced_tangent(torch.matmul, x @ w, x, w, one, one).round(decimals=5)  # 3 + 5
    tensor([[8.]], dtype=torch.float64)
    """
    x_size, w_size, x_length, w_length = (torch.linalg.vector_norm(part) for part in (x, w, dx, dw))
    ratio = (x_size / x_length) * (w_size / w_length)
    ratio = torch.where(ratio.isfinite() & (ratio > 0), ratio, 1.0)  # where a part is zero any displacement serves
    distance = (torch.finfo(w.dtype).eps * ratio).sqrt()
    moved = convolve(torch.addcmul(x, dx, distance), torch.addcmul(w, dw, distance))
    return moved.sub_(result).div_(distance)


def rounds_convolutions(device: str) -> bool:
    """Whether convolutions in float32 round their arguments to TF32, as those of GPUs do unless told otherwise.

    A difference between two of them is then rounding for the most part.

    Args:
        device: Its type, such as ``cuda``.

    >>> rounds_convolutions("cpu")
    False
    """
    if device != "cuda":
        return False
    settings = getattr(torch.backends.cudnn, "conv", None)  # from torch 2.9
    return torch.backends.cudnn.allow_tf32 if settings is None else settings.fp32_precision == "tf32"


def _differentiated(
    func: Callable[..., Tensor],
    result: Tensor | None,
    displaced: bool,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """A convolution of dual tensors; its result is given, or else computed."""
    geometry = stride, padding, dilation, groups
    x, dx = forward_ad.unpack_dual(input)  # type: ignore[no-untyped-call]
    w, dw = forward_ad.unpack_dual(weight)  # type: ignore[no-untyped-call]
    b, db = (None, None) if bias is None else forward_ad.unpack_dual(bias)  # type: ignore[no-untyped-call]
    if result is None or result.dtype != x.dtype:
        result = func(x, w, b, *geometry)
    if displaced and dx is not None and dw is not None:
        tangent = displaced_tangent(lambda x, w: func(x, w, b, *geometry), result, x, w, dx, dw)
        if db is not None:
            tangent = tangent + db.view(1, -1, *[1] * (result.ndim - 2))
        return forward_ad.make_dual(result, tangent)  # type: ignore[no-any-return, no-untyped-call]
    parts = [func(x, dw, db, *geometry)] if dw is not None else []
    if dw is None and db is not None:
        parts.append(db.view(1, -1, *[1] * (result.ndim - 2)).expand_as(result))
    if dx is not None:
        parts.append(func(dx, w, None, *geometry))
    if not parts:
        return result
    tangent = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    dual: Tensor = forward_ad.make_dual(result, tangent)  # type: ignore[no-untyped-call]
    return dual
