"""The sentences about the findings, and the runs that they are drawn from."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from lightning_priors.compare.plan import read_plan
from lightning_priors.compare.report import summarise
from lightning_priors.compare.rows import Row

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def findings() -> ModuleType:
    specification = importlib.util.spec_from_file_location("findings", REPOSITORY / "experiments" / "findings.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def study(findings: ModuleType, seeds: int = 5, **gains: float):
    """Configs that are better than the single task by a gain, give or take a little that depends on the seed."""
    rows = [
        Row(run, seed, {"test/acc": 0.8 + 0.01 * seed + gain + 0.002 * ((seed + number) % 3 - 1) * (number > 0)})
        for number, (run, gain) in enumerate({"single": 0.0, **gains}.items())
        for seed in range(seeds)
    ]
    return findings.Study("a study", rows, summarise(rows, ["single", *gains]))


def test_the_first_finding_holds_where_finer_labels_alone_help(findings: ModuleType) -> None:
    (said,) = findings.sentences(study(findings, coarser=0.0, equal=-0.01, finer=0.02, random_finer=0.0), "test/acc")
    assert said.startswith("a study, test/acc: finding 1 holds: finer +2.0 [+1.8, +2.")
    assert said.endswith("do not.")
    assert "equal -1.0" in said


@pytest.mark.parametrize(
    "gains", [{"finer": 0.0}, {"finer": 0.02, "equal": 0.02}, {"finer": 0.02, "random_finer": 0.01}]
)
def test_the_first_finding_fails_otherwise(findings: ModuleType, gains: dict[str, float]) -> None:
    known = {"coarser": 0.0, "equal": 0.0, "finer": 0.0, "random_finer": 0.0} | gains
    (said,) = findings.sentences(study(findings, **known), "test/acc")
    assert "finding 1 does not hold" in said


def test_the_second_finding_holds_where_the_finest_task_says_it_all(findings: ModuleType) -> None:
    (said,) = findings.sentences(study(findings, finer=0.02, **{"coarser+finer": 0.02}, all=0.02), "test/acc")
    assert "finding 2 holds: finer +2.0" in said
    for gains in ({"finer": 0.02, "all": 0.03}, {"finer": 0.02, "all": 0.01}, {"finer": 0.0, "all": 0.0}):
        (said,) = findings.sentences(study(findings, **gains), "test/acc")
        assert "finding 2 does not hold" in said


def test_the_target_taken_out_is_compared_with_the_target_kept(findings: ModuleType) -> None:
    (said,) = findings.sentences(study(findings, kept=0.01, excluded=0.03), "test/acc")
    assert "kept +1.0" in said
    assert "excluded minus kept +2.0" in said


def test_two_seeds_tell_nothing(findings: ModuleType) -> None:
    (said,) = findings.sentences(
        study(findings, seeds=2, coarser=0.0, equal=0.0, finer=0.02, random_finer=0.0), "test/acc"
    )
    assert "finding 1 cannot be told: 2 pairs: no interval" in said


def test_the_picture_has_a_panel_for_each_study_and_metric_and_a_line_for_each_config(findings: ModuleType) -> None:
    one = study(findings, finer=0.02, equal=-0.02)
    figure = findings.draw([one, one], ["test/acc"])
    assert len(figure.axes) == 2
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["finer", "equal"]
    colours = [line.get_color() for line in axes.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 2]
    assert colours[:2] == ["tab:green", "tab:red"]


def test_the_values_of_all_runs_are_written(findings: ModuleType, tmp_path: Path) -> None:
    findings.report([study(findings, finer=0.02, all=0.02)], tmp_path)
    rows = json.loads((tmp_path / "findings.json").read_text())
    assert rows[0] == {"study": "a study", "run": "single", "seed": 0, "test/acc": 0.8}
    assert len(rows) == 3 * 5
    assert "finding 2 holds" in (tmp_path / "findings.md").read_text()
    assert (tmp_path / "findings.png").is_file()


def test_where_no_run_ends_each_is_named(
    findings: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(findings, "compare", lambda tasks, output: ([], {task.name: "wrong" for task in tasks}))
    given = ["experiments/findings/target_glyphs.yaml", "--seeds", "3", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["findings.py", *given])
    assert findings.main() == 1
    assert "failed: target_glyphs, single, seed 3: wrong" in capsys.readouterr().out


def test_each_seed_draws_its_own_training_images(findings: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    plan = read_plan("experiments/findings/target_kakapo.yaml")
    tasks = findings.tasks_of(replace(plan, seeds=(0, 3), runs={"single": plan.runs["single"]}))
    for task in tasks:
        assert f"--data.seed={task.seed}" in task.arguments
        assert f"--seed_everything={task.seed}" in task.arguments
    assert {task.seed for task in tasks} == {0, 3}
