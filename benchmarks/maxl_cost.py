"""Measures what MAXL costs: the ratio of a training step with auxiliary labels to a step of plain training.

Each variant is a technique of the library that trains the same network in a Trainer of its own. The Trainers take turns
step by step in one process, so that whatever else the machine does meets all of them alike; a round is one step of
each. The ratio is that of the median times. Where the generator learns from every n-th step, the times are means over n
steps. On a CPU processor time is counted, of all threads together, which other programs do not lengthen; `--clock wall`
counts elapsed time.

The memory is the peak over a few cycles of steps, less what was held before the first step and less the state of the
optimisers: activations, gradients and what a step keeps for the next one. Each variant runs in a process of its own. On
a CPU under Linux resident memory is counted, on a GPU allocated memory. `--memory-steps` shows whether it grows.

With "halves" one half of a batch judges the labels of the batch before, and the labels of the other half are judged
next (`meta_batch: half`). "Published" is `PublishedMAXL`, the schedule of Liu et al. 2019: after each training step a
second pass looks ahead and trains the generator, by double backward or by a central difference. "MixFlow-MG" computes
the same derivative forward over reverse (`mixflow.py`), in the published schedule and in that of `MAXL`.

    python benchmarks/maxl_cost.py [--backbone vgg16_bn] [--batch-sizes 100 32] [--rounds 20] [--threads 1]
        [--device cpu] [--optimizer adamw] [--channels-last] [--variants ...] [--memory] [--memory-steps 1000]
        [--json FILE]
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import lightning as L
import torch
from mixflow import MixFlowMAXL, MixFlowPublishedMAXL
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_priors.callbacks import ChannelsLast
from lightning_priors.techniques import MAXL, Auxiliary, Pretrained, PriorModule, PublishedMAXL

CLASSES, SUB_CLASSES = 20, 5
FIRST_STEPS = 10  # not counted: caches fill and memory is claimed. A whole cycle, so that the next one is whole too
EVERY = 10

OWN = "own"
"""A generator as large as the network: the same backbone."""

VARIANTS: dict[str, Callable[..., PriorModule]] = {
    "single task": Pretrained,
    "human labels, two heads": partial(Auxiliary, aux_num_classes=[CLASSES * SUB_CLASSES], loss="focal"),
    "published, unrolled": partial(PublishedMAXL, subclasses=SUB_CLASSES, generator=OWN),
    "published, first order": partial(PublishedMAXL, subclasses=SUB_CLASSES, generator=OWN, method="first_order"),
    "published, MixFlow-MG": partial(MixFlowPublishedMAXL, subclasses=SUB_CLASSES, generator=OWN, method="first_order"),
    "own generator, every step, MixFlow-MG": partial(
        MixFlowMAXL, subclasses=SUB_CLASSES, generator=OWN, generator_every=1
    ),
    "own generator, every step": partial(MAXL, subclasses=SUB_CLASSES, generator=OWN, generator_every=1),
    "own generator, every 10th": partial(MAXL, subclasses=SUB_CLASSES, generator=OWN, generator_every=EVERY),
    "own generator, every step, halves": partial(
        MAXL, subclasses=SUB_CLASSES, generator=OWN, generator_every=1, meta_batch="half"
    ),
    "own generator, every 10th, halves": partial(
        MAXL, subclasses=SUB_CLASSES, generator=OWN, generator_every=EVERY, meta_batch="half"
    ),
    "feature head, every step": partial(MAXL, subclasses=SUB_CLASSES, generator_every=1),
    "feature head, every step, halves": partial(MAXL, subclasses=SUB_CLASSES, generator_every=1, meta_batch="half"),
    "feature head, every 10th": partial(MAXL, subclasses=SUB_CLASSES, generator_every=EVERY),
}
SINGLE = "single task"

OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.01, momentum=0.9, weight_decay=5e-4),
    "adamw": partial(torch.optim.AdamW, lr=0.001, weight_decay=0.01),
}
"""The optimisers of the network; the meta-gradient sees through the step of either."""


class Batches(IterableDataset[dict[str, Tensor]]):
    """Repeats a few random batches, so that loading costs next to nothing."""

    def __init__(self, count: int, size: int, steps: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.steps = steps
        self.few = [
            {
                "image": torch.randn(count, 3, size, size, generator=generator),
                "label": torch.randint(CLASSES, (count,), generator=generator),
                "index": torch.arange(count),
                "aux_labels": torch.randint(CLASSES * SUB_CLASSES, (count, 1), generator=generator),
            }
            for _ in range(3)
        ]

    def __len__(self) -> int:
        """Counts the batches."""
        return self.steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Gives the batches one after the other."""
        return (self.few[step % len(self.few)] for step in range(self.steps))


