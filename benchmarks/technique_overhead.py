"""Measures what the library and Lightning cost: a step of `Pretrained` in a Trainer over one of a bare torch loop.

Both train the same network on the same batches with the same optimiser. They take turns step by step in one process, so
that whatever else the machine does meets both alike; the ratio is that of the median times.

    python benchmarks/technique_overhead.py [--backbone resnet18 ...] [--image-size 128] [--batch-size 32] [--steps 40]
"""

import argparse
import logging
import time
import warnings
from collections.abc import Iterator
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from lightning_priors.batch import PriorBatch
from lightning_priors.callbacks import ChannelsLast
from lightning_priors.nn import Classifier
from lightning_priors.techniques import Pretrained
from lightning_priors.techniques.optimisation import warmup_cosine

FIRST_STEPS = 5  # not counted: caches fill and memory is claimed


class Timing(NamedTuple):
    """Median milliseconds per step."""

    trainer: float
    bare: float


class BareLoop:
    """Trains as one does without a library."""

    def __init__(self, backbone: str, loader: DataLoader[PriorBatch], steps: int, channels_last: bool) -> None:
        self.network = Classifier(num_classes=2, backbone=backbone)
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        parameters = list(self.network.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 1e-2},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3)
        self.schedule = LambdaLR(self.optimizer, lambda step: warmup_cosine(step, 0, steps))
        self.batches: Iterator[PriorBatch] = iter(loader)

    def step(self) -> None:
        """Makes one step."""
        batch = next(self.batches)
        logits, _ = self.network(batch["image"])
        loss = F.cross_entropy(logits, batch["label"])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()


class Alternate(L.Callback):
    """Makes a step of the bare loop after each step of the Trainer, and times both.

    The Trainer's time runs from the end of the bare step to the end of its own, with fetching, logging and hooks.
    """

    def __init__(self, bare: BareLoop) -> None:
        self.bare = bare
        self.trainer_seconds: list[float] = []
        self.bare_seconds: list[float] = []
        self._mark = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._mark = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Takes the Trainer's time, then makes a bare step and takes its time."""
        start = time.perf_counter()
        self.bare.step()
        end = time.perf_counter()
        self.trainer_seconds.append(start - self._mark)
        self.bare_seconds.append(end - start)
        self._mark = time.perf_counter()


def batches(size: int, count: int, steps: int) -> list[dict[str, Tensor]]:
    """Repeats a few random batches: loading costs next to nothing, so that it does not hide the difference."""
    generator = torch.Generator().manual_seed(0)
    few = [
        {
            "image": torch.randn(count, 3, size, size, generator=generator),
            "label": torch.randint(2, (count,), generator=generator),
            "index": torch.arange(count),
        }
        for _ in range(4)
    ]
    return [few[step % len(few)] for step in range(steps)]


def measure(backbone: str, size: int, count: int, steps: int, channels_last: bool) -> Timing:
    """Times both sides, which take turns step by step."""
    total = steps + FIRST_STEPS
    data = batches(size, count, total)
    bare = BareLoop(backbone, DataLoader(data, batch_size=None), total, channels_last)  # type: ignore[arg-type]
    alternate = Alternate(bare)
    with TemporaryDirectory() as folder:
        trainer = L.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=CSVLogger(folder),
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[alternate, *([ChannelsLast()] if channels_last else [])],
        )
        trainer.fit(Pretrained(num_classes=2, backbone=backbone), DataLoader(data, batch_size=None))  # type: ignore[arg-type]
    in_trainer, alone = alternate.trainer_seconds[FIRST_STEPS:], alternate.bare_seconds[FIRST_STEPS:]
    return Timing(1000 * median(in_trainer), 1000 * median(alone))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", nargs="+", default=["tiny", "resnet18", "tf_efficientnet_lite0"])
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.simplefilter("ignore")  # about loaders and a missing validation, which do not matter here
    print(
        f"{options.image_size} px, batch {options.batch_size}, {options.steps} steps, {torch.get_num_threads()} threads"
    )
    print(f"{'backbone':24}{'layout':16}{'Trainer ms':>12}{'bare ms':>12}{'ratio':>8}")
    for backbone in options.backbone:
        for channels_last in (False, True):
            timing = measure(backbone, options.image_size, options.batch_size, options.steps, channels_last)
            layout = "channels last" if channels_last else "channels first"
            ratio = timing.trainer / timing.bare
            print(f"{backbone:24}{layout:16}{timing.trainer:12.1f}{timing.bare:12.1f}{ratio:8.3f}", flush=True)


if __name__ == "__main__":
    main()
