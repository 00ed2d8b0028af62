"""The plans of the experiments: what can be known of them without running them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import REPOSITORY
from config_files import EXPERIMENTS, PLANS, commands, documents, find_class, label

from lightning_priors.compare.plan import read_plan
from lightning_priors.compare.resolve import resolve
from lightning_priors.data.sources import Source

HERE = [path for path in PLANS if path.is_relative_to(EXPERIMENTS)]


def source_of(entry: Mapping[str, Any]) -> Source:
    """The source that a file describes, with the sources in it."""
    options = entry.get("init_args", {})
    built: Source = find_class(entry["class_path"])(
        **{name: source_of(value) if name == "source" else value for name, value in options.items()}
    )
    return built


@pytest.mark.parametrize("path", HERE, ids=label)
def test_every_plan_can_be_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    plan = read_plan(label(path))
    repetitions = plan.splits * len(plan.seeds)
    assert repetitions >= 3
    assert len({task.digest for task in resolve(plan)}) == repetitions * len(plan.runs), "no two runs are the same"
    assert any(label(path) in command for command in commands(path)), "the head says how"


@pytest.mark.parametrize(
    "path", [path for path in HERE if path.parent.name != "experiments" and "cifar100" not in path.name], ids=label
)
def test_the_tasks_to_learn_are_tasks_of_the_data(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-100 knows its classes only where its files are."""
    monkeypatch.chdir(REPOSITORY)
    plan = read_plan(label(path))
    source = source_of(yaml.safe_load((REPOSITORY / plan.shared[0]).read_text())["data"]["source"])
    available = list(source.aux_classes)
    for document in documents(path):
        names = document["model"].get("init_args", {}).get("aux_names", available)
        assert len(names) == len(available)
        assert {*document["model"].get("init_args", {}).get("tasks", [])} <= {*names}


@pytest.mark.parametrize("path", [path for path in HERE if path.parent.name == "findings"], ids=label)
def test_a_finding_is_compared_with_the_single_task(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    plan = read_plan(label(path))
    assert next(iter(plan.runs)) == "single"
    assert len(plan.seeds) >= 5
