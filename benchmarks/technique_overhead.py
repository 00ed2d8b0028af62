"""What the frame costs: a training step of `Pretrained` through the Trainer over a bare torch loop of the same network.

Both take the same batches from the same kind of loader and step the same kind of optimiser. They alternate step by step
in one process, so that what else happens on the machine meets both alike; the ratio is that of the medians.

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

FIRST_STEPS = 5  # caches fill, memory is claimed


class Timing(NamedTuple):
    """Median milliseconds per step."""

    trainer: float
    bare: float


class BareLoop:
    """The training loop that one writes without a frame."""

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
        """One batch."""
        batch = next(self.batches)
        logits, _ = self.network(batch["image"])
        loss = F.cross_entropy(logits, batch["label"])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()


class Alternate(L.Callback):
    """After each step of the Trainer does one of the bare loop, and times both.

    The Trainer's time goes from the end of the bare step to the end of its own: fetching, logging and hooks included.
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
        """Takes the Trainer's time, then that of a bare step."""
        start = time.perf_counter()
        self.bare.step()
        end = time.perf_counter()
        self.trainer_seconds.append(start - self._mark)
        self.bare_seconds.append(end - start)
        self._mark = time.perf_counter()


def batches(size: int, count: int, steps: int) -> list[dict[str, Tensor]]:
    """A few random batches, again and again: loading costs next to nothing, so that the frame is not hidden by it."""
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
    """Times both, step by step in turn."""
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
    warnings.simplefilter("ignore")  # about loaders and validation: this is no training that anyone wants
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
