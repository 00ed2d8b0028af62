"""Each metric over two gloo processes against one process that sees everything."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from lightning_priors.metrics import (
    AUROC,
    AveragePrecision,
    CAMIoU,
    EnergyPointingGame,
    GroupAccuracy,
    GroupAdjustedAccuracy,
    LabelOverlap,
    LabelUsage,
    PointingGame,
    TypicalImages,
    WorstClassAccuracy,
    WorstGroupAccuracy,
)

IMAGES = 22


def metrics() -> dict[str, Metric]:
    adjusted = GroupAdjustedAccuracy()
    adjusted.counts = [3, 1, 0, 5]
    return {
        "worst class": WorstClassAccuracy(),
        "adjusted": adjusted,
        "area": AUROC(),
        "precision": AveragePrecision(),
        "worst": WorstGroupAccuracy(),
        "groups": GroupAccuracy(num_groups=7),
        "energy": EnergyPointingGame(),
        "pointing": PointingGame(),
        "iou": CAMIoU(),
        "usage": LabelUsage([2, 3]),
        "overlap": LabelOverlap([2, 3]),
        "typical": TypicalImages(5, images=3, size=4),
    }


def inputs() -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    label, group = torch.arange(IMAGES) % 2, torch.arange(IMAGES) // 4  # the processes see different groups
    labels = torch.rand(IMAGES, 5, generator=generator) * torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 1, 1]])[label]
    by_class = {"preds": torch.randn(IMAGES, 2, generator=generator), "target": label, "group": group}
    by_place = {
        "evidence": torch.randn(IMAGES, 4, 4, generator=generator),
        "mask": (torch.rand(IMAGES, 16, 16, generator=generator) > 0.7).float(),
        "valid": torch.arange(IMAGES) % 3 > 0,
    }
    labels = labels / labels.sum(1, keepdim=True)
    human = torch.randint(-1, 3, (IMAGES, 2), generator=generator) + label[:, None]
    image = torch.randn(IMAGES, 3, 8, 8, generator=generator)
    return {
        "worst": by_class,
        "worst class": by_class,
        "adjusted": by_class,
        "area": {"preds": by_class["preds"], "target": label},
        "precision": {"preds": by_class["preds"], "target": label},
        "groups": by_class,
        "energy": by_place,
        "pointing": by_place,
        "iou": by_place,
        "usage": {"soft_labels": labels, "label": label},
        "overlap": {"soft_labels": labels, "aux_labels": human},
        "typical": {"soft_labels": labels, "index": torch.arange(IMAGES).flip(0), "image": image},
    }


def computed(rows: Tensor, batch_size: int) -> dict[str, object]:
    values = {}
    for name, metric in metrics().items():
        for part in rows.split(batch_size):
            metric.update(**{key: tensor[part] for key, tensor in inputs()[name].items()})
        value = metric.compute()
        values[name] = [of_class._asdict() for of_class in value] if isinstance(metric, TypicalImages) else value
    return values


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    share = torch.arange(IMAGES)[:15] if rank == 0 else torch.arange(IMAGES)[15:]  # unequal on purpose
    torch.save(computed(share, batch_size=4), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory) -> list[dict[str, object]]:
    folder: Path = tmp_path_factory.mktemp("ddp")
    torch.multiprocessing.start_processes(process, args=(str(folder),), nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(metrics()))
@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_give_what_one_gives(of_two_processes, name, rank):
    expected = computed(torch.arange(IMAGES), batch_size=IMAGES)[name]
    torch.testing.assert_close(of_two_processes[rank][name], expected, equal_nan=True)
