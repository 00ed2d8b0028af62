"""Where a run keeps its files, and what its classes are called."""

from pathlib import Path
from typing import Protocol, runtime_checkable

import lightning as L


@runtime_checkable
class NamesClasses(Protocol):
    """A data module that knows the names of its classes."""

    @property
    def classes(self) -> list[str]:
        """The names in the order of the labels."""


def run_folder(trainer: L.Trainer) -> Path:
    """Finds the folder of a run, beside its ``checkpoints``: the same rule for every logger that writes to a disk.

    ``trainer.log_dir`` is not it: under W&B that is a folder which all runs share.

    Args:
        trainer: A trainer whose run has begun; W&B gives a run its name when it starts.

    Returns:
        ``save_dir/name/version`` of the first logger, or the trainer's ``default_root_dir`` without a logger. It need
        not exist yet.

    >>> from lightning.pytorch.loggers import CSVLogger
    >>> str(run_folder(L.Trainer(logger=CSVLogger("runs", "kakapo", version=3), accelerator="cpu")))
    'runs/kakapo/version_3'
    """
    logger = trainer.logger
    if logger is None:
        return Path(trainer.default_root_dir)
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return Path(logger.save_dir or trainer.default_root_dir, str(logger.name), version)


def class_names(trainer: L.Trainer, num_classes: int) -> list[str]:
    """Lists the names of the classes as the data module gives them, or their numbers where there is none.

    Args:
        trainer: A trainer that runs.
        num_classes: Number of classes K.

    Returns:
        K names.

    >>> class_names(L.Trainer(logger=False, accelerator="cpu"), 2)
    ['0', '1']
    """
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    if isinstance(datamodule, NamesClasses):
        return datamodule.classes
    return [str(label) for label in range(num_classes)]
