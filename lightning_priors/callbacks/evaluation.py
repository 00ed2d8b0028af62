"""Callbacks that do the same in validation and in test."""

from abc import ABC, abstractmethod
from typing import Any, Literal

import lightning as L
from torch import Tensor

from lightning_priors.batch import PriorBatch
from lightning_priors.errors import PriorError


class EvaluationCallback(L.Callback, ABC):
    """Base of callbacks that look at each batch of an evaluation: a subclass writes `begin`, `see` and `finish`.

    >>> class Batches(EvaluationCallback):
    ...     def begin(self):
    ...         self.number = 0
    ...
    ...     def see(self, trainer, pl_module, outputs, batch):
    ...         self.number += 1
    ...
    ...     def finish(self, trainer, pl_module, stage):
    ...         print(stage, self.number)
    >>> callback, trainer, module = Batches(), L.Trainer(logger=False, accelerator="cpu"), L.LightningModule()
    >>> callback.on_test_epoch_start(trainer, module)
    >>> callback.on_test_epoch_end(trainer, module)
    test 0
    """

    @abstractmethod
    def begin(self) -> None:
        """Forgets the last evaluation."""

    @abstractmethod
    def see(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: PriorBatch) -> None:
        """Looks at a batch, after the module's step that gave back the outputs."""

    @abstractmethod
    def finish(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: Literal["val", "test"]) -> None:
        """Does what is to be done after the last batch."""

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begins anew."""
        self.begin()

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begins anew."""
        self.begin()

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Looks at a batch."""
        self.see(trainer, pl_module, outputs, batch)

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Looks at a batch."""
        self.see(trainer, pl_module, outputs, batch)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Finishes the validation."""
        self.finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Finishes the test."""
        self.finish(trainer, pl_module, "test")


def given_logits(outputs: object, pl_module: L.LightningModule, by: str) -> Tensor:
    """What an evaluation step gave back, if it is logits.

    Args:
        outputs: Of the step.
        pl_module: The module that it is a step of.
        by: Who asks, for the message.

    Returns:
        (B, K).

    Raises:
        PriorError: If it is something else.

    >>> given_logits(None, L.LightningModule(), by="ConfusionMatrix")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: ConfusionMatrix needs the evaluation steps of LightningModule to give logits
    """
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        raise PriorError(f"{by} needs the evaluation steps of {type(pl_module).__name__} to give logits")
    return outputs
