"""What several processes of a data-parallel training agree on; with one process the values stay as they are."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def process_count() -> int:
    """The number of processes that train together.

    >>> process_count()
    1
    """
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def total_over_processes(values: Tensor) -> Tensor:
    """The sum over all processes, without a graph.

    Args:
        values: Any shape, the same in all processes.

    >>> total_over_processes(torch.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """
    total = values.detach().clone()
    if process_count() > 1:
        dist.all_reduce(total)
    return total


def mean_gradients(gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean over all processes of each tensor, in one reduction of all of them together.

    Args:
        gradients: By name; the same names and shapes in all processes.

    >>> mean_gradients({"weight": torch.ones(2)})
    {'weight': tensor([1., 1.])}
    """
    if process_count() == 1 or not gradients:
        return dict(gradients)
    flat = torch.cat([gradient.flatten() for gradient in gradients.values()])
    dist.all_reduce(flat)
    flat /= process_count()
    parts = torch.split(flat, [gradient.numel() for gradient in gradients.values()])
    return {
        name: part.view_as(gradient).to(gradient.dtype)
        for (name, gradient), part in zip(gradients.items(), parts, strict=True)
    }


def gather_rows(rows: Tensor) -> tuple[Tensor, slice]:
    """The rows of all processes, one process after the other, through which gradients flow back to each of them.

    The backward pass adds up what all processes ask of a row, so it has to be made in all of them.

    Args:
        rows: (B, A); the number of rows may differ between the processes.

    Returns:
        All rows, and where those of this process are among them.

    >>> gather_rows(torch.eye(2))
    (tensor([[1., 0.],
            [0., 1.]]), slice(0, 2, None))
    """
    if process_count() == 1:
        return rows, slice(0, len(rows))
    counts = torch.zeros(process_count(), dtype=torch.int64, device=rows.device)
    counts[dist.get_rank()] = len(rows)
    sizes = total_over_processes(counts).tolist()
    start = sum(sizes[: dist.get_rank()])
    everything: Tensor = _GatherRows.apply(rows, sum(sizes), start)
    return everything, slice(start, start + len(rows))


class _GatherRows(torch.autograd.Function):
    """Rows of all processes; a sum of zero-padded rows, because gathering wants equal numbers of them."""

    @staticmethod
    def forward(context: Any, rows: Tensor, total: int, start: int) -> Tensor:
        context.place = slice(start, start + len(rows))
        everything = rows.new_zeros(total, *rows.shape[1:])
        everything[context.place] = rows
        return total_over_processes(everything)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return total_over_processes(gradients[0])[context.place], None, None
