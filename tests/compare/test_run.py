"""Whole comparisons on a few small drawn birds: their rows, their repetition, and what interrupts them."""

import csv
import json
import logging
import math
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from command_line import SMALL, console, finish, run_cli, start

from lightning_priors.compare import main
from lightning_priors.compare.jobs import process_context
from lightning_priors.compare.rows import Row, read_rows
from lightning_priors.compare.run import error_line
from lightning_priors.errors import PriorError

TECHNIQUE = '''
"""A technique that breaks down, or waits for a file, when it is asked to."""

import time
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_priors.batch import PriorBatch
from lightning_priors.errors import PriorError
from lightning_priors.techniques import PriorModule, PriorStep


class Troubled(PriorModule):
    """Classifies by colour alone."""

    def __init__(self, num_classes: int = 2, trouble: str = "none", lr: float = 0.1) -> None:
        super().__init__(num_classes=num_classes, lr=lr)
        self.save_hyperparameters()
        self.trouble = trouble
        self.head = nn.Conv2d(3, num_classes, 1)

    def explain(self, image: Tensor) -> tuple[Tensor, Tensor]:
        cam = self.head(F.avg_pool2d(image, 8))
        return cam.mean((2, 3)), cam

    def step(self, batch: PriorBatch) -> PriorStep:
        if self.trouble == "mistake":
            raise PriorError("row 3: bird.png is broken")
        if self.trouble == "defect":
            raise RuntimeError("a defect of the program\\nwith a second line")
        if self.trouble == "wait":
            Path("waiting").touch()
            while not Path("go").exists():
                time.sleep(0.05)
        logits, _ = self.explain(batch["image"])
        return PriorStep(F.cross_entropy(logits, batch["label"]), logits, {})
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test works in a folder of its own, where the technique above can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "troubled", raising=False)
    Path("troubled.py").write_text(TECHNIQUE)
    return tmp_path


def write_plan(seeds: tuple[int, ...] = (0,), epochs: int = 1, **runs: tuple[str, ...]) -> None:
    plan = {
        "options": [*(option for option in SMALL if "devices" not in option), f"--trainer.max_epochs={epochs}"],
        "runs": {name: {"options": list(options)} for name, options in runs.items()},
        "seeds": list(seeds),
        "output": "out",
    }
    Path("plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))


def rows() -> dict[tuple[str, int], Row]:
    return {(row.run, row.seed): row for row in read_rows(Path("out/runs.csv"))}


def metrics(row: Row, column: str) -> list[float]:
    with Path(row.folder, "metrics.csv").open() as file:
        return [float(line[column]) for line in csv.DictReader(file) if line.get(column)]


def troubled(trouble: str) -> tuple[str, ...]:
    return ("--model=troubled.Troubled", f"--model.trouble={trouble}", "--trainer.callbacks=[]")


@pytest.mark.slow
def test_a_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    write_plan(seeds=(0, 1), epochs=3, plain=("--model=Pretrained",), told=("--model=CAMRestriction",))
    handlers = logging.getLogger("lightning.pytorch").handlers[:]
    assert main(["-c", "plan.yaml"]) == 0
    found = rows()
    assert list(found) == [("plain", 0), ("told", 0), ("plain", 1), ("told", 1)]
    for row in found.values():
        validation = metrics(row, "val/acc")
        assert row.values["val/acc"] == pytest.approx(max(validation))
        assert row.values["best_epoch"] == validation.index(max(validation))
        assert torch.load(row.checkpoint, weights_only=True)["epoch"] == row.values["best_epoch"]
        assert row.values["parameters"] == found["plain", 0].values["parameters"] > 0
        # three epochs of two batches have one interval each: the first three are left out
        assert math.isnan(row.values["seconds_per_step"])
        assert row.values["fit_seconds"] > 0
        assert {"test/acc", "test/worst_group_acc", "test/epg", "test/loss"} <= row.values.keys()
        assert metrics(row, "test/epg") == [pytest.approx(row.values["test/epg"])]
    assert found["plain", 0].values["test/loss"] != found["plain", 1].values["test/loss"]
    assert found["plain", 0].values["test/loss"] != found["told", 0].values["test/loss"]
    assert logging.getLogger("lightning.pytorch").handlers == handlers

    shown = capsys.readouterr().out
    assert "[4/4] told, seed 1: val/acc" in shown
    assert "minus plain" in shown
    assert "out/summary.md" in shown
    assert shown.rstrip().endswith("out/report.html")
    the_report_is_of_these_runs(found)
    assert "Seed set to" not in shown
    assert "Seed set to 1" in Path(found["told", 1].folder).with_suffix(".log").read_text()
    assert "| told | 2 |" in Path("out/summary.md").read_text()
    assert Path("out/summary.csv").read_text().startswith("run,column,runs,mean")

    one_run_alone_gives_the_same(found["told", 1])
    only_what_has_changed_is_repeated(found, capsys)


def the_report_is_of_these_runs(found: dict[tuple[str, int], Row]) -> None:
    """And what an earlier version has not measured is measured from the checkpoints."""
    report = json.loads(Path("out/report.json").read_text())
    for config in report["configs"]:
        assert [run["seed"] for run in config["runs"]] == [0, 1]
        for run in config["runs"]:
            measured = found[config["name"], run["seed"]].values
            assert run["values"]["test/acc"] == measured["test/acc"]
            assert measured["test/background_gap"] == pytest.approx(
                json.loads(Path(found[config["name"], run["seed"]].folder, "details.json").read_text())["test"][
                    "accuracy"
                ]
                - measured["test/acc_exchanged"]
            )
        assert sum(sum(line["answers"]) for line in config["confusion"]) == 2 * 8
    assert {config["name"]: config["needs"] for config in report["configs"]} == {
        "plain": [],
        "told": ["masks or boxes"],
    }
    page = Path("out/report.html").read_text()
    assert page.count('alt="evidence of told"') == 6
    row = found["told", 1]
    kept = Path(row.folder, "details.json").read_text()
    Path(row.folder, "details.json").unlink()
    assert main(["-c", "plan.yaml"]) == 0
    assert Path(row.folder, "details.json").read_text() == kept
    assert rows()["told", 1].values == row.values


def one_run_alone_gives_the_same(row: Row) -> None:
    """A row can be had again with the ordinary command."""
    assert run_cli("fit", "-c", f"{row.folder}/config.yaml", "--trainer.default_root_dir=alone") == 0
    best = next(Path("alone").rglob("best.ckpt"))
    first, again = (torch.load(path, weights_only=True)["state_dict"] for path in (row.checkpoint, best))
    assert all(torch.equal(first[name], again[name]) for name in first)


def only_what_has_changed_is_repeated(before: dict[tuple[str, int], Row], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    table = Path("out/runs.csv").read_bytes()
    assert main(["-c", "plan.yaml"]) == 0
    assert "4 runs into out, 4 finished before" in capsys.readouterr().out
    assert Path("out/runs.csv").read_bytes() == table

    write_plan(
        seeds=(1, 2), epochs=3, plain=("--model=Pretrained",), told=("--model=CAMRestriction", "--model.weight=2")
    )
    assert main(["-c", "plan.yaml"]) == 0
    assert "4 runs into out, 1 finished before" in capsys.readouterr().out
    after = rows()
    assert after["plain", 1] == before["plain", 1]
    assert after["told", 1].digest != before["told", 1].digest
    assert after["told", 0] == before["told", 0]  # not of this plan any more, and kept
    assert "| told | 2 |" in Path("out/summary.md").read_text()  # and not in its summary


def test_options_of_the_command_replace_those_of_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    write_plan(seeds=(0, 1), plain=troubled("none"))
    assert main(["-c", "plan.yaml", "--seeds=5", "--output=elsewhere"]) == 0
    assert [(row.run, row.seed) for row in read_rows(Path("elsewhere/runs.csv"))] == [("plain", 5)]
    assert not Path("out").exists()


@pytest.mark.slow
def test_a_failed_run_does_not_lose_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    good, mistake, defect = troubled("none"), troubled("mistake"), troubled("defect")
    write_plan(plain=good, mistaken=mistake, defective=defect, last=good)
    assert main(["-c", "plan.yaml"]) == 1
    assert list(rows()) == [("plain", 0), ("last", 0)]
    shown = capsys.readouterr()
    assert "[2/4] mistaken, seed 0: failed: row 3: bird.png is broken, 0:0" in shown.out
    assert shown.err.splitlines() == [
        "failed: mistaken, seed 0: row 3: bird.png is broken",
        "failed: defective, seed 0: RuntimeError: a defect of the program",
    ]
    log = next(Path("out/defective").glob("*.log")).read_text()
    assert log.rstrip().endswith("RuntimeError: a defect of the program\nwith a second line")
    assert "mistaken   0" in shown.out

    write_plan(plain=good, mistaken=good, defective=good, last=good)
    assert main(["-c", "plan.yaml"]) == 0
    assert "4 runs into out, 2 finished before" in capsys.readouterr().out
    assert list(rows()) == [("plain", 0), ("last", 0), ("mistaken", 0), ("defective", 0)]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--trainer.devices=2", "a comparison runs on one device"),
        ("--trainer.check_val_every_n_epoch=2", "no checkpoint was selected"),
    ],
)
def test_a_run_that_cannot_be_compared(option: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_plan(plain=(*troubled("none"), option))
    assert main(["-c", "plan.yaml"]) == 1
    assert message in capsys.readouterr().err
    assert rows() == {}


def wait_for(path: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not Path(path).exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_comparison_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    write_plan(quick=troubled("none"), waiting=troubled("wait"))
    process = start("compare", "-c", "plan.yaml")
    wait_for("waiting")
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finish(process)
    before = rows()
    assert list(before) == [("quick", 0)]
    written = Path(before["quick", 0].checkpoint).stat().st_mtime_ns
    partial = next(Path("out/waiting").glob("split_0-seed_0-*/"))
    (partial / "left over").touch()

    Path("go").touch()
    assert main(["-c", "plan.yaml"]) == 0
    assert "2 runs into out, 1 finished before" in capsys.readouterr().out
    after = rows()
    assert list(after) == [("quick", 0), ("waiting", 0)]
    assert after["quick", 0] == before["quick", 0]
    assert Path(before["quick", 0].checkpoint).stat().st_mtime_ns == written
    assert after["waiting", 0].folder == str(partial)
    assert not (partial / "left over").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_an_interrupted_comparison_keeps_what_is_finished(sent: signal.Signals, code: int, word: str) -> None:
    write_plan(quick=troubled("none"), waiting=troubled("wait"))
    process = start("compare", "-c", "plan.yaml")
    wait_for("waiting")
    process.send_signal(sent)
    Path("go").touch()  # a termination is answered at the end of a step
    out, err = finish(process, timeout=120)
    assert process.returncode == code, err
    assert err.endswith(f"{word}\n")
    assert "Traceback" not in err
    assert list(rows()) == [("quick", 0)]
    assert "[2/2] waiting, seed 0: interrupted" in out
    assert "the finished runs are kept in out/runs.csv; the same command does the others" in out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
def test_what_other_monitors_select_is_tested_from_their_own_checkpoints() -> None:
    """The figures are those of the epoch in which that monitor was highest, by testing each epoch's weights."""
    write_plan(epochs=4, plain=("--model=Pretrained", "--model.lr=0.01", "--data.source.val_size=24"))
    assert main(["-c", "plan.yaml"]) == 0
    (row,) = rows().values()
    for column in ("test/acc", "test/loss"):
        assert row.values[f"{column}@val/acc"] == row.values[column]
    every = "every"
    options = ("--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_top_k=-1",
               "--trainer.callbacks.filename={epoch}", f"--trainer.callbacks.dirpath={every}")  # fmt: skip
    assert run_cli("fit", "-c", f"{row.folder}/config.yaml", "--trainer.default_root_dir=alone", *options) == 0
    highest = metrics(row, "val/worst_class_acc")
    epoch = highest.index(max(highest))
    checkpoint = f"--ckpt_path={every}/epoch={epoch}.ckpt"
    assert run_cli("test", "-c", f"{row.folder}/config.yaml", "--trainer.default_root_dir=tested", checkpoint) == 0
    with next(Path("tested").rglob("metrics.csv")).open() as file:
        (tested,) = csv.DictReader(file)
    for column in ("test/acc", "test/loss", "test/worst_class_acc"):
        assert row.values[f"{column}@val/worst_class_acc"] == pytest.approx(float(tested[column]))
    assert {path.name for path in Path(row.folder).rglob("*.ckpt")} == {"best.ckpt", "last.ckpt"}
    assert "| val/worst_class_acc |" in Path("out/summary.md").read_text()


# ---- splits, several runs side by side, and a limited time


def split_plan(**runs: tuple[str, ...]) -> None:
    write_plan(**runs)
    plan = yaml.safe_load(Path("plan.yaml").read_text())
    Path("plan.yaml").write_text(yaml.safe_dump({**plan, "splits": 2}, sort_keys=False))


def table() -> dict[tuple[str, int, int], dict[str, float]]:
    """The figures that do not depend on the time that it took."""
    kept = ("test/acc", "test/loss", "test/auroc", "val/acc", "best_epoch")
    return {(row.run, row.split, row.seed): {name: row.values[name] for name in kept}
            for row in read_rows(Path("out/runs.csv"))}  # fmt: skip


def said_of_slower() -> list[str]:
    lines = Path("out/summary.md").read_text().splitlines()
    return [line for line in lines if line.startswith("- slower: test/acc")]


@pytest.mark.slow
def test_side_by_side_killed_and_repeated_gives_what_one_after_the_other_gives(
    capsys: pytest.CaptureFixture[str],
) -> None:
    split_plan(plain=troubled("none"), slower=(*troubled("none"), "--model.lr=0.01"))
    assert main(["-c", "plan.yaml"]) == 0
    expected = table()
    assert len(expected) == 4
    assert len({values["test/loss"] for values in expected.values()}) == 4, "splits differ"
    summary = [
        line for line in Path("out/summary.md").read_text().splitlines() if line.startswith("- slower: test/acc")
    ]
    Path("out").rename("first")

    process = start("compare", "-c", "plan.yaml", "--jobs", "2")
    wait_for("out/runs.csv", 200)
    os.kill(process.pid, signal.SIGKILL)
    finish(process)
    before = len(read_rows(Path("out/runs.csv")))
    assert 1 <= before < 4
    Path("torchmetrics.py").write_text("raise RuntimeError('the wrong module')\n")  # an installed package comes first
    again = console("compare", "-c", "plan.yaml", "--jobs", "2")
    assert again.returncode == 0, again.stderr
    assert f"4 runs into out, {before} finished before" in again.stdout
    assert table() == expected
    assert said_of_slower() == summary


def test_where_processes_cannot_be_forked_each_job_is_a_new_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert process_context().get_start_method() == "spawn"


@pytest.mark.slow
def test_some_runs_alone_for_a_limited_time(capsys: pytest.CaptureFixture[str]) -> None:
    write_plan(plain=troubled("none"), other=troubled("none"), last=troubled("mistake"))
    assert main(["-c", "plan.yaml", "--minutes", "0"]) == 0
    assert "the time is up: 3 runs are left; the same command does them" in capsys.readouterr().out
    assert main(["-c", "plan.yaml", "--only", "other"]) == 0
    assert list(rows()) == [("other", 0)]
    assert main(["-c", "plan.yaml", "--only", "plain", "--only", "last", "--jobs", "2"]) == 1
    shown = capsys.readouterr()
    assert list(rows()) == [("other", 0), ("plain", 0)]
    assert "failed: last, seed 0: row 3: bird.png is broken" in shown.err
    with pytest.raises(PriorError, match="--only: the plan has no run 'plan'; did you mean 'plain'"):
        main(["-c", "plan.yaml", "--only", "plan"])
    with pytest.raises(PriorError, match="'--jobs' must be a whole number from 1, not 0"):
        main(["-c", "plan.yaml", "--jobs", "0"])


def test_options_after_two_dashes_win(capsys: pytest.CaptureFixture[str]) -> None:
    write_plan(plain=troubled("none"))
    assert main(["-c", "plan.yaml", "--", "--trainer.max_epochs=2"]) == 0
    (row,) = rows().values()
    assert len(metrics(row, "val/acc")) == 2
    with pytest.raises(PriorError, match="an option is written --name=value, not 'x'"):
        main(["-c", "plan.yaml", "--", "x"])


def test_the_line_that_names_a_failure() -> None:
    wrapped = ValueError("the parser's words\nin two lines")
    wrapped.__cause__ = PriorError("there is no folder birds")
    assert error_line(wrapped) == "there is no folder birds"
    assert error_line(RuntimeError()) == "RuntimeError: "
    assert error_line(PriorError("Caught PriorError in worker 0.\nTraceback\nx.PriorError: a.png is broken\n")) == (
        "a.png is broken"
    )
