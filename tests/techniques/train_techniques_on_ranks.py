"""Trains techniques on partly annotated images: ``python train_techniques_on_ranks.py FOLDER PROCESSES NAME ...``."""

import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import lightning as L
import torch
from squares import Squares
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from lightning_priors.batch import PriorSample
from lightning_priors.priors import AuxiliaryTasks, GuidedAttention, Restriction
from lightning_priors.techniques import (
    Auxiliary,
    CAMRestriction,
    Combined,
    GlobalLocal,
    Pretrained,
    PriorAttention,
    PriorModule,
)

NAMES = {"aux_num_classes": [4, 3]}
TECHNIQUES: dict[str, Callable[..., PriorModule]] = {
    "Pretrained": Pretrained,
    "CAMRestriction": partial(CAMRestriction, found_regions=True),
    "PriorAttention": PriorAttention,
    "GlobalLocal": partial(GlobalLocal, crop_size=16, jitter=0.0, fusion="gate", joint=True),
    "GlobalLocal, ellipse": partial(GlobalLocal, crop_size=16, jitter=0.0, window="ellipse"),
    "Auxiliary": partial(Auxiliary, mode="multitask", **NAMES),
    "Combined": lambda **options: Combined(
        [Restriction(found_regions=True), GuidedAttention(), AuxiliaryTasks()], **NAMES, **options
    ),
}
"""Without what is drawn at random, which each rank draws for itself."""

KEYS = ("mask", "part_boxes", "keypoints", "group", "aux_labels")


class Partly(Dataset[PriorSample]):
    """Squares of which few have priors: in some batches only the first rank has any, in one batch nobody."""

    def __init__(self) -> None:
        self.squares = Squares(24, keys=KEYS)

    def __len__(self) -> int:
        return len(self.squares)

    def __getitem__(self, index: int) -> PriorSample:
        sample = dict(self.squares[index])
        if (index % 2 and index > 12) or index % 3 == 0 or index > 15:
            sample |= {"mask_valid": torch.tensor(False), "part_valid": torch.tensor([False])}
            sample |= {"keypoint_valid": torch.tensor([False]), "aux_labels": torch.tensor([-1, index % 3])}
        return sample  # type: ignore[return-value]


def without_statistics(module: nn.Module) -> None:
    """Replaces batch normalisation, of whose statistics each process would have its own."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.GroupNorm(1, child.num_features))


def train(folder: Path, processes: int, names: Sequence[str]) -> None:
    """Writes the weights and what was logged, a file for each technique and process."""
    for name in names:
        L.seed_everything(0, verbose=False)
        module = TECHNIQUES[name](
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
            scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1),
        )
        without_statistics(module)
        trainer = L.Trainer(
            max_epochs=2,
            accelerator="cpu",
            devices=processes,
            strategy="ddp" if processes > 1 else "auto",
            use_distributed_sampler=False,  # Lightning's shuffles, whatever the loader says
            precision="64-true",
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        data = Partly()
        share = DistributedSampler(data, processes, trainer.global_rank, shuffle=False)
        loader = DataLoader(data, batch_size=8 // processes, sampler=share)
        trainer.fit(module, loader, loader)
        logged = {key: value for key, value in trainer.callback_metrics.items() if key.startswith("train/loss")}
        torch.save((module.state_dict(), logged), folder / f"{name}-{processes}-{trainer.global_rank}.pt")


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
