"""Lightning's commands: what a run leaves behind, what a mistake says, and the known traps, each shown not to bite."""

import csv
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning as L
import pytest
import torch
import yaml
from command_line import BROKEN_SOURCE, FIT, REPOSITORY, SMALL, TOY, finish, run_cli, start, start_new

from lightning_priors import Pretrained, PriorDataModule
from lightning_priors.cli.main import CHECKPOINT_DEFAULTS
from lightning_priors.cli.quiet import is_news, less_noise
from lightning_priors.data.sources import Kakapo

QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Every test runs in a folder of its own, from which modules can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture(scope="module")
def trained_and_files(tmp_path_factory):
    """The folder of a finished run of `FIT`, and the files that it left; an evaluation adds others."""
    folder = tmp_path_factory.mktemp("trained")
    assert run_cli(*FIT, f"--trainer.default_root_dir={folder}") == 0
    run = folder / "Pretrained" / "version_0"
    return run, {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}


@pytest.fixture
def trained(trained_and_files):
    """The folder of a finished run of `FIT`."""
    return trained_and_files[0]


@pytest.fixture(scope="module")
def api_checkpoint(tmp_path_factory):
    """A checkpoint that was trained through the Python interface."""
    folder = tmp_path_factory.mktemp("api")
    data = PriorDataModule(Kakapo(train_size=16, val_size=8, test_size=8, size=32), batch_size=8, image_size=32)
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    with less_noise():
        trainer.fit(Pretrained(backbone="tiny", lr=0.01, optimizer=torch.optim.AdamW), datamodule=data)
    trainer.save_checkpoint(folder / "api.ckpt")
    return folder / "api.ckpt"


def config_of(folder: Path) -> dict:
    return yaml.safe_load((folder / "config.yaml").read_text())


def printed_config(capsys, *arguments: str) -> dict:
    """What ``--print_config`` says."""
    with pytest.raises(SystemExit) as stop:
        run_cli(*arguments, "--print_config")
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def error_line(capsys, *arguments: str) -> str:
    """The one line that a mistake is answered with."""
    assert run_cli(*arguments) == 2
    shown = capsys.readouterr().err
    lines = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert shown.splitlines()[-1] == lines[0]
    assert "Traceback" not in shown
    return lines[0].removeprefix("error: ")


