"""The predictions of `predict` as a table."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_priors.batch import PriorBatch
from lightning_priors.callbacks.run_folder import class_names, run_folder
from lightning_priors.errors import PriorError
from lightning_priors.whole_files import write_table


@runtime_checkable
class NamesFiles(Protocol):
    """A source of data that can say which file an image comes from."""

    def file(self, index: int) -> str:
        """The path of an image as the source counts it; empty if it is no file of its own."""


class Prediction(NamedTuple):
    """One row of the table."""

    image: int
    """The image's index, its row in the source."""
    label: int
    """Its true class, -1 = unknown."""
    probabilities: list[float]
    """K."""


def prediction_rows(
    predictions: list[Prediction], class_names: list[str], files: dict[int, str]
) -> tuple[list[str], list[list[str]]]:
    """Lays predictions out as a table.

    Args:
        predictions: In any order; equal indices are all kept.
        class_names: K names.
        files: The file of each index; empty if there are no files.

    Returns:
        The names of the columns, and the rows in the order of the indices: index, file (if there are files), true
        class (empty if unknown), predicted class and the probability of each class.

    >>> prediction_rows([Prediction(7, 0, [0.25, 0.75])], ["kakapo", "other"], {})
    (['index', 'label', 'predicted', 'p(kakapo)', 'p(other)'], [['7', 'kakapo', 'other', '0.25', '0.75']])
    """
    columns = ["index", *(["file"] if files else []), "label", "predicted", *(f"p({name})" for name in class_names)]
    rows = []
    for index, label, probabilities in sorted(predictions):
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        row = [str(index), *([files[index]] if files else []), class_names[label] if label >= 0 else ""]
        rows.append([*row, class_names[best], *(f"{value:.6g}" for value in probabilities)])
    return columns, rows


class PredictionWriter(L.Callback):
    """Writes what ``predict`` gives to ``predictions.csv`` in the run's folder, from all ranks into one file.

    It needs ``predict_step`` to give back a dict with ``index`` (B,) and ``probabilities`` (B, K), as that of
    `PriorModule` does. Nothing is written under ``fast_dev_run``.

    Raises:
        PriorError: If the step gives back anything else.

    >>> PredictionWriter().state_key
    'PredictionWriter'
    """

    def __init__(self) -> None:
        self._predictions: list[Prediction] = []

    def on_predict_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begins with none."""
        self._predictions = []

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: PriorBatch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Keeps the predictions of a batch."""
        if not isinstance(outputs, dict) or not {"index", "probabilities"} <= outputs.keys():
            name = type(pl_module).__name__
            raise PriorError(f"PredictionWriter needs predict_step of {name} to give index and probabilities")
        index: Tensor = outputs["index"]
        label = batch["label"] if "label" in batch else torch.full_like(index, -1)
        columns = (index.tolist(), label.tolist(), outputs["probabilities"].float().tolist())
        self._predictions += [Prediction(*row) for row in zip(*columns, strict=True)]

    def on_predict_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Gathers the predictions of all ranks and writes them."""
        predictions, self._predictions = _gathered(self._predictions, trainer.world_size), []
        if not trainer.is_global_zero or not predictions or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        source = getattr(trainer.datamodule, "source", None)  # type: ignore[attr-defined]
        files = {row.image: source.file(row.image) for row in predictions} if isinstance(source, NamesFiles) else {}
        names = class_names(trainer, len(predictions[0].probabilities))
        columns, rows = prediction_rows(predictions, names, files if any(files.values()) else {})
        path = run_folder(trainer) / "predictions.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, [columns, *rows])
        rank_zero_info(f"{len(rows)} predictions: {path}")


def _gathered(predictions: list[Prediction], world_size: int) -> list[Prediction]:
    """The predictions of all ranks, which may have different numbers of them."""
    if world_size == 1:
        return predictions
    parts: list[list[Prediction]] = [[] for _ in range(world_size)]
    torch.distributed.all_gather_object(parts, predictions)
    return [prediction for part in parts for prediction in part]
