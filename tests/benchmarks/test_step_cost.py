"""The table of what a step costs: that each variant makes its steps; no test asserts a time."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "step_cost.py"


@pytest.mark.parametrize("group", ["auxiliary", "spatial", "combined"])
def test_every_variant_of_a_group_has_a_line(
    group: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [group, "--backbone", "tiny", "--image-size", "32", "--batch-size", "4", "--steps", "1"]
    monkeypatch.setattr("sys.argv", [str(SCRIPT), *arguments])
    script = runpy.run_path(str(SCRIPT), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()[3:]
    assert [line[:40].strip() for line in lines] == list(script["VARIANTS"][group])
    assert all(float(line.split()[-3]) > 0 for line in lines)


def test_the_steps_between_updates_of_a_generator_are_averaged() -> None:
    script = runpy.run_path(str(SCRIPT))
    seconds = [9.0] * script["FIRST_STEPS"] + [2, 1, 1, 1, 1, 3, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    plain, every_5th = SimpleNamespace(), SimpleNamespace(generator_every=5)
    assert script["milliseconds"](SimpleNamespace(module=plain, seconds=seconds)) == 1000
    assert script["milliseconds"](SimpleNamespace(module=every_5th, seconds=seconds)) == pytest.approx(1200)
