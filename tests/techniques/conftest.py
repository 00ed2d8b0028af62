"""Batches that the techniques' tests share."""

from collections.abc import Callable

import lightning as L
import pytest
from squares import Squares
from torch.utils.data import DataLoader

from lightning_priors.batch import PriorBatch

Batches = Callable[..., PriorBatch]


@pytest.fixture
def squares() -> type[Squares]:
    return Squares


@pytest.fixture
def batch() -> Batches:
    """Makes a batch with the given optional keys."""

    def make(count: int = 6, size: int = 32, keys: tuple[str, ...] = ("mask", "part_boxes", "group")) -> PriorBatch:
        loader = DataLoader(Squares(count, size, keys), batch_size=count)
        made: PriorBatch = next(iter(loader))
        return made

    return make


@pytest.fixture
def fit(tmp_path) -> Callable[..., L.Trainer]:
    """Fits a module on squares without any output and gives the trainer back."""

    def run(
        module: L.LightningModule,
        epochs: int = 1,
        ckpt_path: str | None = None,
        shuffle: bool = True,
        keys: tuple[str, ...] = ("mask", "part_boxes", "group"),
        **trainer_options,
    ) -> L.Trainer:
        L.seed_everything(0, verbose=False)
        options = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
        trainer = L.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            enable_progress_bar=False,
            default_root_dir=tmp_path,
            **(options | trainer_options),
        )
        train = DataLoader(Squares(24, keys=keys), batch_size=8, shuffle=shuffle)
        trainer.fit(module, train, DataLoader(Squares(8, keys=keys), batch_size=8), ckpt_path=ckpt_path)
        return trainer

    return run
