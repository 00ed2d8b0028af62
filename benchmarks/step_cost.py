"""What priors cost: a training step of a technique over a plain one, of the same network on the same batch.

A step is the technique's, the backward pass and the optimiser. The variants take turns step by step in one process, so
that what else happens on the machine meets all alike; the ratio is that of the medians.

    python benchmarks/step_cost.py auxiliary [--backbone tiny resnet18 ...] [--image-size 64] [--batch-size 64]
    python benchmarks/step_cost.py spatial --backbone tf_efficientnet_lite0 --image-size 128 --batch-size 32
"""

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any, cast

import torch

from lightning_priors.batch import PriorBatch
from lightning_priors.techniques import Auxiliary, CAMRestriction, GlobalLocal, Pretrained, PriorAttention
from lightning_priors.techniques.base import PriorModule

FIRST_STEPS = 5  # caches fill, memory is claimed

one_task = partial(Auxiliary, aux_num_classes=[10])

VARIANTS: Mapping[str, Mapping[str, Callable[..., PriorModule]]] = {
    "auxiliary": {
        "plain": partial(one_task, aux_weight=0.0),
        "one head": one_task,
        "one head of its own layer": partial(one_task, mode="multitask"),
        "uncertainty": partial(one_task, weighting="uncertainty"),
        "dwa": partial(one_task, weighting="dwa"),
        "gradient similarity": partial(one_task, weighting="gradient_similarity"),
        "look ahead": partial(one_task, weighting="lookahead"),
        "312 binary heads": partial(Auxiliary, aux_num_classes=[2] * 312),
    },
    "spatial": {
        "plain": Pretrained,
        "CAMRestriction": partial(CAMRestriction, loss="energy"),
        "CAMRestriction, regions found": partial(CAMRestriction, loss="energy", found_regions=True),
        "CAMRestriction, backgrounds exchanged": partial(CAMRestriction, loss="energy", exchange_background=True),
        "CAMRestriction, found and exchanged": partial(
            CAMRestriction, loss="energy", found_regions=True, exchange_background=True
        ),
        "PriorAttention": partial(PriorAttention, residual=False),
        "GlobalLocal, crops of half the side": partial(GlobalLocal, crop_size=64),
        "GlobalLocal, crops of 3/4 of the side": partial(GlobalLocal, crop_size=96, window="ellipse"),
        "GlobalLocal, backgrounds exchanged": partial(GlobalLocal, crop_size=96, exchange_background=True),
    },
}


class Trained:
    """A module with what trains it, and the seconds of its steps."""

    def __init__(self, build: Callable[..., PriorModule], backbone: str, layout: torch.memory_format) -> None:
        torch.manual_seed(0)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.module: Any = build(backbone=backbone).to(device).to(memory_format=layout).train()
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-3)
        self.seconds: list[float] = []

    def step(self, batch: PriorBatch) -> None:
        """One batch."""
        start = time.perf_counter()
        loss = self.module.step(batch).loss
        self.optimizer.zero_grad()
        loss.backward()
        self.module.tell_priors_of_step(self.optimizer)
        self.optimizer.step()
        if loss.device.type == "cuda":
            torch.cuda.synchronize(loss.device)
        self.seconds.append(time.perf_counter() - start)

    def milliseconds(self) -> float:
        """The median of a step."""
        return 1000 * median(self.seconds[FIRST_STEPS:])


def task_classes(module: PriorModule) -> list[int]:
    """Number of classes of each auxiliary task."""
    return list(module.hparams["aux_num_classes"]) if isinstance(module, Auxiliary) else []


def batch_for(module: PriorModule, count: int, size: int) -> PriorBatch:
    """Random images, labels for a module's tasks, and every third of the side for the target."""
    generator = torch.Generator().manual_seed(0)
    columns = [torch.randint(classes, (count,), generator=generator) for classes in task_classes(module)]
    box = torch.tensor([size / 3, size / 3, 2 * size / 3, 2 * size / 3])
    mask = torch.zeros(count, size, size)
    mask[:, size // 3 : 2 * size // 3, size // 3 : 2 * size // 3] = 1
    batch = {
        "image": torch.randn(count, 3, size, size, generator=generator),
        "label": torch.randint(2, (count,), generator=generator),
        "index": torch.arange(count),
        "aux_labels": torch.stack(columns, 1) if columns else torch.zeros(count, 0, dtype=torch.int64),
        "part_boxes": box.repeat(count, 1, 1),
        "part_valid": torch.ones(count, 1, dtype=torch.bool),
        "mask": mask,
        "mask_valid": torch.ones(count, dtype=torch.bool),
    }
    return cast(PriorBatch, {name: value.to(module.device) for name, value in batch.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("group", choices=list(VARIANTS))
    parser.add_argument("--backbone", nargs="+", default=["tiny", "resnet18", "tf_efficientnet_lite0"])
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--channels-last", action="store_true")
    options = parser.parse_args()
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    print(f"{options.image_size} px, batch {options.batch_size}, {options.steps} steps, {device}")
    for backbone in options.backbone:
        trained = {name: Trained(build, backbone, layout) for name, build in VARIANTS[options.group].items()}
        batches = {name: batch_for(one.module, options.batch_size, options.image_size) for name, one in trained.items()}
        for _ in range(options.steps + FIRST_STEPS):
            for name, one in trained.items():
                one.step(batches[name])
        plain = trained["plain"].milliseconds()
        print(f"\n{backbone:40}{'ms':>10}{'ratio':>8}{'parameters':>12}")
        for name, one in trained.items():
            count = sum(parameter.numel() for parameter in one.module.parameters())
            print(f"{name:40}{one.milliseconds():10.1f}{one.milliseconds() / plain:8.3f}{count:12,}", flush=True)


if __name__ == "__main__":
    main()
