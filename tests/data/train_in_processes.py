"""Trains on 50 images in two processes, in several ways: ``python train_in_processes.py FOLDER``."""

import logging
import pickle
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from toy_sources import Recorder, Toy, toy_data

RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "own_sampler": ({"use_distributed_sampler": False}, {}),
    "workers": ({}, {"num_workers": 1}),
    "overfit": ({"overfit_batches": 2}, {}),
}
"""For each run the options of the trainer and of the data."""


def train(folder: Path, name: str) -> None:
    """Writes what this process is shown in two epochs."""
    trainer_options, data_options = RUNS[name]
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **trainer_options,
    )
    module = Recorder()
    trainer.fit(module, toy_data(Toy(train=50, val=2), augmentation="crop", **data_options))
    (folder / f"{name}-{trainer.global_rank}.pickle").write_bytes(pickle.dumps(module.seen))


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    for run in RUNS:
        train(Path(sys.argv[1]), run)
