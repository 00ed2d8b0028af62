"""What a W&B run is called, how it is summarised and what it keeps: offline runs, read back."""

import csv
import os
from pathlib import Path

import pytest
import yaml
from command_line import FIT, SMALL, run_cli
from lightning.pytorch.loggers import WandbLogger
from offline_wandb import WANDB, artifacts, offline_runs, recorded, records, without_account

import lightning_priors
from lightning_priors.cli.wandb_run import propose
from lightning_priors.techniques import Pretrained

RESTRICTED = ("fit", "--model=CAMRestriction", *SMALL, "--trainer.max_epochs=3", "--model.lr=0.05", *WANDB)


@pytest.fixture(autouse=True)
def _no_account(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_account(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The working folder of a fit with three epochs that keeps its classifier."""
    place = tmp_path_factory.mktemp("fit")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        without_account(place, patch)
        assert run_cli(*RESTRICTED, "--trainer.logger.log_model=true") == 0
    return place


@pytest.fixture
def run(folder):
    """The folder of its record."""
    (found,) = offline_runs(folder / "runs" / "wandb")
    return found


class TestFit:
    def test_is_named_by_technique_data_and_seed(self, run):
        (record,) = records(run, "run")
        assert record["display_name"] == "CAMRestriction Kakapo seed 0"
        assert record["job_type"] == "fit"
        assert record["tags"] == ["CAMRestriction", "Restriction"]
        assert "run_group" not in record

    def test_is_summarised_by_the_best_values(self, run, folder):
        with (folder / "runs/CAMRestriction/version_0/metrics.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["val/acc"]]
        summary, not_the_last = recorded(run)["summary"], 0
        for name, best in {"val/acc": max, "val/epg": max, "val/loss": min, "val/ece": min}.items():
            values = [float(row[name]) for row in rows]
            assert summary[name] == {best.__name__: pytest.approx(best(values), rel=1e-5)}
            not_the_last += best(values) != values[-1]
        assert len(rows) == 3
        assert not_the_last

    def test_has_each_option_once(self, run, folder):
        config = recorded(run)["config"]
        saved = yaml.safe_load((folder / "runs/CAMRestriction/version_0/config.yaml").read_text())
        assert config.keys() - {"_wandb"} == saved.keys() | {"num_classes", "run_folder"}
        assert {part: config[part] for part in saved} == saved
        assert "num_classes" not in saved["model"]["init_args"]

    def test_keeps_the_selected_checkpoint_with_its_card(self, run, folder):
        (kept,) = artifacts(run, "model").values()
        assert kept.keys() == {"best.ckpt", "README.md"}
        best = folder / "runs/CAMRestriction/version_0/checkpoints/best.ckpt"
        assert Path(kept["best.ckpt"]).read_bytes() == best.read_bytes()
        assert "CAMRestriction" in Path(kept["README.md"]).read_text()
        (model,) = [found for found in records(run, "artifact") if found["type"] == "model"]
        assert "best" in model["aliases"]

    def test_waits_beside_the_run_for_being_sent(self, run, folder):
        tables = artifacts(run, "run_table")
        assert tables
        for files in tables.values():
            assert all(Path(path).is_relative_to(folder / "runs" / "wandb") for path in files.values())

    def test_leaves_the_environment_as_it_was(self, run):
        assert not [name for name in os.environ if name in ("WANDB_NAME", "WANDB_JOB_TYPE", "WANDB_TAGS")]


def test_what_the_user_has_set_stays():
    own = ("name=mine", "group=birds", "tags=[a, b]", "job_type=try")
    assert run_cli(*FIT, *WANDB, *(f"--trainer.logger.{option}" for option in own)) == 0
    (record,) = records(offline_runs(Path())[0], "run")
    assert record["display_name"] == "mine"
    assert record["run_group"] == "birds"
    assert record["tags"] == ["a", "b"]
    assert record["job_type"] == "try"


def test_an_evaluation_has_its_own_type(folder, monkeypatch):
    run = folder / "runs/CAMRestriction/version_0"
    monkeypatch.chdir(folder)
    assert run_cli("test", "-c", f"{run}/config.yaml", "--ckpt_path", f"{run}/checkpoints/best.ckpt",
                   "--trainer.logger.save_dir=tested") == 0  # fmt: skip
    (record,) = records(offline_runs(folder / "tested")[0], "run")
    assert record["job_type"] == "test"
    assert record["display_name"] == "CAMRestriction Kakapo seed 0"


def test_a_failed_run_is_marked():
    assert run_cli(*FIT, *WANDB, "--model.weights=nowhere.ckpt") == 2
    assert recorded(offline_runs(Path())[0])["state"] == "failed"


def test_other_loggers_get_the_hyperparameters():
    assert run_cli(*FIT, "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=csv") == 0
    (saved,) = Path("csv").glob("**/hparams.yaml")
    assert yaml.safe_load(saved.read_text())["lr"] == Pretrained().hparams["lr"]


class TestPropose:
    def proposed(self, monkeypatch, **options):
        """The variables that are set for a logger with some options."""
        for name in ("NAME", "JOB_TYPE", "TAGS"):
            monkeypatch.setenv(f"WANDB_{name}", "")  # so that they are restored
            monkeypatch.delenv(f"WANDB_{name}")
        propose([WandbLogger(**options)], "a run", "fit", ["A", "B"])
        names = ("NAME", "JOB_TYPE", "TAGS")
        return {name: os.environ[f"WANDB_{name}"] for name in names if f"WANDB_{name}" in os.environ}

    def test_says_everything_of_a_new_run(self, monkeypatch):
        assert self.proposed(monkeypatch) == {"NAME": "a run", "JOB_TYPE": "fit", "TAGS": "A,B"}

    def test_says_nothing_of_a_run_that_goes_on(self, monkeypatch):
        assert self.proposed(monkeypatch, id="abc") == {}

    def test_leaves_the_names_in_a_sweep_to_wandb(self, monkeypatch):
        monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
        assert self.proposed(monkeypatch).keys() == {"JOB_TYPE", "TAGS"}

    def test_leaves_the_variables_that_are_set(self, monkeypatch):
        proposed = propose([], "a run", "fit", [])
        monkeypatch.setenv("WANDB_NAME", "mine")
        monkeypatch.setenv("WANDB_JOB_TYPE", "try")
        monkeypatch.setenv("WANDB_TAGS", "")
        propose([WandbLogger()], "a run", "fit", ["A"])
        assert proposed is None
        assert (os.environ["WANDB_NAME"], os.environ["WANDB_JOB_TYPE"], os.environ["WANDB_TAGS"]) == ("mine", "try", "")


def test_the_kept_checkpoint_loads(run, tmp_path):
    (kept,) = artifacts(run, "model").values()
    copy = tmp_path / "best.ckpt"
    copy.write_bytes(Path(kept["best.ckpt"]).read_bytes())
    assert lightning_priors.load(copy).description["technique"] == "CAMRestriction"
