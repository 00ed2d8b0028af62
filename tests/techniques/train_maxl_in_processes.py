"""Trains MAXL with some sets of options: ``python train_maxl_in_processes.py FOLDER PROCESSES``."""

import logging
import sys
from pathlib import Path

import lightning as L
import torch
from squares import Squares
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler

from lightning_priors.techniques import MAXL

OPTIONS: dict[str, dict[str, object]] = {
    "default": {"generator_every": 1},
    "single": {"generator_every": 1, "balance": "entropy"},
    "clipped": {"gradient_clip_norm": 0.5, "meta_gradient": "raw", "accumulate_batches": 2, "generator": "tiny"},
    "half": {"meta_batch": "half", "generator_every": 1, "balance": "entropy"},
    "held_out": {"meta_batch": "held_out", "held_out_fraction": 0.4, "schedule": "alternating"},
    "sinkhorn": {"balance": "sinkhorn", "meta_batch": "same", "meta_gradient": "clipped", "entropy_weight": 0.0},
    "warm": {"warm_start": "kmeans", "schedule": "alternating", "generator_every": 2},
    "human": {"labels": "human", "aux_num_classes": [4, 3], "aux_task": 1},
}
"""``single`` is trained in single precision, the others in double. Its labels are not balanced: then some gradients of
the generator are rounding errors, which Adam scales to steps of full size."""


class Partial(Squares):
    """Squares of which some have no auxiliary label, more of them in one process than in the other."""

    def __getitem__(self, index: int):
        sample = super().__getitem__(index)
        return sample | {"aux_labels": torch.full((2,), -1)} if index % 4 == 1 else sample


def with_group_norm(module: nn.Module) -> None:
    """Replaces batch normalisation, whose statistics every process has for itself."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.GroupNorm(4, child.num_features))


def train(folder: Path, processes: int) -> None:
    """Writes the weights and what was logged, a file for each set of options and process."""
    for name, options in OPTIONS.items():
        L.seed_everything(0, verbose=False)
        module = MAXL(  # type: ignore[arg-type]
            subclasses=3,
            lookahead_every=1,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
            scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1),
            **options,
        )
        with_group_norm(module)
        trainer = L.Trainer(
            max_epochs=2,
            accelerator="cpu",
            devices=processes,
            strategy="ddp" if processes > 1 else "auto",
            use_distributed_sampler=False,  # Lightning's shuffles, whatever the loader says
            precision="32-true" if name == "single" else "64-true",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        data = Partial(24, size=16, keys=("aux_labels",))
        share = DistributedSampler(data, processes, trainer.global_rank, shuffle=False)
        loader = DataLoader(data, batch_size=8 // processes, sampler=share)
        trainer.fit(module, loader, loader)
        logged = {key: value for key, value in trainer.callback_metrics.items() if key.startswith("train/")}
        torch.save((module.state_dict(), logged), folder / f"{name}-{processes}-{trainer.global_rank}.pt")


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), int(sys.argv[2]))
