"""The dashboard as plain values, and its metrics against those that real runs record."""

import json
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
import yaml
from command_line import SMALL, run_cli
from offline_wandb import offline_runs, records, without_account
from wandb_workspaces.workspaces.internal import View

from lightning_priors.cli import wandb_offline
from lightning_priors.dashboard.views import report, serialised, workspace


@pytest.fixture(autouse=True)
def _no_network(tmp_path, monkeypatch):
    """No account, and an error for whoever wants to connect to a host."""
    monkeypatch.chdir(tmp_path)
    without_account(tmp_path, monkeypatch)


@pytest.fixture
def _no_host(monkeypatch):
    def refuse(self, address):
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def found(content: object, key: str) -> list[Any]:
    """All values under a key, at any depth, in their order."""
    if isinstance(content, dict):
        here = [content[key]] if key in content else []
        return here + [value for inner in content.values() for value in found(inner, key)]
    return [value for inner in content for value in found(inner, key)] if isinstance(content, list) else []


def panels(view: dict[str, Any]) -> list[dict[str, Any]]:
    """The panels of a serialised view, without their drawn names and places."""
    inner = [panel for group in found(view, "panels") if isinstance(group, list) for panel in group]
    return [{name: panel[name] for name in ("viewType", "config")} for panel in inner]


def metrics(panel: dict[str, Any]) -> set[str]:
    """What a panel shows, by the names under which it is logged."""
    config = panel["config"]
    keys = [*config.get("metrics", []), *config.get("mediaKeys", []), *found(config, "val")]
    keys += [config[axis].removeprefix("summary:") for axis in ("xAxis", "yAxis") if axis in config]
    return set(keys)


def key(panel: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    return panel["viewType"], tuple(sorted(metrics(panel)))


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """The names under which a comparison of a technique that makes its own labels records something, by job type."""
    place = tmp_path_factory.mktemp("birds")
    plan = {
        "options": [*(option for option in SMALL if "devices" not in option), "--data.source.train_size=32"],
        "runs": {"generated": {"options": ["--model=MAXL"]}},
        "output": "out",
    }
    plan["options"] += ["--trainer.max_epochs=2", "--trainer.logger=WandbLogger", "--trainer.logger.save_dir=runs"]
    # the labels of so short a run say nothing, and two reports in a row would warn of it
    plan["options"] += ["--trainer.callbacks+=LabelReport", "--trainer.callbacks.every_n_epochs=2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        without_account(place, patch)
        Path("birds.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
        assert run_cli("compare", "-c", "birds.yaml") == 0
    names: dict[str, set[str]] = {}
    for run in offline_runs(place):
        items = [entry["item"] for entry in records(run, "history")]
        items += [entry["update"] for entry in records(run, "summary")]
        (record,) = records(run, "run")
        # a picture or a table is recorded by its parts: test/panel._type
        names[record["job_type"]] = {name.split(".")[0] for item in items for name in item}
    return names


def test_every_metric_of_a_panel_is_logged(logged):
    for panel in panels(serialised(workspace("me", "birds", "birds"))):
        missing = metrics(panel) - logged["compare"]
        assert not missing, f"no run logs {missing}"
        assert metrics(panel)


def test_the_summary_is_logged(logged):
    of_runs = {key(panel) for panel in panels(serialised(workspace("me", "birds", "birds")))}
    of_summary = [panel for panel in panels(serialised(report("", "birds", "birds"))) if key(panel) not in of_runs]
    assert {name for panel in of_summary for name in metrics(panel)} == {"summary", "comparison"} & logged["summary"]


def test_workspace_and_report_have_the_same_panels():
    of_workspace = [key(panel) for panel in panels(serialised(workspace("me", "birds", "demo")))]
    of_report = [key(panel) for panel in panels(serialised(report("", "birds", "demo")))]
    assert of_report[2:] == of_workspace
    assert len(set(of_workspace)) == len(of_workspace)
    assert ("Scatter Plot", ("test/epg", "test/worst_group_acc")) in of_workspace
    assert ("Media Browser", ("test/images",)) in of_workspace


@pytest.mark.parametrize(("group", "by"), [("demo", "variant.value"), ("", "model.value.class_path")])
def test_runs_are_those_of_the_comparison(group, by):
    for view in (workspace("me", "birds", group), report("", "birds", group)):
        (*_, runs) = found(serialised(view), "runSets")[-1]
        chosen = [(entry["key"]["name"], entry["op"], entry["value"]) for entry in runs["filters"]["filters"]]
        assert chosen == ([("group", "=", group)] if group else []) + [("jobType", "!=", "summary")]
        assert [entry["name"] for entry in runs["grouping"]] == [by]
        bars = [panel["config"] for panel in panels(serialised(view)) if panel["viewType"] == "Bar Chart"]
        assert {bar["groupBy"] for bar in bars} == {by}


def test_what_is_written_can_be_read_again():
    content = serialised(workspace("me", "birds", "demo"))
    again = View.model_validate(content).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert again == content


@pytest.mark.usefixtures("_no_host")
def test_the_command_writes_both_without_a_network(capsys):
    assert run_cli("dashboard", "--entity=me", "--project=birds", "--group=demo", "--out=views.json") == 0
    assert capsys.readouterr().out == "views.json\n"
    content = json.loads(Path("views.json").read_text())
    assert content["workspace"]["entity"] == "me"
    assert content["report"]["project"] == {"name": "birds", "entityName": "me"}
    assert list(map(key, panels(content["workspace"]))) == list(map(key, panels(content["report"])))[2:]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "W&B: no API key for 127.0.0.1 (`wandb login` stores one); --out FILE writes the dashboard instead of"),
        (["--out=nowhere/views.json"], "cannot write nowhere/views.json: No such file or directory"),
        (["--grup=demo"], "dashboard has no option --grup; did you mean '--group'?"),
    ],
)
def test_mistakes_are_one_line(arguments, line, capsys):
    assert run_cli("dashboard", *arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {line}")
    assert said.count("\n") == 1


class Account:
    """What the server would say of the user."""

    default_entity = "me"


def test_both_are_sent_and_their_places_said(monkeypatch, capsys):
    """Without a server: all but the sending itself."""
    sent = []

    def save(view):
        sent.append(view)
        return SimpleNamespace(url=f"https://wandb.example/{type(view).__name__}")

    monkeypatch.setattr(wandb_offline, "reason_to_be_offline", lambda url: "")
    monkeypatch.setattr(wandb, "Api", Account)
    for kind in (ws.Workspace, wr.Report):
        monkeypatch.setattr(kind, "save", save)
    assert run_cli("dashboard", "--project=birds", "--group=demo") == 0
    assert capsys.readouterr().out == "https://wandb.example/Workspace\nhttps://wandb.example/Report\n"
    sets = [runs for block in sent[1].blocks if isinstance(block, wr.PanelGrid) for runs in block.runsets]
    assert {(view.entity, view.project) for view in (*sent, *sets)} == {("me", "birds")}


@pytest.mark.parametrize("error", [wandb.errors.CommError("no such\nentity"), ValueError("no such\nentity")])
def test_a_refusal_of_the_server_is_one_line(error, monkeypatch, capsys):
    def save(view):
        raise error

    monkeypatch.setattr(wandb_offline, "reason_to_be_offline", lambda url: "")
    monkeypatch.setattr(ws.Workspace, "save", save)
    assert run_cli("dashboard", "--entity=me") == 2
    assert capsys.readouterr().err == "error: W&B: no such entity\n"


def test_the_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert run_cli("dashboard", "--out=views.json") == 2
    assert "pip install 'lightning-priors[dashboard]'" in capsys.readouterr().err
