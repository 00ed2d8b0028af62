"""Trains GroupDRO: ``python train_group_dro_on_ranks.py FOLDER PROCESSES``."""

import logging
import sys
from collections import Counter
from pathlib import Path

import lightning as L
import torch
from squares import Squares
from torch.utils.data import DataLoader, DistributedSampler

from lightning_priors.techniques import GroupDRO


class Counted(L.LightningDataModule):
    """Squares whose groups are counted, each rank with every other one of them."""

    def __init__(self, processes: int) -> None:
        super().__init__()
        self.processes, self.data = processes, Squares(24, keys=("group",))

    def group_counts(self) -> list[int]:
        counts = Counter(int(sample["group"]) for sample in self.data.samples)
        return [counts[group] for group in range(4)]

    def train_dataloader(self) -> DataLoader:
        share = DistributedSampler(self.data, self.processes, self.trainer.global_rank, shuffle=False)
        return DataLoader(self.data, batch_size=8 // self.processes, sampler=share)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.data)


def train(folder: Path, processes: int) -> None:
    """Writes the weights of the network and of the groups, a file for each process."""
    L.seed_everything(0, verbose=False)
    module = GroupDRO(
        step_size=2.0,
        adjustment=1.0,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1),
    )
    module.classifier.backbone.freeze_statistics = True  # each process would have its own
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        use_distributed_sampler=False,
        precision="64-true",
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=Counted(processes))
    found = {"state": module.classifier.state_dict(), "weights": module.group_weights}
    torch.save(found, folder / f"{processes}-{trainer.global_rank}.pt")


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), int(sys.argv[2]))
