"""Measures what priors cost: the ratio of a technique's training step to a plain one of the same network and batch.

A step is the technique's loss, the backward pass and the optimiser's step, without loading, logging and a Trainer. The
variants take turns step by step in one process, so that whatever else the machine does meets all of them alike; the
ratio is that of the median times. `MAXL` optimises by itself, so it runs in a Trainer, whose hooks are counted too; as
its generator learns from every 10th step, its times are means over ten steps.

    python benchmarks/step_cost.py auxiliary [--backbone tiny resnet18 ...] [--image-size 64] [--batch-size 64]
    python benchmarks/step_cost.py spatial --backbone tf_efficientnet_lite0 --image-size 128 --batch-size 32
    python benchmarks/step_cost.py combined --backbone tf_efficientnet_lite0 --image-size 128 --batch-size 32
"""

import argparse
import logging
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from statistics import fmean, median
from typing import Any, cast

import lightning as L
import torch
from torch.utils.data import DataLoader

from lightning_priors.batch import PriorBatch
from lightning_priors.priors import AuxiliaryTasks, GuidedAttention, Prior, Restriction
from lightning_priors.techniques import (
    MAXL,
    Auxiliary,
    CAMRestriction,
    Combined,
    GlobalLocal,
    Pretrained,
    PriorAttention,
    PriorModule,
)

FIRST_STEPS = 5  # not counted: caches fill and memory is claimed

one_task = partial(Auxiliary, aux_num_classes=[10])
ATTENTION = partial(GuidedAttention, residual=False)


def combined(*priors: Callable[[], Prior]) -> Callable[..., Combined]:
    """Gives a function that builds `Combined` with new priors."""
    return lambda **options: Combined([prior() for prior in priors], aux_num_classes=[10], **options)


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
        "CAMRestriction": CAMRestriction,
        "CAMRestriction, regions found": partial(CAMRestriction, found_regions=True),
        "CAMRestriction, backgrounds exchanged": partial(CAMRestriction, exchange_background=True),
        "CAMRestriction, found and exchanged": partial(CAMRestriction, found_regions=True, exchange_background=True),
        "PriorAttention": partial(PriorAttention, residual=False),
        "GlobalLocal, crops of half the side": partial(GlobalLocal, crop_size=64),
        "GlobalLocal, crops of 3/4 of the side": partial(GlobalLocal, crop_size=96, window="ellipse"),
        "GlobalLocal, backgrounds exchanged": partial(GlobalLocal, crop_size=96, exchange_background=True),
    },
    "combined": {
        "plain": combined(),
        "restriction": combined(Restriction),
        "attention": combined(ATTENTION),
        "auxiliary": combined(AuxiliaryTasks),
        "all three": combined(Restriction, ATTENTION, AuxiliaryTasks),
        "MAXL": MAXL,
    },
}


class Bare:
    """Trains a module without a Trainer.

    Args:
        module: On its device.
        batch: What every step is made with.
    """

    def __init__(self, module: PriorModule, batch: PriorBatch) -> None:
        self.module, self.batch = module, batch
        self.optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
        self.seconds: list[float] = []

    def step(self) -> None:
        """Makes one step and takes its time."""
        start = time.perf_counter()
        loss = self.module.step(self.batch).loss
        self.optimizer.zero_grad()
        loss.backward()
        self.module.tell_priors_of_step(self.optimizer)
        self.optimizer.step()
        self.seconds.append(now() - start)


class InTrainer(L.Callback):
    """Trains a module that optimises by itself, in a thread of its own, which waits for its turn before each step.

    Args:
        module: On its device.
        batch: What every step is made with.
        steps: Number of steps.
    """

    def __init__(self, module: PriorModule, batch: PriorBatch, steps: int) -> None:
        self.module, self.batch, self.steps = module, batch, steps
        self.seconds: list[float] = []
        self._threads, self._failed = torch.get_num_threads(), False
        self._turn, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def step(self) -> None:
        """Lets the thread make one step, and waits for it; after the last one also for the end of the training.

        Raises:
            RuntimeError: If training has failed; the thread has printed why.
        """
        self._turn.release()
        self._done.acquire()
        if self._failed:
            raise RuntimeError(f"the training of {type(self.module).__name__} failed")
        if len(self.seconds) == self.steps:
            self._thread.join()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Waits for the turn and starts the clock."""
        self._turn.acquire()
        self._start = now()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Takes the time and passes the turn on."""
        self.seconds.append(now() - self._start)
        self._done.release()

    def _run(self) -> None:
        torch.set_num_threads(self._threads)  # it counts for one thread
        trainer = L.Trainer(
            max_epochs=1,
            accelerator=self.module.device.type,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[self],
        )
        try:
            trainer.fit(self.module, DataLoader([self.batch] * self.steps, batch_size=None))  # type: ignore[arg-type]
        except BaseException:
            self._failed = True
            self._done.release()
            raise


def now() -> float:
    """Reads the clock, once a GPU has done what it was asked to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def milliseconds(trained: Bare | InTrainer) -> float:
    """Computes the median time of a step, or of a mean over the steps from one of a generator's updates to the next."""
    cycle, counted = getattr(trained.module, "generator_every", 1), trained.seconds[FIRST_STEPS:]
    means = [fmean(counted[start : start + cycle]) for start in range(0, len(counted), cycle)]
    return 1000 * median(means)


def batch_for(module: PriorModule, count: int, size: int) -> PriorBatch:
    """Makes random images with labels for a module's tasks; the target is the middle ninth of each image."""
    generator = torch.Generator().manual_seed(0)
    tasks = module.hparams.get("aux_num_classes", [])
    columns = [torch.randint(classes, (count,), generator=generator) for classes in tasks]
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


def begin(build: Callable[..., PriorModule], backbone: str, options: argparse.Namespace) -> Bare | InTrainer:
    """Builds a variant, ready to make its steps."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    module = build(backbone=backbone).to(device).to(memory_format=layout).train()  # type: ignore[call-overload]
    batch = batch_for(module, options.batch_size, options.image_size)
    return Bare(module, batch) if module.automatic_optimization else InTrainer(module, batch, steps(options))


def steps(options: argparse.Namespace) -> int:
    """Counts the steps of each variant, with those that are not counted."""
    return FIRST_STEPS + int(options.steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("group", choices=list(VARIANTS))
    parser.add_argument("--backbone", nargs="+", default=["tiny", "resnet18", "tf_efficientnet_lite0"])
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--channels-last", action="store_true")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.simplefilter("ignore")  # about loaders and a missing validation, which do not matter here
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    print(f"{options.image_size} px, batch {options.batch_size}, {options.steps} steps, {device}")
    for backbone in options.backbone:
        trained = {name: begin(build, backbone, options) for name, build in VARIANTS[options.group].items()}
        for _ in range(steps(options)):
            for one in trained.values():
                one.step()
        plain = milliseconds(trained["plain"])
        print(f"\n{backbone:40}{'ms':>10}{'ratio':>8}{'parameters':>12}")
        for name, one in trained.items():
            count = sum(parameter.numel() for parameter in one.module.parameters())
            print(f"{name:40}{milliseconds(one):10.1f}{milliseconds(one) / plain:8.3f}{count:12,}", flush=True)


if __name__ == "__main__":
    main()
