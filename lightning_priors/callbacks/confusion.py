"""Which classes are taken for which."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from lightning_priors.batch import PriorBatch
from lightning_priors.callbacks.drawing import COLD, tint
from lightning_priors.callbacks.evaluation import EvaluationCallback, given_logits
from lightning_priors.callbacks.logged_picture import log_picture
from lightning_priors.callbacks.run_folder import class_names, run_folder
from lightning_priors.whole_files import write_figure, write_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NUMBERS = 40
"""Up to how many classes a drawn confusion matrix has its numbers written in."""


def draw_confusion(counts: Tensor, names: Sequence[str]) -> "Figure":
    """Draws a confusion matrix: a row for each true class, coloured by the shares that are taken for each class.

    The numbers are written into it for up to `MOST_NUMBERS` classes, zeros left out.

    Args:
        counts: (K, K) int64, true class by predicted class.
        names: K class names.

    Returns:
        A figure with a single pair of axes.

    >>> figure = draw_confusion(torch.tensor([[3, 1], [0, 2]]), ["kakapo", "other"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['3', '1', '2']
    """
    from matplotlib.figure import Figure

    classes = len(names)
    side = min(max(1.6, 0.36 * classes), 12.0)
    figure = Figure(figsize=(side + 1.8, side + 1.4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    axes.imshow(tint(np.full((classes, classes, 3), 255), shares, scale=1.0, positive=COLD))
    for true, predicted in counts.nonzero().tolist() if classes <= MOST_NUMBERS else []:
        colour = "white" if shares[true, predicted] > 0.6 else "black"
        count = str(int(counts[true, predicted]))
        size = min(9.0, 110 * side / classes / len(count))
        axes.text(predicted, true, count, ha="center", va="center", fontsize=size, color=colour)
    size = min(9.0, 55 * side / classes)
    axes.set_xticks(range(classes), names, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(range(classes), names, fontsize=size, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure


class ConfusionMatrix(EvaluationCallback):
    """Counts which classes are taken for which, over all ranks.

    It needs ``validation_step`` and ``test_step`` to give back the logits (B, K), as those of `PriorModule` do. At the
    end of each evaluation it writes ``confusion_val.csv`` or ``confusion_test.csv`` to the run's folder (a row for each
    true class, a column for each predicted one), the same as a picture to ``panels``, and to ``val/confusion`` or
    ``test/confusion`` of W&B, as a chart, and of TensorBoard and MLflow, as a picture. Nothing is written in the sanity
    check or under ``fast_dev_run``.

    Raises:
        PriorError: If a step does not give back the logits.

    >>> ConfusionMatrix().state_key
    'ConfusionMatrix'
    """

    def __init__(self) -> None:
        self._counts: MulticlassConfusionMatrix | None = None

    def begin(self) -> None:
        """Begins at zero."""
        self._counts = None

    def see(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: PriorBatch) -> None:
        """Counts a batch."""
        logits = given_logits(outputs, pl_module, by="ConfusionMatrix")
        if self._counts is None:
            self._counts = MulticlassConfusionMatrix(logits.shape[1]).to(logits.device)
        self._counts.update(logits, batch["label"])

    def finish(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: Literal["val", "test"]) -> None:
        """Writes the counts."""
        if self._counts is None or trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        counts: Tensor = self._counts.compute().cpu()  # adds up over the ranks, so all of them come here
        self._counts = None
        if not trainer.is_global_zero:
            return
        names, folder = class_names(trainer, len(counts)), run_folder(trainer)
        (folder / "panels").mkdir(parents=True, exist_ok=True)
        _write_csv(folder / f"confusion_{stage}.csv", counts, names)
        picture = folder / "panels" / f"confusion_{stage}.png"
        write_figure(picture, draw_confusion(counts, names))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                chart = _wandb_chart(counts, names)
                logger.experiment.log({f"{stage}/confusion": chart, "trainer/global_step": trainer.global_step})
            else:
                log_picture(logger, f"{stage}/confusion", picture, trainer.global_step)


def _write_csv(path: Path, counts: Tensor, names: Sequence[str]) -> None:
    rows = [[name, *row] for name, row in zip(names, counts.tolist(), strict=True)]
    write_table(path, [["true \\ predicted", *names], *rows])


def _wandb_chart(counts: Tensor, names: Sequence[str]) -> Any:
    """W&B's own chart from the counts; `wandb.plot.confusion_matrix` would want every single prediction.

    Zeros off the diagonal are left out: a chart takes 10000 rows, which is 100 classes.
    """
    import wandb

    shown = (counts > 0) | torch.eye(len(names), dtype=torch.bool)
    rows = [[names[true], names[guess], int(counts[true, guess])] for true, guess in shown.nonzero().tolist()]
    columns: list[str | int] = ["Actual", "Predicted", "nPredictions"]
    return wandb.plot_table(
        data_table=wandb.Table(columns=columns, data=rows),
        vega_spec_name="wandb/confusion_matrix/v1",
        fields={str(column): str(column) for column in columns},
        string_fields={"title": "Confusion matrix"},
    )
