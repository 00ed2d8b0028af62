"""The table of what predict costs: that both sides are timed and the memory is read; no test asserts a time."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "predict_speed.py"


@pytest.mark.slow
def test_both_sides_and_the_memory_are_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--backbone", "resnet18", "--image-size", "32", "--files", "40", "--rounds", "1", "--memory", "8"]
    monkeypatch.setattr("sys.argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert lines[0][0] == "resnet18"
    assert all(float(value) > 0 for value in lines[0][1:])
    assert lines[1][:2] == ["8", "files:"]
    assert float(lines[1][2]) > 50
