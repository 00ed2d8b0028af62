"""Trains and validates on few images in several processes: ``python validate_in_processes.py FOLDER PROCESSES``."""

import json
import logging
import sys
from pathlib import Path

import lightning as L
import torch
from toy_sources import Toy, toy_data

from lightning_priors.techniques import Pretrained


class Watched(Pretrained):
    """Notes the images that this process has evaluated."""

    def __init__(self) -> None:
        super().__init__(num_classes=3)
        self.seen: list[int] = []

    def validation_step(self, batch, batch_idx):
        self.seen += batch["index"].tolist()
        return super().validation_step(batch, batch_idx)


def main(folder: Path, processes: int) -> None:
    """Writes what was evaluated in training, and its metrics, a file for each process."""
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=processes,
        strategy="ddp",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    module, data = Watched(), toy_data(Toy(train=16, val=7, test=5), batch_size=2)
    trainer.fit(module, data)
    found = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    seen = module.seen
    trainer.save_checkpoint(folder / "last.ckpt")
    module.seen = []
    (validated,) = trainer.validate(module, data, verbose=False)
    (tested,) = trainer.test(module, data, verbose=False)
    report = {"fit": found, "validate": validated, "test": tested, "seen": seen, "again": module.seen}
    (folder / f"{trainer.global_rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]))
