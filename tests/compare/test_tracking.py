"""A comparison under W&B: its offline runs, read back."""

import csv
import json
from pathlib import Path

import pytest
import yaml
from command_line import SMALL, run_cli
from offline_wandb import artifacts, offline_runs, recorded, records, without_account

from lightning_priors.callbacks.prediction_table import COLUMNS

WANDB = ("--trainer.logger=WandbLogger", "--trainer.logger.project=birds", "--trainer.logger.save_dir=runs")


def write_plan(**options):
    plan = {
        "options": [*(option for option in SMALL if "devices" not in option), "--trainer.max_epochs=2", *WANDB],
        "runs": {"plain": {"options": ["--model=Pretrained"]}, "told": {"options": ["--model=CAMRestriction"]}},
        "output": "out",
    }
    Path("birds.yaml").write_text(yaml.safe_dump(plan | options, sort_keys=False))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The working folder of a comparison of two configs with one seed."""
    place = tmp_path_factory.mktemp("comparison")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        without_account(place, patch)
        write_plan()
        assert run_cli("compare", "-c", "birds.yaml") == 0
    return place


@pytest.fixture(scope="module")
def runs(folder):
    """The folders of the records by the names of the runs."""
    return {records(run, "run")[0]["display_name"]: run for run in offline_runs(folder / "runs" / "wandb")}


def table(run: Path, key: str) -> tuple[list[str], list[list]]:
    """The columns and rows of a table of a run, pictures as records of where they are."""
    (path,) = {
        local
        for files in artifacts(run, "run_table").values()
        for name, local in files.items()
        if name == f"{key}.table.json"
    }
    content = json.loads(Path(path).read_text())
    return content["columns"], content["data"]


@pytest.fixture(scope="module")
def rows(folder):
    with (folder / "out" / "runs.csv").open() as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def test_runs_and_summary_are_one_group(runs):
    assert list(runs) == ["plain/0/0", "told/0/0", "birds summary"]
    found = {name: records(run, "run")[0] for name, run in runs.items()}
    assert {record["run_group"] for record in found.values()} == {"birds"}
    assert {record["project"] for record in found.values()} == {"birds"}
    assert [record["job_type"] for record in found.values()] == ["compare", "compare", "summary"]
    assert found["told/0/0"]["tags"] == ["CAMRestriction", "Restriction"]


@pytest.mark.parametrize("name", ["plain", "told"])
def test_a_run_has_the_numbers_of_its_row(runs, rows, name):
    record = recorded(runs[f"{name}/0/0"])
    assert (record["config"]["variant"], record["config"]["split"]) == (name, 0)
    for column in ("test/acc", "test/worst_group_acc", "test/epg", "fit_seconds", "parameters", "best_epoch"):
        assert record["summary"][column] == pytest.approx(float(rows[name][column]), rel=1e-5)
    assert record["summary"]["val/acc"] == {"max": pytest.approx(float(rows[name]["val/acc"]))}


def test_predictions_are_of_the_same_pictures(runs):
    tables = [table(runs[f"{name}/0/0"], "test/predictions") for name in ("plain", "told")]
    by_name = [{column: [row[i] for row in data] for i, column in enumerate(columns)} for columns, data in tables]
    plain, told = by_name
    assert list(plain) == list(COLUMNS)
    assert len(plain["index"]) == 8  # all that there are
    assert plain["index"] == told["index"]
    assert [picture["sha256"] for picture in plain["picture"]] == [picture["sha256"] for picture in told["picture"]]
    assert plain["evidence"] != told["evidence"]


def test_predictions_are_those_of_the_selected_checkpoint(runs, rows):
    for name, row in rows.items():
        columns, data = table(runs[f"{name}/0/0"], "test/predictions")
        right = [cells[columns.index("right")] for cells in data]
        assert sum(right) / len(right) == pytest.approx(float(row["test/acc"]))


def test_the_summary_has_both_tables(runs, rows, folder):
    summary = runs["birds summary"]
    columns, data = table(summary, "runs")
    assert columns[:3] == ["run", "split", "seed"]
    assert [row[columns.index("test/epg")] for row in data] == [float(row["test/epg"]) for row in rows.values()]
    columns, data = table(summary, "summary")
    with (folder / "out" / "summary.csv").open() as file:
        means = {(row["run"], row["column"]): row["mean"] for row in csv.DictReader(file)}
    assert {(row[0], row[1]) for row in data} == means.keys()
    assert dict(zip(columns, data[0], strict=True))["mean"] == float(means["plain", data[0][1]])
    assert recorded(summary)["summary"]["comparison"]["_type"] == "image-file"


def test_no_checkpoint_is_kept_unless_asked_for(runs):
    assert not artifacts(runs["plain/0/0"], "model")


@pytest.mark.slow
def test_checkpoints_and_a_group_of_ones_own_side_by_side(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    without_account(tmp_path, monkeypatch)
    write_plan(runs={"plain": {"options": ["--model=Pretrained"]}})
    own = ("--trainer.logger.log_model=true", "--trainer.logger.group=mine")
    assert run_cli("compare", "-c", "birds.yaml", "--jobs", "2", "--", "--trainer.max_epochs=1", *own) == 0
    found = offline_runs(tmp_path)
    assert {records(run, "run")[0]["run_group"] for run in found} == {"mine"}
    kept = [files for run in found for files in artifacts(run, "model").values()]
    assert [set(files) for files in kept] == [{"best.ckpt", "README.md"}]
    said = capfd.readouterr().out
    assert said.count("W&B: ") == 2
    assert "send them with: wandb sync runs/wandb/offline-run-*" in said