class Each(L.Callback):
    """Calls something before and after each training step."""

    def __init__(self, before: Callable[[], None], after: Callable[[], None]) -> None:
        self.before, self.after = before, after

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Makes the first call."""
        self.before()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Makes the second call."""
        self.after()


def build(name: str, backbone: str, optimizer: str) -> PriorModule:
    """Builds the module of a variant."""
    variant = VARIANTS[name]
    own = {"generator": backbone} if _options(name).get("generator") == OWN else {}
    torch.manual_seed(0)
    return variant(num_classes=CLASSES, backbone=backbone, optimizer=OPTIMIZERS[optimizer], **own)


def _options(name: str) -> dict[str, Any]:
    """Returns the options that a variant sets."""
    variant = VARIANTS[name]
    return dict(variant.keywords) if isinstance(variant, partial) else {}


def fit(module: PriorModule, data: Batches, options: argparse.Namespace, each: Each) -> None:
    """Trains for as many steps as there are batches."""
    trainer = L.Trainer(
        max_epochs=1,
        accelerator=options.device,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[each, *([ChannelsLast()] if options.channels_last else [])],
    )
    trainer.fit(module, DataLoader(data, batch_size=None))


class Contestant:
    """Trains a variant in a thread of its own, which waits for its turn before each step."""

    def __init__(self, name: str, options: argparse.Namespace, count: int) -> None:
        self.name = name
        self.seconds: list[float] = []
        self._cuda, self._clock = options.device == "cuda", clock(options)
        self._turn, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._failed: BaseException | None = None
        self._options, self._count = options, count
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def step(self) -> None:
        """Lets the thread make one step, and waits for it."""
        self._turn.release()
        self._done.acquire()
        if self._failed is not None:
            raise RuntimeError(f"{self.name} failed") from self._failed

    def finish(self) -> None:
        """Waits for the end of the training."""
        self._thread.join()

    def milliseconds(self) -> float:
        """Computes the median time of a step; the generator's steps count in a mean over each cycle."""
        seconds = self.seconds[FIRST_STEPS:]
        cycle = _options(self.name).get("generator_every", 1)
        means = [fmean(seconds[start : start + cycle]) for start in range(0, len(seconds), cycle)]
        return 1000 * median(means)

    def _run(self) -> None:
        options = self._options
        torch.set_num_threads(options.threads)
        try:
            data = Batches(self._count, options.image_size, FIRST_STEPS + options.rounds)
            fit(build(self.name, options.backbone, options.optimizer), data, options, Each(self._before, self._after))
        except BaseException as error:
            self._failed = error
            self._done.release()

    def _before(self) -> None:
        self._turn.acquire()
        self._start = self._now()

    def _after(self) -> None:
        self.seconds.append(self._now() - self._start)
        self._done.release()

    def _now(self) -> float:
        if self._cuda:
            torch.cuda.synchronize()
        return self._clock()


def clock(options: argparse.Namespace) -> Callable[[], float]:
    """Chooses what the time is taken with."""
    wall = options.clock == "wall" or options.device == "cuda"
    return time.perf_counter if wall else time.process_time


def own_bytes(trainer: L.Trainer) -> int:
    """Adds up the size of the optimisers' state."""
    states = [state for optimizer in trainer.optimizers for state in optimizer.state.values()]
    return sum(value.nbytes for state in states for value in state.values() if isinstance(value, Tensor))


class Resident:
    """Reads the memory of this process: its resident pages, or what is allocated on the GPU."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"

    def now(self) -> int:
        """Gives the bytes that are held at this moment."""
        return torch.cuda.memory_allocated() if self.cuda else _status("VmRSS")

    def peak(self) -> int:
        """Gives the most bytes that were held since `restart`."""
        return torch.cuda.max_memory_allocated() if self.cuda else _status("VmHWM")

    def restart(self) -> None:
        """Forgets the peak."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")


def _status(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])


