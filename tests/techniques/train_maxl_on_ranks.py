"""Trains MAXL with some sets of options: ``python train_maxl_on_ranks.py FOLDER RANKS``."""

import logging
import sys
from pathlib import Path

import lightning as L
import torch
from squares import Squares
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler

from lightning_priors.priors import Restriction
from lightning_priors.techniques import MAXL, PublishedMAXL

OPTIONS: dict[str, dict[str, object]] = {
    "default": {"generator_every": 1},
    "single": {"generator_every": 1, "balance": "entropy"},
    "clipped": {"gradient_clip_norm": 0.5, "accumulate_batches": 2, "generator": "tiny"},
    "half": {"meta_batch": "half", "generator_every": 1, "balance": "entropy"},
    "priors": {"generator_every": 1},
    "published": {"method": "first_order", "generator": "features"},
}
"""``single`` is trained in single precision, the others in double. Its labels are not balanced: then some gradients of
the generator are rounding errors, which Adam scales to steps of full size."""


def with_group_norm(module: nn.Module) -> None:
    """Replaces batch normalisation, whose statistics every rank has for itself."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.GroupNorm(4, child.num_features))


def build(name: str) -> MAXL | PublishedMAXL:
    """The module of a set of options."""
    options: dict[str, object] = {
        "subclasses": 3,
        "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
        "scheduler": lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1),
        **OPTIONS[name],
    }
    if name == "priors":
        options["priors"] = [Restriction(weight=0.5)]
    return (PublishedMAXL if name == "published" else MAXL)(**options)  # type: ignore[arg-type]


def train(folder: Path, ranks: int) -> None:
    """Writes the weights and what was logged, a file for each set of options and rank."""
    for name in OPTIONS:
        L.seed_everything(0, verbose=False)
        module = build(name)
        with_group_norm(module)
        trainer = L.Trainer(
            max_epochs=2,
            accelerator="cpu",
            devices=ranks,
            strategy="ddp" if ranks > 1 else "auto",
            use_distributed_sampler=False,  # Lightning's shuffles, whatever the loader says
            precision="32-true" if name == "single" else "64-true",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        data = Squares(24, size=16, keys=("mask",))
        share = DistributedSampler(data, ranks, trainer.global_rank, shuffle=False)
        loader = DataLoader(data, batch_size=8 // ranks, sampler=share)
        trainer.fit(module, loader, loader)
        logged = {key: value for key, value in trainer.callback_metrics.items() if key.startswith("train/")}
        torch.save((module.state_dict(), logged), folder / f"{name}-{ranks}-{trainer.global_rank}.pt")


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), int(sys.argv[2]))
