"""Accuracies beside those that every technique logs: balanced over the classes, and on chosen groups."""

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from lightning_priors.batch import PriorBatch
from lightning_priors.errors import PriorError
from lightning_priors.metrics import GroupAccuracy


class SubsetAccuracy(L.Callback):
    """Logs ``balanced_acc``, the mean over the classes of the share that is recognised, and ``acc_<name>`` of subsets.

    Both under ``val/`` and ``test/``, over all processes. It needs ``validation_step`` and ``test_step`` to give back
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

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begins at zero."""
        self._metrics = {}

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begins at zero."""
        self._metrics = {}

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Counts a batch."""
        self._count(pl_module, outputs, batch)

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Counts a batch."""
        self._count(pl_module, outputs, batch)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the accuracies."""
        self._log(pl_module, "val")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the accuracies."""
        self._log(pl_module, "test")

    def _count(self, pl_module: L.LightningModule, outputs: Any, batch: PriorBatch) -> None:
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            raise PriorError(f"SubsetAccuracy needs the evaluation steps of {type(pl_module).__name__} to give logits")
        if self.subsets and "group" not in batch:
            raise PriorError(f"SubsetAccuracy: this data has no groups for {', '.join(self.subsets)}")
        if not self._metrics:
            self._metrics = {f"acc_{name}": MeanMetric().to(outputs.device) for name in self.subsets}
            self._metrics["balanced_acc"] = GroupAccuracy(outputs.shape[1]).to(outputs.device)
        label, predicted = batch["label"], outputs.argmax(1)
        self._metrics["balanced_acc"].update(predicted, label, label)
        for name, groups in self.subsets.items():
            chosen = torch.isin(batch["group"], torch.tensor(groups, device=label.device))
            self._metrics[f"acc_{name}"].update((predicted == label).float(), chosen.float())

    def _log(self, pl_module: L.LightningModule, stage: str) -> None:
        for name, metric in self._metrics.items():
            value: Tensor = metric.compute()  # adds up over the processes
            pl_module.log(f"{stage}/{name}", value.nanmean())  # of the classes that occur
        self._metrics = {}
