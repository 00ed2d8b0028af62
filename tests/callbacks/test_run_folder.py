"""Callbacks write where the checkpoints are."""

from pathlib import Path

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from lightning_priors.callbacks import run_folder
from lightning_priors.callbacks.run_folder import class_names


@pytest.mark.parametrize("version", [None, 4, "named"])
def test_it_is_the_folder_above_the_checkpoints(version, looker, data, make_trainer, tmp_path):
    checkpoint = ModelCheckpoint()
    trainer = make_trainer(
        checkpoint, logger=CSVLogger(tmp_path, "runs", version=version), max_epochs=1, enable_checkpointing=True
    )
    trainer.fit(looker(), datamodule=data())
    assert run_folder(trainer) == Path(checkpoint.best_model_path).parents[1] == Path(trainer.logger.log_dir)


def test_the_first_of_several_loggers_decides(make_trainer, tmp_path):
    loggers = [CSVLogger(tmp_path, "first", version=1), CSVLogger(tmp_path, "second", version=2)]
    assert run_folder(make_trainer(logger=loggers)) == tmp_path / "first" / "version_1"


def test_wandb_runs_do_not_share_a_folder(make_trainer, tmp_path):
    folders = [
        run_folder(make_trainer(logger=WandbLogger(project="birds", save_dir=tmp_path, version=name)))
        for name in ("one", "two")
    ]
    assert folders == [tmp_path / "birds" / "one", tmp_path / "birds" / "two"]


def test_without_a_logger_it_is_the_root(make_trainer, tmp_path):
    assert run_folder(make_trainer(logger=False)) == tmp_path


def test_classes_are_named_by_the_data_module_and_numbered_without_one(data, make_trainer):
    trainer = make_trainer()
    assert class_names(trainer, 3) == ["0", "1", "2"]
    trainer.datamodule = data()
    assert class_names(trainer, 2) == ["kakapo", "other bird"]
