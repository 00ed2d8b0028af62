"""What the ranks of a data-parallel training agree on; with one rank the values stay as they are."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def world_size() -> int:
    """Counts the ranks that train together.

    >>> world_size()
    1
    """
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """Adds up over all ranks, without a graph.

    Args:
        values: Any shape, the same on all ranks.

    >>> sum_over_ranks(torch.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """
    total = values.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


def mean_over_ranks(values: Tensor) -> Tensor:
    """Computes the mean over all ranks, without a graph.

    Args:
        values: Any shape, the same on all ranks.

    >>> mean_over_ranks(torch.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """
    return values if world_size() == 1 else sum_over_ranks(values) / world_size()


def share_of_count(chosen: Tensor, dim: int | None = None) -> Tensor:
    """Counts what is true, as a mean over all ranks: what a sum over the chosen of this rank is divided by.

    Training averages the gradients of the ranks. For that average to be the mean over the chosen of all ranks together,
    which have more of them on one rank than on another, each divides by the same number.

    Args:
        chosen: Bool of any shape; every rank has to ask.
        dim: The dimension that is counted along; all if not given.

    Returns:
        Above 0; 1 where nothing is chosen on any rank.

    >>> share_of_count(torch.tensor([True, False, True])), share_of_count(torch.tensor([False]))
    (tensor(2), tensor(1))
    """
    count = mean_over_ranks(chosen.sum() if dim is None else chosen.sum(dim))
    return torch.where(count == 0, 1, count)


def mean_gradients_over_ranks(gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Computes the mean of each tensor over all ranks, in one reduction of all of them together.

    Args:
        gradients: By name; the same names and shapes on all ranks.

    >>> mean_gradients_over_ranks({"weight": torch.ones(2)})
    {'weight': tensor([1., 1.])}
    """
    if world_size() == 1 or not gradients:
        return dict(gradients)
    flat = mean_over_ranks(torch.cat([gradient.flatten() for gradient in gradients.values()]))
    parts = torch.split(flat, [gradient.numel() for gradient in gradients.values()])
    return {
        name: part.view_as(gradient).to(gradient.dtype)
        for (name, gradient), part in zip(gradients.items(), parts, strict=True)
    }


def from_rank_zero(values: Tensor) -> Tensor:
    """Gives all ranks what rank zero has: where an algorithm draws random numbers the ranks would differ.

    Args:
        values: Any shape, the same on all ranks.

    >>> from_rank_zero(torch.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """
    if world_size() == 1:
        return values
    shared = values.clone()
    dist.broadcast(shared, src=0)
    return shared


def gather_rows(rows: Tensor) -> tuple[Tensor, slice]:
    """Gathers the rows of all ranks, one rank after the other; gradients flow back to each of them.

    The backward pass adds up what all ranks ask of a row, so all of them have to make it.

    Args:
        rows: (B, A); the number of rows may differ between the ranks.

    Returns:
        All rows, and where those of this rank are among them.

    >>> gather_rows(torch.eye(2))
    (tensor([[1., 0.],
            [0., 1.]]), slice(0, 2, None))
    """
    if world_size() == 1:
        return rows, slice(0, len(rows))
    counts = torch.zeros(world_size(), dtype=torch.int64, device=rows.device)
    counts[dist.get_rank()] = len(rows)
    sizes = sum_over_ranks(counts).tolist()
    start = sum(sizes[: dist.get_rank()])
    everything: Tensor = _GatherRows.apply(rows, sum(sizes), start)
    return everything, slice(start, start + len(rows))


def hold_buffers(model: nn.Module | None) -> None:
    """Shares the buffers of rank zero once, so that an evaluation may have another number of batches on each rank.

    `DistributedDataParallel` shares them before each batch, and would wait for a rank that has no more batches.

    Args:
        model: As the strategy has wrapped it; one that is not wrapped is left alone.

    >>> hold_buffers(nn.BatchNorm1d(2))
    """
    if isinstance(model, DistributedDataParallel) and model.require_forward_param_sync:
        for name, buffer in model.module.named_buffers():
            if name not in model.parameters_to_ignore:
                dist.broadcast(buffer, src=0)
        model.require_forward_param_sync = False


def release_buffers(model: nn.Module | None) -> None:
    """Has `DistributedDataParallel` share buffers before each batch again.

    Args:
        model: As for `hold_buffers`.

    >>> release_buffers(nn.BatchNorm1d(2))
    """
    if isinstance(model, DistributedDataParallel):
        model.require_forward_param_sync = True


class _GatherRows(torch.autograd.Function):
    """Rows of all ranks; a sum of zero-padded rows, because gathering wants equal numbers of them."""

    @staticmethod
    def forward(context: Any, rows: Tensor, total: int, start: int) -> Tensor:
        context.place = slice(start, start + len(rows))
        everything = rows.new_zeros(total, *rows.shape[1:])
        everything[context.place] = rows
        return sum_over_ranks(everything)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return sum_over_ranks(gradients[0])[context.place], None, None
