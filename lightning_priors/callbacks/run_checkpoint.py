"""Checkpoints of a run that may go on in another folder, and that are whole files whenever one looks."""

import os
import shutil
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from lightning_priors.whole_files import write_whole


class RunCheckpoint(ModelCheckpoint):
    """Lightning's `ModelCheckpoint`, which also knows the best checkpoint of the run that a resumed run goes on from.

    A resumed run has a folder of its own. Lightning's callback would begin there without a best value, and take its
    first epoch for the best. This one copies the earlier best checkpoint into the new folder and keeps its value.

    Example:
        >>> RunCheckpoint(monitor="val/acc", mode="max", filename="best").best_model_path
        ''
    """

    _earlier: dict[str, Any] | None = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the state of a checkpoint; from another folder it is taken over when the training goes on."""
        if state_dict["dirpath"] == self.dirpath:
            super().load_state_dict(state_dict)
        elif self.monitor is not None:
            self._earlier = state_dict

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Copies the best checkpoint of the earlier run."""
        super().on_train_start(trainer, pl_module)
        earlier, self._earlier = self._earlier, None
        if earlier is None or not earlier["best_model_path"] or self.dirpath is None:
            return
        best = _found(Path(earlier["best_model_path"]), Path(str(trainer.ckpt_path)).parent)
        if best is None:
            rank_zero_info(f"the best checkpoint of the earlier run, {earlier['best_model_path']}, is gone")
            return
        copy = Path(self.dirpath, best.name)
        if trainer.is_global_zero:
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_whole(copy, lambda part: shutil.copyfile(best, part))
        trainer.strategy.barrier()
        self.best_model_path = self.kth_best_model_path = str(copy)
        self.best_model_score = self.kth_value = self.current_score = earlier["best_model_score"]
        self.best_k_models = {str(copy): earlier["best_model_score"]}


class WholeFiles(TorchCheckpointIO):
    """Writes each checkpoint beside its place and renames it, so that an interruption never leaves half a file.

    Lightning's own writer moves the file from the folder for temporary files, which may be on another disk, so that
    moving is copying.

    Raises:
        PriorError: If the file cannot be written, such as on a full disk; the earlier file stays as it was.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "last.ckpt"
        >>> WholeFiles().save_checkpoint({"epoch": 1}, path)
        >>> [found.name for found in path.parent.iterdir()]
        ['last.ckpt']
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Writes a checkpoint.

        Args:
            checkpoint: Its content.
            path: Where to; folders that are missing are made.
            storage_options: Not used.
        """
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(Path(path), lambda part: torch.save(checkpoint, part))


def _found(path: Path, beside: Path) -> Path | None:
    """A file, or the file of that name in another folder, for a run that was moved as a whole."""
    return next((place for place in (path, beside / path.name) if place.is_file()), None)
