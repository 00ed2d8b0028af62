"""Every technique, trained for an epoch on a few drawn birds."""

from collections.abc import Callable
from pathlib import Path

import lightning as L

from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import Kakapo
from lightning_priors.priors import AuxiliaryTasks, GuidedAttention, Restriction
from lightning_priors.techniques import (
    MAXL,
    Auxiliary,
    CAMRestriction,
    Combined,
    GlobalLocal,
    Pretrained,
    PriorAttention,
    PriorModule,
    PublishedMAXL,
)

Made = Callable[[list[int]], PriorModule]

TECHNIQUES: dict[str, Made] = {
    "Pretrained": lambda aux: Pretrained(),
    "CAMRestriction": lambda aux: CAMRestriction(found_regions=True, exchange_background=True),
    "PriorAttention": lambda aux: PriorAttention(residual=False),
    "Auxiliary": lambda aux: Auxiliary(aux_num_classes=aux, exclude_target=True),
    "GlobalLocal": lambda aux: GlobalLocal(crop_size=16, exchange_background=True),
    "GlobalLocal, cam": lambda aux: GlobalLocal(crop_size=16, locator="cam", fusion="gate", window="ellipse"),
    "GlobalLocal, priors": lambda aux: GlobalLocal(crop_size=16, priors=[Restriction(), GuidedAttention()]),
    "MAXL": lambda aux: MAXL(subclasses=3, priors=[Restriction(found_regions=True)]),
    "PublishedMAXL": lambda aux: PublishedMAXL(subclasses=3),
    "Combined": lambda aux: Combined([Restriction(), GuidedAttention(), AuxiliaryTasks()], aux_num_classes=aux),
}


def kakapos() -> PriorDataModule:
    return PriorDataModule(Kakapo(), batch_size=8, image_size=32, images_per_class=8, val_fraction=0.02)


def train(module: L.LightningModule, folder: Path, data: L.LightningDataModule | None = None) -> Path:
    """Trains for an epoch and saves a checkpoint as a run has it; gives the run folder."""
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=2,
    )
    trainer.fit(module, datamodule=data or kakapos())
    trainer.save_checkpoint(folder / "checkpoints" / "best.ckpt")
    return folder
