"""Evaluates a fixed network with all callbacks: ``python evaluate_in_processes.py FOLDER PROCESSES``."""

import sys
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from conftest import OPTIONAL, Data, Looker, Pictures
from lightning_priors.callbacks import CAMPanel, ConfusionMatrix, LabelReport, PredictionWriter


class Counted(Looker):
    """Counts how often it is asked, and makes labels."""

    asked = 0
    sub_classes = (3, 2)

    def explain(self, image):
        self.asked += 1
        return super().explain(image)

    def auxiliary_labels(self, batch):
        label, number = batch["label"], batch["index"] * 37 % 11
        labels = torch.zeros(len(label), 5)
        labels[torch.arange(len(label)), torch.where(label == 0, number % 3, 3 + number % 2)] = 0.9 - 0.05 * number
        return labels


if __name__ == "__main__":
    folder, processes = Path(sys.argv[1]), int(sys.argv[2])
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        logger=CSVLogger(folder, "runs", version=0),
        callbacks=[CAMPanel(), ConfusionMatrix(), LabelReport(images=4), PredictionWriter()],
        enable_progress_bar=False,
        enable_checkpointing=False,
    )
    module = Counted()
    trainer.validate(
        module, datamodule=Data((*OPTIONAL, "aux_labels")), verbose=False
    )  # 18 images, 9 for each of two processes
    (folder / f"asked_{trainer.global_rank}").write_text(str(module.asked))
    trainer.predict(module, DataLoader(Pictures(23), batch_size=4))  # 12 and 11 images, 3 batches each
