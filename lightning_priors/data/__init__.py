"""One data module for every source: images with their labels and priors as dense batches."""

from lightning_priors.data.datamodule import PriorDataModule

__all__ = ["PriorDataModule"]
