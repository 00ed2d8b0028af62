"""The sweep of wrong masks: its runs, its measure of masks, and that the table is what the numbers say."""

import importlib.util
import json
from types import ModuleType

import pytest
from command_line import REPOSITORY

from lightning_priors.compare.plan import read_plan
from lightning_priors.compare.rows import Row
from lightning_priors.data.sources import Kakapo

RESULTS = REPOSITORY / "docs" / "results"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("mask_noise", REPOSITORY / "experiments" / "mask_noise.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_each_seed_is_run_without_masks_and_with_each_of_them(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    plan = read_plan("experiments/mask_noise.yaml")
    tasks = script.tasks_of(plan)
    names = ["plain", *(name for name, _, _ in script.levels())]
    assert [(task.seed, task.run) for task in tasks] == [(seed, name) for seed in plan.seeds for name in names]
    assert len({task.digest for task in tasks}) == len(tasks)


def test_true_masks_agree_with_themselves_and_wider_ones_less(script: ModuleType) -> None:
    source = Kakapo(train_size=12, val_size=2, test_size=2, size=48)
    agreement = [script.mean_iou(source, "dilated", amount) for amount in (0.0, 0.25, 1.0)]
    assert agreement[0] == 1.0
    assert 1 > agreement[1] > agreement[2] > 0


def test_rows_of_all_seeds_are_put_together(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    plan = read_plan("experiments/mask_noise.yaml")
    rows = [Row("plain", seed, dict.fromkeys(script.METRICS, seed / 10)) for seed in (1, 0)]
    source = Kakapo(train_size=4, val_size=2, test_size=2, size=32)
    (level,) = script.collect(plan, rows, source)
    assert (level.name, level.kind, level.iou) == ("plain", "", None)
    assert level.values["test/acc"] == [0.0, 0.1]


def test_the_committed_table_says_what_the_committed_numbers_are(script: ModuleType) -> None:
    levels = [script.Level(**entry) for entry in json.loads((RESULTS / "mask_noise.json").read_text())]
    assert [level.name for level in levels] == ["plain", *(name for name, _, _ in script.levels())]
    assert script.table(levels) in (RESULTS / "mask_noise.md").read_text()


def test_a_picture_is_drawn_of_the_committed_numbers(script: ModuleType) -> None:
    levels = [script.Level(**entry) for entry in json.loads((RESULTS / "mask_noise.json").read_text())]
    panels = script.draw(levels).axes
    assert [panel.get_title() for panel in panels] == list(script.METRICS.values())
    assert len(panels[0].lines) == 1 + len(script.NOISE)
