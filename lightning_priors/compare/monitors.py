"""What the choice of the monitor costs: what other validation metrics would have selected is tested too."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import lightning as L
import torch

from lightning_priors.callbacks import RunCheckpoint
from lightning_priors.compare.rows import AT


def rival_checkpoints(monitors: Sequence[str]) -> dict[str, RunCheckpoint]:
    """Makes a callback for each monitor that keeps the weights it would select.

    Args:
        monitors: Validation metrics of which more is better.
    """
    return {
        monitor: RunCheckpoint(
            monitor=monitor, mode="max", filename=f"by-{re.sub(r'[^a-z_]', '-', monitor)}", save_weights_only=True
        )
        for monitor in monitors
    }


def scores_of_rivals(
    trainer: L.Trainer,
    model: L.LightningModule,
    data: L.LightningDataModule,
    checkpoints: Mapping[str, str],
    tested: Mapping[int, Mapping[str, float]],
) -> dict[str, float]:
    """Tests what the monitors have selected, each epoch once.

    Args:
        trainer: It has trained the model.
        model: What was trained.
        data: With the test images.
        checkpoints: The path of what each monitor has selected.
        tested: The test metrics of epochs that were tested already.

    Returns:
        The test metrics by ``METRIC@MONITOR``.
    """
    known = {epoch: dict(values) for epoch, values in tested.items()}
    found: dict[str, float] = {}
    for monitor, checkpoint in checkpoints.items():
        epoch = epoch_of(checkpoint)
        if epoch not in known:
            with _silent(trainer):
                values = trainer.test(model, datamodule=data, ckpt_path=checkpoint, verbose=False)[0]
            known[epoch] = {name: float(value) for name, value in values.items()}
        found |= {f"{name}{AT}{monitor}": value for name, value in known[epoch].items()}
    return found


def epoch_of(checkpoint: str) -> int:
    """Reads from a checkpoint after which epoch it was written."""
    return int(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["epoch"])


@contextmanager
def _silent(trainer: L.Trainer) -> Iterator[None]:
    """Logs and draws nothing, since these are not the figures of the run."""
    loggers, callbacks = trainer.loggers, trainer.callbacks  # type: ignore[attr-defined]
    trainer.loggers, trainer.callbacks = [], []  # type: ignore[attr-defined]
    try:
        yield
    finally:
        trainer.loggers, trainer.callbacks = loggers, callbacks  # type: ignore[attr-defined]
