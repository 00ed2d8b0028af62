"""The data module, which turns the images of any source into batches with labels and priors."""

from lightning_priors.data.datamodule import PriorDataModule

__all__ = ["PriorDataModule"]
