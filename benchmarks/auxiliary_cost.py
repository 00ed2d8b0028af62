"""What auxiliary tasks cost: a training step with them over one without, of the same network on the same batch.

A step is `Auxiliary.step`, the backward pass and the optimiser. The variants take turns step by step in one process, so
that what else happens on the machine meets all alike; the ratio is that of the medians.

    python benchmarks/auxiliary_cost.py [--backbone tiny resnet18 ...] [--image-size 64] [--batch-size 64] [--steps 40]
"""

import argparse
import time
from statistics import median
from typing import Any

import torch

from lightning_priors.batch import PriorBatch
from lightning_priors.nn.task_weighting import LookAhead
from lightning_priors.techniques import Auxiliary

FIRST_STEPS = 5  # caches fill, memory is claimed

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"aux_weight": 0.0},
    "one head": {},
    "one head of its own layer": {"mode": "multitask"},
    "uncertainty": {"weighting": "uncertainty"},
    "dwa": {"weighting": "dwa"},
    "gradient similarity": {"weighting": "gradient_similarity"},
    "look ahead": {"weighting": "lookahead"},
    "312 binary heads": {"aux_num_classes": [2] * 312},
}


class Trained:
    """A module with what trains it, and the seconds of its steps."""

    def __init__(self, backbone: str, options: dict[str, Any], device: torch.device) -> None:
        torch.manual_seed(0)
        self.module = Auxiliary(**({"backbone": backbone, "aux_num_classes": [10]} | options)).to(device).train()
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-3)
        self.seconds: list[float] = []

    def step(self, batch: PriorBatch) -> None:
        """One batch."""
        start = time.perf_counter()
        loss = self.module.step(batch).loss
        self.optimizer.zero_grad()
        loss.backward()
        if isinstance(self.module.weigher, LookAhead):
            self.module.weigher.look_at_step(self.module.last_layers, self.optimizer)
        self.optimizer.step()
        if loss.device.type == "cuda":
            torch.cuda.synchronize(loss.device)
        self.seconds.append(time.perf_counter() - start)

    def milliseconds(self) -> float:
        """The median of a step."""
        return 1000 * median(self.seconds[FIRST_STEPS:])


def batch_for(module: Auxiliary, count: int, size: int, device: torch.device) -> PriorBatch:
    """Random images and labels for a module's tasks."""
    generator = torch.Generator().manual_seed(0)
    columns = [torch.randint(classes, (count,), generator=generator) for classes in module.heads.num_classes]
    return {
        "image": torch.randn(count, 3, size, size, generator=generator).to(device),
        "label": torch.randint(2, (count,), generator=generator).to(device),
        "index": torch.arange(count, device=device),
        "aux_labels": torch.stack(columns, 1).to(device),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", nargs="+", default=["tiny", "resnet18", "tf_efficientnet_lite0"])
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(
        f"{options.image_size} px, batch {options.batch_size}, {options.steps} steps, "
        f"{torch.cuda.get_device_name() if device.type == 'cuda' else f'{torch.get_num_threads()} threads'}"
    )
    for backbone in options.backbone:
        names = list(dict.fromkeys(["plain", *options.variants]))
        trained = {name: Trained(backbone, VARIANTS[name], device) for name in names}
        batches = {
            name: batch_for(one.module, options.batch_size, options.image_size, device) for name, one in trained.items()
        }
        for _ in range(options.steps + FIRST_STEPS):
            for name, one in trained.items():
                one.step(batches[name])
        plain = trained["plain"].milliseconds()
        print(f"\n{backbone:28}{'ms':>10}{'ratio':>8}")
        for name, one in trained.items():
            print(f"{name:28}{one.milliseconds():10.1f}{one.milliseconds() / plain:8.3f}", flush=True)


if __name__ == "__main__":
    main()
