"""What two gloo ranks agree on, against one that has everything."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_priors.functional.distributed import (
    from_rank_zero,
    gather_rows,
    mean_gradients_over_ranks,
    mean_over_ranks,
    sum_over_ranks,
    world_size,
)

ROWS = 7


def objective(rows: Tensor, weight: Tensor) -> Tensor:
    """Something in which each row depends on all rows."""
    return (weight[:, None] * (rows @ rows.T).softmax(1) @ rows.square()).sum()


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, 3, generator=generator, dtype=torch.float64), torch.arange(ROWS, dtype=torch.float64)


def on_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    everything, weight = inputs()
    share = slice(0, 5) if rank == 0 else slice(5, ROWS)  # unequal on purpose
    rows = everything[share].clone().requires_grad_()
    gathered, own = gather_rows(rows)
    # each rank asks for its own rows only; the others' part of the gradient comes from the others
    mask = torch.zeros(ROWS, dtype=torch.float64)
    mask[own] = 1
    objective(gathered, weight * mask).backward()
    mean = mean_gradients_over_ranks(
        {"a": torch.full((2, 2), float(rank)), "b": torch.tensor([4.0 * rank], dtype=torch.float64)}
    )
    number = torch.tensor([float(rank + 1)])
    agreed = [
        float(value) for value in (sum_over_ranks(number), mean_over_ranks(number), from_rank_zero(number), number)
    ]
    torch.save((gathered.detach(), rows.grad, mean, agreed, world_size()), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_give_what_one_gives(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(on_rank, args=(str(tmp_path),), nprocs=2, start_method="forkserver")
    rows, weight = inputs()
    rows.requires_grad_()
    objective(rows, weight).backward()
    found = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    torch.testing.assert_close(torch.cat([gradient for _, gradient, *_ in found]), rows.grad)
    for rank, (gathered, _, mean, agreed, count) in enumerate(found):
        assert torch.equal(gathered, rows.detach())
        assert mean["a"].equal(torch.full((2, 2), 0.5))
        assert mean["a"].dtype == torch.float32
        assert mean["b"].equal(torch.tensor([2.0], dtype=torch.float64))
        assert (agreed, count) == ([3.0, 1.5, 1.0, rank + 1], 2)


def test_one_rank_keeps_its_values() -> None:
    rows = torch.rand(3, 2, requires_grad=True)
    assert gather_rows(rows)[0] is rows
    gradients = {"a": torch.ones(2)}
    assert mean_gradients_over_ranks(gradients)["a"] is gradients["a"]
    values = torch.ones(2)
    assert sum_over_ranks(values).equal(values)
    assert mean_gradients_over_ranks({}) == {}