def measure_memory(name: str, options: argparse.Namespace, count: int) -> list[int]:
    """Measures, in this process, the peak of each cycle of steps above the networks and the optimisers' state."""
    torch.set_num_threads(options.threads)
    steps = options.memory_steps or 3 * EVERY
    memory, peaks, base = Resident(options.device), [], 0
    module = build(name, options.backbone, options.optimizer)
    data = Batches(count, options.image_size, steps)

    def before() -> None:
        nonlocal base
        base = base or memory.now()

    def after() -> None:
        if (module.trainer.fit_loop.batch_idx + 1) % EVERY == 0:
            peaks.append(memory.peak() - base - own_bytes(module.trainer))
            memory.restart()

    memory.restart()
    fit(module, data, options, Each(before, after))
    return peaks


def memory_of(name: str, count: int) -> list[int]:
    """Measures the same in a process of its own, which gives freed memory back at once."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--memory"]
    command = [sys.executable, __file__, *arguments, "--measure", name, "--batch-sizes", str(count)]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    answer = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    peaks: list[int] = json.loads(answer.stdout.splitlines()[-1])
    return peaks


def report_times(options: argparse.Namespace, count: int) -> list[dict[str, Any]]:
    """Prints the table of times, and gives its rows."""
    names = list(dict.fromkeys([SINGLE, *options.variants]))
    contestants = [Contestant(name, options, count) for name in names]
    for _ in range(FIRST_STEPS + options.rounds):
        for contestant in contestants:
            contestant.step()
    for contestant in contestants:
        contestant.finish()
    times = {contestant.name: contestant.milliseconds() for contestant in contestants}
    print(f"\nbatch {count:<38}{'ms':>10}{'ratio':>8}")
    for name, time_of_a_step in times.items():
        print(f"{name:44}{time_of_a_step:10.1f}{time_of_a_step / times[SINGLE]:8.2f}", flush=True)
    return rows_of("milliseconds", count, times)


def report_memory(options: argparse.Namespace, count: int) -> list[dict[str, Any]]:
    """Prints the table of peaks and gives its rows; the first and the last peak show whether memory grows."""
    print(f"\nbatch {count:<38}{'peak MB':>10}{'ratio':>8}{'first':>8}{'last':>8}")
    most: dict[str, float] = {}
    for name in dict.fromkeys([SINGLE, *options.variants]):
        peaks = [peak / 2**20 for peak in memory_of(name, count)[1:]]  # the first cycle loads code
        most[name] = max(peaks)
        ratio = most[name] / most[SINGLE]
        print(f"{name:44}{most[name]:10.0f}{ratio:8.2f}{peaks[0]:8.0f}{peaks[-1]:8.0f}", flush=True)
    return rows_of("megabytes", count, most)


def rows_of(unit: str, count: int, values: Mapping[str, float]) -> list[dict[str, Any]]:
    """Gives a row for each variant, with the ratio to plain training."""
    return [
        {
            "variant": name,
            "batch": count,
            "unit": unit,
            "value": round(value, 1),
            "ratio": round(value / values[SINGLE], 3),
        }
        for name, value in values.items()
    ]


def keep(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows into a file; rows of other variants, batches and units that it has stay."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    kept = {(row["unit"], row["batch"], row["variant"]): row for row in [*before, *rows]}
    path.write_text(json.dumps(list(kept.values()), indent=1) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="vgg16_bn")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[100, 32])
    parser.add_argument("--rounds", type=int, default=20, help=f"a multiple of {EVERY}")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--optimizer", choices=list(OPTIMIZERS), default="sgd", help="of the network")
    parser.add_argument("--channels-last", action="store_true", help="the memory layout, of all variants")
    parser.add_argument("--clock", choices=["processor", "wall"], default="processor")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--memory", action="store_true", help="measure the memory and not the time")
    parser.add_argument("--memory-steps", type=int, default=0, help=f"a multiple of {EVERY}, with --memory")
    parser.add_argument("--json", type=Path, help="a file for the rows; others that it has stay")
    parser.add_argument("--measure", choices=list(VARIANTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds % EVERY or options.memory_steps % EVERY:
        parser.error(f"--rounds and --memory-steps are multiples of {EVERY}")
    return options


def main() -> None:
    options = parse()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.simplefilter("ignore")  # about loaders and a missing validation, which do not matter here
    if options.measure:
        print(json.dumps(measure_memory(options.measure, options, options.batch_sizes[0])))
        return
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"{options.threads} threads"
    print(f"{options.backbone}, {options.image_size} px, {where}, {options.rounds} rounds")
    for count in options.batch_sizes:
        report = report_memory if options.memory else report_times
        rows = report(options, count)
        if options.json:
            keep(options.json, rows)


if __name__ == "__main__":
    main()
