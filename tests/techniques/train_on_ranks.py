"""Trains with each of some weightings: ``python train_on_ranks.py FOLDER PROCESSES WEIGHTING ...``."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch
from squares import Squares
from torch.utils.data import DataLoader, DistributedSampler

from lightning_priors.techniques import Auxiliary


def train(folder: Path, processes: int, weightings: Sequence[str]) -> None:
    """Writes the weights and what was logged, a file for each weighting and process; ``zero`` is weight 0."""
    for weighting in weightings:
        L.seed_everything(0, verbose=False)
        module = Auxiliary(
            aux_num_classes=[4, 3],
            mode="multitask",
            weighting="fixed" if weighting == "zero" else weighting,  # type: ignore[arg-type]
            aux_weight=float(weighting != "zero"),
            temperature=0.1,
            lookahead_rate=0.5,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
            scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1),
        )
        module.classifier.backbone.freeze_statistics = True  # each process would have its own
        trainer = L.Trainer(
            max_epochs=3,
            accelerator="cpu",
            devices=processes,
            strategy="ddp" if processes > 1 else "auto",
            use_distributed_sampler=False,  # Lightning's shuffles, whatever the loader says
            precision="64-true",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        data = Squares(24, keys=("aux_labels",))
        share = DistributedSampler(data, processes, trainer.global_rank, shuffle=False)
        loader = DataLoader(data, batch_size=8 // processes, sampler=share)
        trainer.fit(module, loader, loader)
        logged = {name: value for name, value in trainer.callback_metrics.items() if "_aux" in name}
        state = {name: value for name, value in module.state_dict().items() if "sums" not in name}
        torch.save((state, logged), folder / f"{weighting}-{processes}-{trainer.global_rank}.pt")


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
