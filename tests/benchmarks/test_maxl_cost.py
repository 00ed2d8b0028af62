"""The table of what MAXL costs: what its lines mean, and that what it measures is measured; no test asserts a time."""

import importlib
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    return importlib.import_module("maxl_cost")


def options(cost: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str):
    small = ["--backbone", "tiny", "--batch-sizes", "4", "--threads", "1", "--device", "cpu", "--rounds", "10"]
    monkeypatch.setattr(sys, "argv", ["maxl_cost.py", *small, *arguments])
    return cost.parse()


def test_every_variant_takes_its_turns(cost, monkeypatch, capsys):
    """One of each kind; the others differ from them in an option."""
    names = ["human labels, two heads", "published, unrolled", "own generator, every step, halves"]
    options(cost, monkeypatch, "--variants", *names)
    cost.main()
    lines = capsys.readouterr().out.splitlines()[3:]
    assert [line[:44].strip() for line in lines] == ["single task", *names]
    assert all(float(line.split()[-2]) > 0 for line in lines)


def test_rows_are_kept_beside_those_of_other_variants(cost, monkeypatch, capsys, tmp_path):
    path = tmp_path / "cost.json"
    other = {"unit": "megabytes", "batch": 4, "variant": "single task", "value": 1.0, "ratio": 1.0}
    path.write_text(json.dumps([other, {**other, "unit": "milliseconds"}]))
    options(cost, monkeypatch, "--variants", "published, MixFlow-MG", "--json", str(path))
    cost.main()
    rows = json.loads(path.read_text())
    assert rows[0] == other
    assert [row["variant"] for row in rows[1:]] == ["single task", "published, MixFlow-MG"]
    assert rows[1]["value"] != 1
    assert rows[2]["ratio"] == pytest.approx(rows[2]["value"] / rows[1]["value"], rel=0.05)


def test_the_networks_are_trained_by_the_optimiser_that_is_asked_for(cost, monkeypatch):
    asked = []
    monkeypatch.setitem(cost.OPTIMIZERS, "adamw", lambda given: asked.append(1) or torch.optim.AdamW(given))
    options(cost, monkeypatch, "--optimizer", "adamw", "--variants", "feature head, every step")
    cost.main()
    assert len(asked) == 2, "that of the plain network and that of the variant"


def test_a_variant_that_fails_is_named(cost, monkeypatch):
    monkeypatch.setitem(cost.VARIANTS, "wrong", partial(cost.MAXL, generator_every=0))
    contestant = cost.Contestant("wrong", options(cost, monkeypatch), 4)
    with pytest.raises(RuntimeError, match="wrong failed"):
        contestant.step()


def test_cycles_are_averaged_before_the_median(cost):
    one, every = object.__new__(cost.Contestant), object.__new__(cost.Contestant)
    one.name, every.name = "single task", "feature head, every 10th"
    others = [1] * 9
    one.seconds = every.seconds = [9.0] * cost.FIRST_STEPS + [11, *others, 12, *others, 11, *others]
    assert one.milliseconds() == 1000
    assert every.milliseconds() == pytest.approx(2000)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_the_peak_is_that_of_what_was_held_in_between():
    """In a fresh process: an older one may have freed as much before and still hold it."""
    code = """
import sys, torch
sys.path.insert(0, "benchmarks")
from maxl_cost import Resident
memory = Resident("cpu")
memory.restart()
before = memory.now()
held = torch.ones(64, 2**18)  # 64 MiB
during = memory.peak() - before
del held
memory.restart()
print(during, memory.peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    during, after = map(int, done.stdout.split())
    assert during > 60 * 2**20
    assert after < 10 * 2**20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_memory_is_measured_in_a_process_of_its_own(cost, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    options(cost, monkeypatch, "--memory", "--variants", "published, unrolled", "--batch-sizes", "32")
    cost.main()
    lines = capsys.readouterr().out.splitlines()[3:]
    single, published = (float(line.split()[-4]) for line in lines)
    assert published > 1.3 * single > 0
