"""What two gloo processes agree on, against one that has everything."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_priors.functional.processes import gather_rows, mean_gradients, process_count, total_over_processes

ROWS = 7


def objective(rows: Tensor, weight: Tensor) -> Tensor:
    """Something in which each row depends on all rows."""
    return (weight[:, None] * (rows @ rows.T).softmax(1) @ rows.square()).sum()


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, 3, generator=generator, dtype=torch.float64), torch.arange(ROWS, dtype=torch.float64)


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    everything, weight = inputs()
    share = slice(0, 5) if rank == 0 else slice(5, ROWS)  # unequal on purpose
    rows = everything[share].clone().requires_grad_()
    gathered, own = gather_rows(rows)
    # each process asks for its own rows only; the others' part of the gradient comes from the others
    mask = torch.zeros(ROWS, dtype=torch.float64)
    mask[own] = 1
    objective(gathered, weight * mask).backward()
    mean = mean_gradients({"a": torch.full((2, 2), float(rank)), "b": torch.tensor([4.0 * rank], dtype=torch.float64)})
    total = total_over_processes(torch.tensor([float(rank + 1)]))
    torch.save((gathered.detach(), rows.grad, mean, total, process_count()), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(process, args=(str(tmp_path),), nprocs=2)
    rows, weight = inputs()
    rows.requires_grad_()
    objective(rows, weight).backward()
    found = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    torch.testing.assert_close(torch.cat([gradient for _, gradient, *_ in found]), rows.grad)
    for gathered, _, mean, total, count in found:
        assert torch.equal(gathered, rows.detach())
        assert mean["a"].equal(torch.full((2, 2), 0.5))
        assert mean["a"].dtype == torch.float32
        assert mean["b"].equal(torch.tensor([2.0], dtype=torch.float64))
        assert (total.item(), count) == (3.0, 2)


def test_one_process_keeps_its_values() -> None:
    rows = torch.rand(3, 2, requires_grad=True)
    assert gather_rows(rows)[0] is rows
    gradients = {"a": torch.ones(2)}
    assert mean_gradients(gradients)["a"] is gradients["a"]
    values = torch.ones(2)
    assert total_over_processes(values).equal(values)
    assert mean_gradients({}) == {}
