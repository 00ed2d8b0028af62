"""A picture to a logger, whichever of those that take pictures it is."""

from pathlib import Path

import numpy as np
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from PIL import Image


def log_picture(logger: Logger, name: str, path: Path, step: int) -> None:
    """Gives a picture to W&B, TensorBoard or MLflow; other loggers take none.

    Args:
        logger: One of the trainer's.
        name: Such as ``val/panel``; MLflow keeps the picture as the artifact ``val/panel/step_12.png``.
        path: The file.
        step: The trainer's step.

    >>> from lightning.pytorch.loggers import CSVLogger
    >>> log_picture(CSVLogger("runs"), "val/panel", Path("panel.png"), step=12)
    """
    if isinstance(logger, WandbLogger):
        import wandb

        logger.experiment.log({name: wandb.Image(str(path)), "trainer/global_step": step})
    elif isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, _pixels(path), step, dataformats="HWC")
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_image(logger.run_id, _pixels(path), f"{name}/step_{step}.png")


def _pixels(path: Path) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    """The picture (H, W, 3) uint8."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))
