"""Tells whether MAXL's label generator collapses, over many seeds, with each guard against it and with none.

Each run trains on Fashion-MNIST in three coarse classes, of which each is split into five generated sub-classes. On the
validation images it then counts how many of the five are in use: how many are the most probable one of some image. A
generator has collapsed if a coarse class uses a single one. It is silent if its labels have less than a fiftieth of the
information that they could have on an image, which labels that are nearly uniform have not, whatever their greatest is.

    python experiments/maxl_stability.py [--root DIR] [--seeds 20] [--steps 300] [--variants balanced "no guard" ...]
"""

import argparse
import logging
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch

from lightning_priors import MAXL, PriorDataModule
from lightning_priors.callbacks.label_report import LEAST_INFORMATION
from lightning_priors.data.sources import FashionMNIST
from lightning_priors.metrics import LabelUsage

GROUPS = [
    ["T-shirt/top", "Pullover", "Coat", "Shirt"],
    ["Trouser", "Dress"],
    ["Sandal", "Sneaker", "Ankle boot"],
]
PSI = 5

VARIANTS: dict[str, dict[str, Any]] = {
    "balanced": {},
    "balanced, fast": {"generator_lr": 1e-2},
    "entropy 0.2": {"balance": "entropy"},
    "entropy 5": {"balance": "entropy", "entropy_weight": 5.0},
    "no guard": {"balance": "entropy", "entropy_weight": 0.0},
}


class Outcome(NamedTuple):
    """The result of one run."""

    used: list[int]
    """Number of sub-classes in use, of each coarse class."""
    information: float
    """Mutual information of image and label, within the coarse classes, as a share of the possible."""
    accuracy: float
    """Accuracy of the primary task on the validation images."""

    @property
    def collapsed(self) -> bool:
        """Whether a coarse class uses a single sub-class."""
        return min(self.used) <= 1

    @property
    def silent(self) -> bool:
        """Whether the labels say nothing of an image."""
        return self.information < LEAST_INFORMATION


def train(variant: str, seed: int, data: PriorDataModule, options: argparse.Namespace) -> Outcome:
    """Trains one variant from the first weights of a seed; all runs see the same images."""
    L.seed_everything(seed, verbose=False)
    model = MAXL(
        num_classes=len(GROUPS), subclasses=PSI, generator=options.generator, generator_every=1, lr=2e-3,
        **({"generator_lr": options.generator_lr} | VARIANTS[variant]),
    )  # fmt: skip
    trainer = L.Trainer(
        max_steps=options.steps, accelerator="cpu", logger=False, enable_checkpointing=False, limit_val_batches=0,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, data)
    usage, right, count = LabelUsage(model.sub_classes), 0, 0
    model.eval()
    with torch.no_grad():
        for batch in data.val_dataloader():
            usage.update(model.auxiliary_labels(batch), batch["label"])
            right += int((model(batch["image"]).argmax(1) == batch["label"]).sum())
            count += len(batch["label"])
    found = usage.compute()
    used = [int(number) for number in found["used"]]
    return Outcome(used, float(found["information_share"].mean()), right / count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--generator", default="features")
    parser.add_argument("--generator-lr", type=float, default=1e-3)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")  # Lightning on loaders without workers and on deprecations
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    source = FashionMNIST(str(options.root), groups=GROUPS)
    data = PriorDataModule(source, image_size=32, augmentation="flip", val_fraction=0.02, train_fraction=0.01)
    print(f"{options.steps} steps, generator {options.generator}, {options.seeds} seeds, {PSI} sub-classes a class\n")
    print(f"{'':16}{'collapsed':>10}{'silent':>9}{'information':>13}{'used, least':>13}{'used, mean':>12}", end="")
    print(f"{'accuracy':>10}{'seconds':>9}")
    for variant in options.variants:
        start = time.perf_counter()
        outcomes = [train(variant, seed, data, options) for seed in range(options.seeds)]
        used = [number for outcome in outcomes for number in outcome.used]
        information = sum(outcome.information for outcome in outcomes) / len(outcomes)
        accuracy = sum(outcome.accuracy for outcome in outcomes) / len(outcomes)
        print(
            f"{variant:16}{sum(outcome.collapsed for outcome in outcomes):>7}/{len(outcomes):<2}"
            f"{sum(outcome.silent for outcome in outcomes):>6}/{len(outcomes):<2}{information:>13.4f}{min(used):>13}"
            f"{sum(used) / len(used):>12.2f}{accuracy:>10.4f}{time.perf_counter() - start:>9.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
