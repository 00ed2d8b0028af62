"""What a network says of the same test images, with pictures, as a table of W&B."""

from typing import Any, Literal

import lightning as L
from lightning.pytorch.loggers import WandbLogger

from lightning_priors.batch import PriorBatch
from lightning_priors.callbacks.cam_panel import CAMPanel
from lightning_priors.callbacks.drawing import Evidence, inside_share, overlay, pictures, shown_map
from lightning_priors.callbacks.run_folder import class_names

COLUMNS = ("index", "picture", "evidence", "label", "group", "predicted", "right", "probability", "inside_prior")
"""Of the table."""


class PredictionTable(CAMPanel):
    """Logs a table of predictions with pictures to W&B, ``test/predictions``, at the end of a test.

    The images are chosen evenly over classes and groups. Runs on the same test images choose the same ones, so that
    their tables can be joined by ``index``, the image's row in the source. ``probability`` is that of the predicted
    class, ``inside_prior`` the share of the evidence for the label inside the prior, where the image has one.

    Args:
        images: How many images; each costs two small pictures.

    Raises:
        PriorError: As by `CAMPanel`.

    >>> PredictionTable(images=0)
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: PredictionTable: images is 1 or more, not 0
    """

    def __init__(self, images: int = 24) -> None:
        super().__init__(images)

    def _due(self, trainer: L.Trainer) -> bool:
        return bool(trainer.testing) and super()._due(trainer)

    def finish(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: Literal["val", "test"]) -> None:
        """Logs the table."""
        if not self._due(trainer) or not self._shown:
            return
        batch, evidence = self.selection()
        self._shown = []
        names = class_names(trainer, evidence.logits.shape[1])
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                table = _table(prediction_cells(batch, evidence, names))
                logger.experiment.log({"test/predictions": table, "trainer/global_step": trainer.global_step})


def prediction_cells(batch: PriorBatch, evidence: Evidence, names: list[str]) -> list[list[Any]]:
    """Lays out a row for each image.

    Args:
        batch: B images, normalised, on the CPU.
        evidence: What the network made of them.
        names: K class names.

    Returns:
        B rows with the `COLUMNS`; pictures (H, W, 3) uint8.

    >>> import torch
    >>> batch = {"image": torch.zeros(1, 3, 8, 8), "label": torch.tensor([0]), "index": torch.tensor([7])}
    >>> row, = prediction_cells(batch, Evidence(torch.zeros(1, 2), torch.zeros(1, 2, 2, 2), {}), ["kakapo", "other"])
    >>> row[0], row[1].shape, row[3:]
    (7, (8, 8, 3), ['kakapo', None, 'kakapo', True, 0.5, None])
    """
    maps, inside = shown_map(evidence)[0], inside_share(batch, evidence)
    probabilities, predicted = evidence.logits.softmax(1).max(1)
    rows: list[list[Any]] = []
    for row, picture in enumerate(pictures(batch["image"])):
        label, guess = int(batch["label"][row]), int(predicted[row])
        group = int(batch["group"][row]) if "group" in batch else None
        said = [names[label], group, names[guess], guess == label, float(probabilities[row]), inside[row]]
        rows.append([int(batch["index"][row]), picture, overlay(picture, maps[row]), *said])
    return rows


def _table(rows: list[list[Any]]) -> Any:
    import wandb

    shown = (1, 2)
    cells = [[wandb.Image(cell) if column in shown else cell for column, cell in enumerate(row)] for row in rows]
    return wandb.Table(columns=list(COLUMNS), data=cells, allow_mixed_types=False)