class TestRunFolder:
    def test_holds_configuration_metrics_checkpoints_and_panels(self, trained_and_files):
        found = trained_and_files[1]
        assert {"config.yaml", "metrics.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= found
        assert any(name.startswith("panels/") and name.endswith(".png") for name in found)
        top = {name.partition("/")[0] for name in found}
        assert top == {"config.yaml", "metrics.csv", "checkpoints", "panels", "confusion_val.csv"}

    def test_metrics_are_those_of_the_protocol(self, trained):
        with (trained / "metrics.csv").open() as file:
            columns = set(csv.DictReader(file).fieldnames)
        assert {
            "epoch",
            "train/loss",
            "val/loss",
            "val/acc",
            "val/f1_macro",
            "val/worst_group_acc",
            "val/ece",
        } <= columns
        assert {"val/epg", "val/pointing_game", "val/cam_iou"} <= columns

    def test_the_best_checkpoint_is_that_of_the_highest_accuracy(self, trained):
        states = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)["callbacks"]
        (state,) = [state for name, state in states.items() if "'monitor': 'val/acc'" in name]
        with (trained / "metrics.csv").open() as file:
            best = max(float(row["val/acc"]) for row in csv.DictReader(file) if row["val/acc"])
        assert Path(state["best_model_path"]).name == "best.ckpt"
        assert float(state["best_model_score"]) == pytest.approx(best)

    def test_the_last_checkpoint_is_the_last_and_not_the_best(self):
        """With its own option, Lightning would copy the best one."""
        assert run_cli(*FIT, "--trainer.max_epochs=3", "--checkpoint.monitor=epoch", "--checkpoint.mode=min") == 0
        folder = Path("runs/Pretrained/version_0/checkpoints")
        assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt"}
        epochs = {path.name: torch.load(path, weights_only=True)["epoch"] for path in folder.iterdir()}
        assert epochs == {"best.ckpt": 0, "last.ckpt": 2}

    def test_has_no_checkpoints_when_they_are_not_wanted(self):
        assert run_cli(*FIT, "--trainer.enable_checkpointing=false") == 0
        assert not Path("runs/Pretrained/version_0/checkpoints").exists()

    def test_is_not_made_by_a_quick_run(self):
        assert run_cli(*FIT, "--trainer.fast_dev_run=true") == 0
        assert list(Path("runs").rglob("*")) == []

    def test_is_named_after_the_technique_and_never_used_twice(self):
        assert run_cli(*FIT) == 0
        assert run_cli(*FIT) == 0
        assert sorted(path.name for path in Path("runs/Pretrained").iterdir()) == ["version_0", "version_1"]
        assert all(Path(f"runs/Pretrained/version_{n}/checkpoints/best.ckpt").is_file() for n in (0, 1))

    def test_is_a_runs_own_without_a_logger_too(self):
        for _ in range(2):
            assert run_cli(*FIT, "--trainer.logger=false", "--trainer.callbacks=null") == 0
        for version in (0, 1):
            folder = Path(f"runs/Pretrained/version_{version}")
            assert (folder / "config.yaml").is_file()
            assert (folder / "checkpoints" / "best.ckpt").is_file()
            assert not (folder / "metrics.csv").exists()

    def test_a_csv_logger_of_the_users_is_the_only_one(self):
        logger = '{"class_path": "CSVLogger", "init_args": {"save_dir": "mine", "name": "a", "version": "b"}}'
        assert run_cli(*FIT, f"--trainer.logger={logger}") == 0
        assert Path("mine/a/b/metrics.csv").is_file()
        assert Path("mine/a/b/config.yaml").is_file()
        assert not Path("runs").exists()

    def test_its_configuration_repeats_the_run_and_evaluates_its_checkpoint(self, trained, capsys):
        config = ("-c", str(trained / "config.yaml"), "--trainer.default_root_dir=again")  # not where the run is
        assert run_cli("validate", *config, f"--ckpt_path={trained}/checkpoints/last.ckpt") == 0
        with Path("again/Pretrained/version_0/metrics.csv").open() as file:
            again = next(csv.DictReader(file))
        with (trained / "metrics.csv").open() as file:
            (before,) = [row for row in csv.DictReader(file) if row["val/loss"]]
        assert float(again["val/loss"]) == pytest.approx(float(before["val/loss"]), rel=1e-5)
        assert run_cli("fit", *config) == 0
        repeated = torch.load("again/Pretrained/version_1/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        original = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        assert all(torch.equal(repeated[name], original[name]) for name in original)

    def test_the_seed_has_a_default_and_stands_in_the_configuration(self, trained):
        assert config_of(trained)["seed_everything"] == 0

    def test_predict_writes_a_table(self, trained):
        arguments = ("-c", str(trained / "config.yaml"), "--trainer.default_root_dir=predicted")
        assert run_cli("predict", *arguments, f"--ckpt_path={trained}/checkpoints/best.ckpt") == 0
        with Path("predicted/Pretrained/version_0/predictions.csv").open() as file:
            assert len(list(csv.DictReader(file))) == 8

    def test_evaluation_without_a_checkpoint_is_said(self, caplog):
        assert run_cli("test", *FIT[1:]) == 0
        assert "no --ckpt_path: test uses the weights that the model starts from" in caplog.text


class TestEvaluationFolder:
    def test_is_in_the_run_of_the_checkpoint_and_never_used_twice(self, tmp_path):
        assert run_cli(*FIT) == 0
        run = Path("runs/Pretrained/version_0")
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        for command in ("test", "test", "predict", "validate"):
            assert run_cli(command, *FIT[1:], f"--ckpt_path={run}/checkpoints/best.ckpt") == 0
        folders = {path.name for path in run.iterdir() if path.is_dir()}
        assert folders == {"checkpoints", "panels", "test", "test_1", "predict", "validate"}
        assert (run / "test" / "metrics.csv").read_text() == (run / "test_1" / "metrics.csv").read_text()
        assert (run / "predict" / "predictions.csv").is_file()
        assert (run / "validate" / "confusion_val.csv").is_file()
        assert config_of(run / "test_1")["ckpt_path"] == f"{run}/checkpoints/best.ckpt"
        assert all(path.read_bytes() == content for path, content in before.items())
        assert os.listdir("runs/Pretrained") == ["version_0"]

    def test_is_where_the_user_wants_it(self, trained):
        options = ("--trainer.default_root_dir=mine", f"--ckpt_path={trained}/checkpoints/best.ckpt")
        assert run_cli("test", *FIT[1:], *options) == 0
        assert Path("mine/Pretrained/version_0/metrics.csv").is_file()


FAILED_STARTS = {
    "no batch": (["--trainer.limit_train_batches=0.1"], "an epoch would have no batch: trainer.limit_train_batches is"),
    "no batch at all": (["--trainer.limit_train_batches=0"], "an epoch would have no batch"),
    "weights": (["--model.weights=nowhere.ckpt"], "nowhere.ckpt"),
    "annotation": (["--data.source=unmasked.Unmasked"], "CAMRestriction needs batch['mask'] or batch['part_boxes']"),
    "empty split": (
        ["--data.source=train_only.TrainOnly", "--data.val_fraction=0"],
        "the val split of TrainOnly is empty",
    ),
}


class TestStart:
    UNMASKED = (
        "from lightning_priors.data.sources import Kakapo\n\n\nclass Unmasked(Kakapo):\n"
        "    def load(self, index):\n        kept = ('image', 'label')\n"
        "        return {key: value for key, value in super().load(index).items() if key in kept}\n"
    )

    NO_VALIDATION = (
        "from lightning_priors.data.sources import Kakapo\n\n\nclass TrainOnly(Kakapo):\n"
        "    def indices(self, split):\n        return [] if split == 'val' else super().indices(split)\n"
    )

    @pytest.mark.parametrize(("options", "said"), FAILED_STARTS.values(), ids=FAILED_STARTS)
    def test_that_fails_leaves_nothing(self, options, said, capsys):
        Path("unmasked.py").write_text(self.UNMASKED)
        Path("train_only.py").write_text(self.NO_VALIDATION)
        assert said in error_line(capsys, "fit", "--model=CAMRestriction", *SMALL, *options)
        assert not Path("runs").exists()

    def test_looks_at_the_annotation_before_it_reads_weights(self, capsys):
        Path("unmasked.py").write_text(self.UNMASKED)
        options = ("--model.weights=nowhere.ckpt", "--data.source=unmasked.Unmasked", *SMALL)
        assert "needs batch['mask']" in error_line(capsys, "fit", "--model=CAMRestriction", *options)

    def test_says_what_was_chosen(self, caplog):
        caplog.set_level("INFO")
        assert run_cli("fit", "--model=CAMRestriction", "--data.annotated_fraction=0.5", *SMALL[:4],
                       "--data.image_size=24", *SMALL[5:], "--trainer.max_epochs=1") == 0  # fmt: skip
        lines = [record.getMessage() for record in caplog.records]
        assert "data: Kakapo, images: 16 train, 8 val; 2 classes: kakapo, other bird" in lines
        assert "priors: mask, part_boxes, keypoints, aux_labels, group; kept for 8 of 16 images" in lines
        assert [line for line in lines if line.startswith("model: CAMRestriction on tiny (random weights), ")]
        (cells,) = [line for line in lines if line.startswith("evidence map: ")]
        assert cells.startswith("evidence map: 3 x 3 cells of an image of 24 x 24 pixels, too coarse")

    def test_says_that_another_prior_is_used_than_asked_for(self, caplog):
        caplog.set_level("INFO")
        Path("masked.py").write_text(self.UNMASKED.replace("'label')", "'label', 'mask', 'mask_valid')"))
        options = ("--model.prior=part_boxes", "--data.source=masked.Unmasked", *SMALL, "--trainer.max_epochs=1")
        assert run_cli("fit", "--model=CAMRestriction", *options) == 0
        assert "Restriction: the data has no part_boxes; its mask is used" in caplog.text


class TestConfiguration:
    def test_files_compose_and_the_command_line_wins(self, capsys):
        Path("a.yaml").write_text("model:\n  class_path: Pretrained\n  init_args: {lr: 0.1, weight_decay: 0.2}\n")
        Path("b.yaml").write_text("model:\n  init_args: {lr: 0.3}\ntrainer: {max_epochs: 7}\n")
        config = printed_config(capsys, "fit", "-c", "a.yaml", "-c=b.yaml", "--config=b.yaml", "--trainer.max_epochs=9")
        init_args = config["model"]["init_args"]
        assert (init_args["lr"], init_args["weight_decay"], config["trainer"]["max_epochs"]) == (0.3, 0.2, 9)

    def test_what_print_config_prints_can_be_run(self, capsys):
        Path("printed.yaml").write_text(yaml.safe_dump(printed_config(capsys, *FIT)))
        assert run_cli("fit", "-c", "printed.yaml", "--trainer.fast_dev_run=true") == 0

    def test_defaults(self, capsys):
        config = printed_config(capsys, "fit", "--model=Pretrained")
        assert config["data"]["source"]["class_path"].endswith(".Kakapo")
        assert config["trainer"]["default_root_dir"] == "runs"
        assert {name: config["checkpoint"][name] for name in CHECKPOINT_DEFAULTS} == CHECKPOINT_DEFAULTS
        names = [callback["class_path"].rpartition(".")[2] for callback in config["trainer"]["callbacks"]]
        assert names == ["CAMPanel", "ConfusionMatrix"]

    def test_a_source_is_chosen_by_its_short_name(self, capsys):
        options = ("--data.source=Waterbirds", "--data.source.root=birds")
        source = printed_config(capsys, "fit", "--model=Pretrained", *options)["data"]["source"]
        assert source["class_path"].endswith(".Waterbirds")
        assert source["init_args"]["root"] == "birds"

    def test_a_source_brings_its_own_defaults(self, capsys):
        """Not those of the default source, which has arguments of the same names."""
        Path("few.py").write_text(
            "from lightning_priors.data.sources import Kakapo\n\n\nclass Few(Kakapo):\n"
            "    def __init__(self, train_size: int = 16, seed: int = 7) -> None:\n"
            "        super().__init__(train_size=train_size, seed=seed)\n"
        )
        Path("few.yaml").write_text("data: {source: {class_path: few.Few}}\n")
        for given in (["--data.source=few.Few"], ["-c", "few.yaml"]):
            source = printed_config(capsys, "fit", "--model=Pretrained", *given)["data"]["source"]
            assert source["init_args"] == {"train_size": 16, "seed": 7}
        chosen = ("-c", "few.yaml", "--data.source.seed=3")
        source = printed_config(capsys, "fit", "--model=Pretrained", *chosen)["data"]["source"]
        assert source["init_args"] == {"train_size": 16, "seed": 3}
        default = printed_config(capsys, "fit", "--model=Pretrained", "--data.source.train_size=3")["data"]["source"]
        assert (default["init_args"]["train_size"], default["init_args"]["val_size"]) == (3, 400)

    def test_callbacks_are_added_or_replaced(self, capsys):
        for option, expected in (("callbacks+", 3), ("callbacks", 1)):
            config = printed_config(capsys, "fit", "--model=Pretrained", f"--trainer.{option}=EarlyStopping",
                                    f"--trainer.{option.rstrip('+')}.monitor=val/acc")  # fmt: skip
            assert len(config["trainer"]["callbacks"]) == expected

    def test_the_optimizers_class_brings_its_own_defaults(self, capsys):
        """Not the arguments of the class that an earlier file named: SGD with AdamW's decay is another method."""
        Path("adamw.yaml").write_text(
            "model:\n  class_path: Pretrained\n  init_args:\n    optimizer:\n"
            "      class_path: torch.optim.AdamW\n      init_args: {lr: 0.3, weight_decay: 0.07}\n"
        )
        Path("sgd.yaml").write_text("model:\n  init_args:\n    optimizer:\n      class_path: torch.optim.SGD\n")
        Path("short.yaml").write_text("model:\n  init_args:\n    optimizer: SGD\n")
        Path("lr.yaml").write_text("model:\n  init_args:\n    optimizer:\n      init_args: {lr: 0.5}\n")
        for other in (
            ["--model.optimizer=SGD"],
            ["--model.optimizer", "SGD"],
            ["-c", "sgd.yaml"],
            ["-c", "short.yaml"],
        ):
            optimizer = printed_config(capsys, "fit", "-c", "adamw.yaml", *other)["model"]["init_args"]["optimizer"]
            assert optimizer["class_path"] == "torch.optim.SGD"
            assert optimizer["init_args"]["weight_decay"] == 0
            assert optimizer["init_args"]["lr"] != 0.3
        kept = printed_config(capsys, "fit", "-c", "adamw.yaml", "-c", "lr.yaml")["model"]["init_args"]["optimizer"]
        assert (kept["init_args"]["lr"], kept["init_args"]["weight_decay"]) == (0.5, 0.07)


MISTAKES = {
    "option of a technique": (
        ["--model=Pretrained", "--model.backbon=tiny"],
        "Pretrained has no option 'backbon' (--model.backbon); did you mean 'backbone'?",
    ),
    "abbreviation of a technique's option": (["--model=Pretrained", "--model.backb=tiny"], "did you mean 'backbone'?"),
    "abbreviation": (
        ["--model=Pretrained", "--trainer.max_epoch=2"],
        "there is no option --trainer.max_epoch; did you mean '--trainer.max_epochs'?",
    ),
    "group": (["--model=Pretrained", "--trainr.max_epochs=2"], "did you mean '--trainer.max_epochs'?"),
    "option of the data": (["--model=Pretrained", "--data.batchsize=2"], "did you mean '--data.batch_size'?"),
    "technique": (["--model=Pretraind"], "--model: there is no class 'Pretraind'; did you mean 'Pretrained'?"),
    "technique to explain": (["--model.help=Pretraind"], "--model.help: there is no class 'Pretraind'; did you mean"),
    "technique with module": (
        ["--model=lightning_priors.Pretraind"],
        "--model: there is no class 'lightning_priors.Pretraind'; did you mean 'Pretrained'?",
    ),
    "module": (["--model=no_module.Pretrained"], "--model: there is no class 'no_module.Pretrained'; did you mean"),
    "another class": (["--model=torch.nn.Linear"], "--model takes a PriorModule; choose from "),
    "no technique": ([], "--model must be given; choose from "),
    "option before the technique": (["--model.lr=3"], "--model needs a class first; choose from "),
    "source": (
        ["--model=Pretrained", "--data.source=Waterbird"],
        "--data.source: there is no class 'Waterbird'; did you mean 'Waterbirds'?",
    ),
    "option of a source": (
        ["--model=Pretrained", "--data.source=Waterbirds", "--data.source.rot=x"],
        "Waterbirds has no option 'rot' (--data.source.rot); did you mean 'root'?",
    ),
    "missing option of a source": (
        ["--model=Pretrained", "--data.source=Waterbirds"],
        "--data.source.root must be given",
    ),
    "number": (
        ["--model=Pretrained", "--trainer.max_epochs=two"],
        "--trainer.max_epochs takes int or null, not 'two'",
    ),
    "number of a technique": (["--model=Pretrained", "--model.lr=fast"], "--model.lr takes float, not 'fast'"),
    "choice": (
        ["--model=Pretrained", "--data.augmentation=corp"],
        "--data.augmentation cannot be 'corp'; did you mean 'crop'?",
    ),
    "choice of a technique": (
        ["--model=Pretrained", "--model.tuning=fll"],
        "--model.tuning cannot be 'fll'; did you mean 'full'?",
    ),
    "choice of several lists": (
        ["--model=Pretrained", "--trainer.precision=bf16-mixd"],
        "--trainer.precision cannot be 'bf16-mixd'; did you mean 'bf16-mixed'?",
    ),
    "strategy": (["--model=Pretrained", "--trainer.strategy=ddq"], "You selected an invalid strategy name"),
    "option of a group in a file of its own": (
        ["--model=Pretrained", "--trainer=trainer.yaml"],
        "the configuration has no entry 'trainer.max_epoch'; did you mean 'trainer.max_epochs'?",
    ),
    "file of a technique": (["--model=nowhere.yaml"], "--model: there is no file nowhere.yaml"),
    "no value": (["--model=Pretrained", "--data.batch_size"], "argument --data.batch_size: expected one argument"),
    "optimizer": (
        ["--model=Pretrained", "--model.optimizer=Adan"],
        "--model.optimizer: there is no class 'Adan'; did you mean 'Adam'?",
    ),
    "option before the optimizer": (
        ["--model=Pretrained", "--model.optimizer.lr=3"],
        "--model.optimizer.lr needs a class first: --model.optimizer CLASS",
    ),
    "option of the optimizer": (
        ["--model=Pretrained", "--model.optimizer=SGD", "--model.optimizer.lrr=3"],
        "SGD has no option 'lrr' (--model.optimizer.lrr); did you mean 'lr'?",
    ),
    "logger": (
        ["--model=Pretrained", "--trainer.logger=WandbLoger"],
        "--trainer.logger: there is no class 'WandbLoger'; did you mean 'WandbLogger'?",
    ),
    "package of a logger": (
        ["--model=Pretrained", "--trainer.logger=CometLogger"],
        "CometLogger needs a package that is not installed: pip install 'comet-ml",
    ),
    "callback": (["--model=Pretrained", "--trainer.callbacks=CAMPanl"], "did you mean 'CAMPanel'?"),
    "a callback's refusal": (
        ["--model=Pretrained", "--trainer.callbacks=CAMPanel", "--trainer.callbacks.images=0"],
        "CAMPanel: images is 1 or more, not 0",
    ),
    "rate": (["--model=Pretrained", "--model.lr=-1"], "lr is above 0, not -1.0"),
    "rate of an optimizer": (
        ["--model=Pretrained", "--model.optimizer=SGD", "--model.optimizer.lr=-1", *SMALL],
        "optimizer: Invalid learning rate: -1.0",
    ),
    "stray word": (["--model=Pretrained", "stray"], "'stray' belongs to no option"),
    "configuration file": (["-c", "knwon.yaml"], "there is no file knwon.yaml; did you mean 'known.yaml'?"),
    "configuration file in a folder": (["-c", "nowhere/known.yaml"], "there is no file nowhere/known.yaml"),
    "option in a file": (
        ["-c", "known.yaml"],
        "known.yaml: Pretrained has no option 'num_clases' (--model.num_clases); did you mean 'num_classes'?",
    ),
    "file without a technique": (["-c", "options.yaml"], "options.yaml: --model needs a class first; choose from "),
    "group in a file": (["-c", "group.yaml"], "the configuration has no entry 'modle'; did you mean 'model'?"),
    "option of a group in a file": (
        ["-c", "entry.yaml"],
        "the configuration has no entry 'trainer.max_epoch'; did you mean 'trainer.max_epochs'?",
    ),
    "syntax of a file": (["-c", "syntax.yaml"], "syntax.yaml, line 2: "),
    "checkpoint": (
        ["--model=Pretrained", "--ckpt_path=bset.ckpt"],
        "there is no checkpoint bset.ckpt; did you mean 'best.ckpt'?",
    ),
    "no checkpoint": (
        ["--model=Pretrained", "--ckpt_path=best.ckpt"],
        "best.ckpt is not a checkpoint of a training run",
    ),
    "weights": (["--model=Pretrained", "--model.weights=nowhere.ckpt", *SMALL], "nowhere.ckpt"),
    "folder": (["--model=Pretrained", "--data.source=Waterbirds", "--data.source.root=nowhere", *SMALL[4:]], "nowhere"),
    "Lightning's own": (
        ["--model=Pretrained", "--trainer.gradient_clip_algorithm=value_"],
        "`gradient_clip_algorithm` value_ is invalid.",
    ),
    "setup": (["--model=Pretrained", "--data.source=broken.Broken", "--data.source.where=setup"], "there is no folder"),
    "batch": (["--model=Pretrained", "--data.source=broken.Broken", *SMALL[4:]], ": bird.png is broken"),
    "batch of a worker": (
        ["--model=Pretrained", "--data.source=broken.Broken", *SMALL[4:], "--data.num_workers=1"],
        ": bird.png is broken",
    ),
    "training step": (["--model=toy.Toy", "--model.crash=mistake", *SMALL], "the toy is broken"),
}


class TestMistakes:
    @pytest.fixture(autouse=True)
    def _files(self):
        Path("known.yaml").write_text("model:\n  class_path: Pretrained\n  init_args: {num_clases: 3}\n")
        Path("options.yaml").write_text("model: {init_args: {lr: 0.1}}\n")
        Path("group.yaml").write_text("modle: {class_path: Pretrained}\n")
        Path("entry.yaml").write_text("model: Pretrained\ntrainer: {max_epoch: 3}\n")
        Path("trainer.yaml").write_text("max_epoch: 3\n")
        Path("syntax.yaml").write_text("model: Pretrained\ndata: [:\n")
        Path("best.ckpt").write_text("no checkpoint")
        Path("toy.py").write_text(TOY)
        Path("broken.py").write_text(BROKEN_SOURCE)

    @pytest.mark.parametrize(("arguments", "said"), MISTAKES.values(), ids=MISTAKES)
    def test_is_one_line_that_names_the_right_one(self, arguments, said, capsys):
        line = error_line(capsys, "fit", *arguments)
        assert said in line
        assert len(line) < 500

    def test_leaves_a_defect_of_the_program_its_traceback(self):
        with pytest.raises(RuntimeError, match="a defect of the program"):
            run_cli("fit", "--model=toy.Toy", "--model.crash=defect", *SMALL)

    def test_in_a_process_of_its_own_exits_with_2_and_says_nothing_else(self):
        process = start_new("fit", "--model=Pretraind")
        out, err = finish(process)
        assert (process.returncode, out) == (2, "")
        assert err == "error: --model: there is no class 'Pretraind'; did you mean 'Pretrained'?\n"


class TestLinks:
    def test_the_data_tells_the_model_the_number_of_classes(self, trained):
        hparams = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)["hyper_parameters"]
        assert hparams["num_classes"] == 2

    def test_the_users_number_is_not_overridden_silently(self, capsys):
        line = error_line(capsys, *FIT, "--model.num_classes=7")
        assert line == "--model.num_classes 7 contradicts the data, which has 2; leave it out"

    def test_the_users_number_in_a_file_is_not_overridden_silently(self, capsys):
        Path("seven.yaml").write_text("model:\n  class_path: Pretrained\n  init_args: {num_classes: 7}\n")
        assert "7 contradicts the data" in error_line(capsys, "fit", "-c", "seven.yaml", *SMALL)

    def test_the_right_number_may_be_given(self):
        assert run_cli(*FIT, "--model.num_classes=2", "--trainer.fast_dev_run=true") == 0

    def test_auxiliary_classes_reach_a_technique_that_takes_them(self, capsys):
        Path("toy.py").write_text(TOY)
        fit = ("fit", "--model=toy.Toy", *SMALL, "--trainer.max_epochs=1")
        assert run_cli(*fit) == 0
        checkpoint = torch.load("runs/Toy/version_0/checkpoints/last.ckpt", weights_only=True)
        expected = [len(names) for names in Kakapo().aux_classes.values()]
        assert expected
        assert checkpoint["hyper_parameters"]["aux_num_classes"] == expected
        assert "aux_num_classes [99] contradicts" in error_line(capsys, *fit, "--model.aux_num_classes=[99]")


