"""What a run costs: seconds per training step and peak memory."""

import math
import time
from pathlib import Path
from statistics import median

import lightning as L
import torch

FIRST_STEPS = 3  # slower: caches fill, memory is claimed, kernels are chosen


class StepTimer(L.Callback):
    """Times training from batch to batch, loading included, validation left out.

    >>> timer = StepTimer()
    >>> timer.seconds = [9.0, 9.0, 9.0, 1.0, 2.0, 3.0]
    >>> timer.median()
    2.0
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last: float | None = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The way from one epoch to the next is no step."""
        self._last = None

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Neither is a validation amid an epoch."""
        self._last = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Takes the time since the last batch."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        now = time.perf_counter()
        if self._last is not None:
            self.seconds.append(now - self._last)
        self._last = now

    def median(self) -> float:
        """Median seconds per step without the first three; not a number when there were no more."""
        return median(self.seconds[FIRST_STEPS:]) if len(self.seconds) > FIRST_STEPS else math.nan


class PeakMemory:
    """The most memory in use since its creation: the allocator's on a CUDA device, else the process's resident set.

    Args:
        device: Where the run computes.

    >>> import sys
    >>> PeakMemory(torch.device("cpu")).mebibytes() > 0 or sys.platform != "linux"
    True
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._measurable = True
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            try:
                Path("/proc/self/clear_refs").write_text("5")  # Linux: lowers the mark to the present size
            except OSError:
                self._measurable = False

    def mebibytes(self) -> float:
        """The peak in MiB; not a number where the system does not tell."""
        if not self._measurable:
            return math.nan
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
