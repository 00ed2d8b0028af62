"""Accuracies beside those that every technique logs: balanced over the classes, and on chosen groups."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from lightning_priors.batch import PriorBatch
from lightning_priors.callbacks.evaluation import EvaluationCallback, given_logits
from lightning_priors.errors import PriorError
from lightning_priors.metrics import GroupAccuracy


class SubsetAccuracy(EvaluationCallback):
    """Logs ``balanced_acc``, the mean over the classes of the share that is recognised, and ``acc_<name>`` of subsets.

    Both under ``val/`` and ``test/``, over all ranks. It needs ``validation_step`` and ``test_step`` to give back
    the logits (B, K), as those of `PriorModule` do.

    Args:
        subsets: By name the numbers of the groups whose images count, such as those that are hard to tell apart.

    Raises:
        PriorError: If a step does not give back the logits, or the data has no groups for the subsets.

    >>> SubsetAccuracy({"hard": [0, 2, 4, 6]}).subsets
    {'hard': [0, 2, 4, 6]}
    """

    def __init__(self, subsets: Mapping[str, Sequence[int]] | None = None) -> None:
        self.subsets = {name: list(groups) for name, groups in (subsets or {}).items()}
        self._metrics: dict[str, Metric] = {}

    def begin(self) -> None:
        """Begins at zero."""
        self._metrics = {}

    def see(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: PriorBatch) -> None:
        """Counts a batch."""
        logits = given_logits(outputs, pl_module, by="SubsetAccuracy")
        if self.subsets and "group" not in batch:
            raise PriorError(f"SubsetAccuracy: this data has no groups for {', '.join(self.subsets)}")
        if not self._metrics:
            self._metrics = {f"acc_{name}": MeanMetric().to(logits.device) for name in self.subsets}
            self._metrics["balanced_acc"] = GroupAccuracy(logits.shape[1]).to(logits.device)
        label, predicted = batch["label"], logits.argmax(1)
        self._metrics["balanced_acc"].update(predicted, label, label)
        for name, groups in self.subsets.items():
            chosen = torch.isin(batch["group"], torch.tensor(groups, device=label.device))
            self._metrics[f"acc_{name}"].update((predicted == label).float(), chosen.float())

    def finish(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: Literal["val", "test"]) -> None:
        """Logs the accuracies."""
        for name, metric in self._metrics.items():
            value: Tensor = metric.compute()  # adds up over the ranks
            pl_module.log(f"{stage}/{name}", value.nanmean())  # of the classes that occur
        self._metrics = {}