class TestCheckpoints:
    def test_options_are_those_of_the_command_line(self, trained, capsys):
        checkpoint = f"--ckpt_path={trained}/checkpoints/best.ckpt"
        assert run_cli("validate", *FIT[1:], "--model.l2_sp=0.0", "--model.lr=0.5", checkpoint) == 0
        written = max(trained.glob("validate*"), key=lambda path: path.stat().st_mtime)
        assert config_of(written)["model"]["init_args"]["lr"] == 0.5
        assert torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)["hyper_parameters"]["lr"] != 0.5

    def test_another_class_is_refused(self, trained, capsys):
        arguments = ("validate", "--model=CAMRestriction", *SMALL, f"--ckpt_path={trained}/checkpoints/best.ckpt")
        assert error_line(capsys, *arguments).endswith("best.ckpt is a checkpoint of Pretrained, not of CAMRestriction")

    def test_the_technique_that_a_checkpoint_names_itself_counts(self, trained, capsys):
        checkpoint = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
        torch.save({**checkpoint, "technique": "Pretrained", "hyper_parameters": {}}, "own.ckpt")
        assert run_cli("validate", *FIT[1:], "--ckpt_path=own.ckpt") == 0
        torch.save({**checkpoint, "technique": "MAXL"}, "other.ckpt")
        line = error_line(capsys, "validate", *FIT[1:], "--ckpt_path=other.ckpt")
        assert line == "other.ckpt is a checkpoint of MAXL, not of Pretrained"

    def test_weights_that_do_not_fit_are_refused_with_the_reason(self, trained, capsys):
        arguments = (*FIT[1:], "--model.backbone=resnet18", f"--ckpt_path={trained}/checkpoints/best.ckpt")
        assert error_line(capsys, "test", *arguments) == (
            "the checkpoint does not fit this model (backbone was tiny, now resnet18); "
            "give its run's config.yaml with -c"
        )

    def test_a_resumed_run_continues(self, trained):
        checkpoint = f"--ckpt_path={trained}/checkpoints/last.ckpt"
        assert run_cli(*FIT, "--trainer.max_epochs=2", checkpoint) == 0
        before = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
        after = torch.load("runs/Pretrained/version_0/checkpoints/last.ckpt", weights_only=True)
        assert (before["epoch"], after["epoch"]) == (0, 1)
        assert after["global_step"] == 2 * before["global_step"]

    def test_a_resumed_run_does_not_ignore_a_new_learning_rate(self, trained, capsys):
        """Lightning would restore the optimiser and train on with the old one."""
        checkpoint = f"--ckpt_path={trained}/checkpoints/last.ckpt"
        line = error_line(capsys, *FIT, "--model.lr=0.5", checkpoint)
        assert line.startswith("a resumed run keeps its options (lr was 0.001, now 0.5)")
        line = error_line(capsys, *FIT, "--model.optimizer=SGD", checkpoint)
        assert line.startswith(
            "a resumed run keeps its options (optimizer was None, now {'class_path': 'torch.optim.SGD'"
        )

    def test_of_the_command_line_and_of_python_load_in_another_script(self, trained, api_checkpoint):
        script = (
            "import sys, torch\n"
            "from lightning_priors.techniques import Pretrained\n"
            "for path in sys.argv[1:]:\n"
            "    assert torch.load(path, weights_only=True)['hyper_parameters']['backbone'] == 'tiny'\n"
            "    model = Pretrained.load_from_checkpoint(path, weights_only=True, map_location='cpu')\n"
            "    print(tuple(model(torch.zeros(1, 3, 32, 32)).shape), model.hparams.num_classes)\n"
        )
        paths = [str(trained / "checkpoints" / "best.ckpt"), str(api_checkpoint)]
        shown = subprocess.run(
            [sys.executable, "-c", script, *paths], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        assert shown.stdout == "(1, 2) 2\n(1, 2) 2\n"

    def test_of_python_is_evaluated_by_the_command_line(self, api_checkpoint):
        assert run_cli("test", *FIT[1:], f"--ckpt_path={api_checkpoint}") == 0
        assert run_cli("test", *FIT[1:], "--model.optimizer=SGD", f"--ckpt_path={api_checkpoint}") == 0


class TestToyTechnique:
    def test_a_technique_without_options_keeps_a_checkpoint(self):
        source = TOY.replace("class Toy(", "class Base(") + (
            "\n\nclass Toy(Base):\n    def __init__(self) -> None:\n        super().__init__()\n"
        )
        Path("bare.py").write_text(source)
        assert run_cli("fit", "--model=bare.Toy", *SMALL, "--trainer.max_epochs=1") == 0
        assert Path("runs/Toy/version_0/checkpoints/last.ckpt").is_file()

    def test_a_technique_given_by_its_dotted_path_fits_and_validates(self):
        Path("toy.py").write_text(TOY)
        model = ("--model=toy.Toy", "--model.smoothing=0.2", *SMALL)
        assert run_cli("fit", *model, "--trainer.max_epochs=1") == 0
        checkpoint = Path("runs/Toy/version_0/checkpoints/best.ckpt")
        assert run_cli("validate", *model, f"--ckpt_path={checkpoint}") == 0
        assert config_of(Path("runs/Toy/version_0/validate"))["model"]["class_path"] == "toy.Toy"
        assert list(Path("runs/Toy/version_0/panels").glob("*.png"))


@pytest.mark.slow
class TestProcess:
    @pytest.mark.parametrize(
        ("sent", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
    )
    def test_a_signal_ends_with_its_code_and_keeps_the_checkpoint(self, sent, code, word):
        process = start(*FIT, "--trainer.max_epochs=10000", "--data.source.train_size=64")
        checkpoint = Path("runs/Pretrained/version_0/checkpoints/last.ckpt")
        while not checkpoint.is_file() and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(sent)
        err = finish(process)[1]
        assert process.returncode == code, err
        assert "Traceback" not in err
        assert err.endswith(f"the same command with --ckpt_path {checkpoint}\n{word}\n")
        assert torch.load(checkpoint, weights_only=True)["state_dict"]
        assert Path("runs/Pretrained/version_0/metrics.csv").is_file()

    def test_a_run_says_what_matters_and_no_advertisement(self):
        process = start_new(*FIT)
        out, err = finish(process)
        assert process.returncode == 0, err
        assert re.search(r"best val/acc \d\.\d{4}: runs/Pretrained/version_0/checkpoints/best\.ckpt\n", err)
        shown = out + err
        assert not re.search(
            "Tip|litlogger|litmodels|TPU|HPU|tensorboardX|Warning|warn|many workers|/lightning/", shown
        )
        assert len(shown.splitlines()) <= 10, shown

    @pytest.mark.slow
    def test_two_processes_share_one_run_folder(self):
        config = str(REPOSITORY / "configs" / "trainer" / "ddp.yaml")
        process = start_new(*FIT, "-c", config, "--trainer.devices=2")
        err = finish(process)[1]
        assert process.returncode == 0, err
        assert os.listdir("runs/Pretrained") == ["version_0"]
        assert config_of(Path("runs/Pretrained/version_0"))["trainer"]["devices"] == "2"


def test_the_filter_keeps_what_is_new():
    def keeps(message):
        return is_news(logging.LogRecord("x", logging.INFO, "x", 1, message, None, None))

    assert keeps("12 of 14 tensors loaded")
    assert not keeps("💡 Tip: For seamless cloud logging")


def test_the_filter_is_gone_after_a_command():
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    assert run_cli(*FIT, "--trainer.fast_dev_run=true") == 0
    assert logger.filters == []
