"""The number format of losses and maps."""

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Converts to float32, and leaves float64: half precision and autocast would spoil small shares and logarithms.

    Args:
        values: Any shape, any number format.

    Returns:
        The same values.

    >>> at_least_float32(torch.ones(2, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return values if values.dtype == torch.float64 else values.float()
