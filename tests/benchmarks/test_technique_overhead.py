"""The table of what the Trainer costs: that both sides are timed, over as many steps; no test asserts a time."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "technique_overhead.py"


def test_both_sides_are_timed_in_both_layouts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--backbone", "tiny", "--image-size", "32", "--batch-size", "4", "--steps", "2"]
    monkeypatch.setattr("sys.argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [line[:3] for line in lines] == [["tiny", "channels", "first"], ["tiny", "channels", "last"]]
    assert all(float(value) > 0 for line in lines for value in line[3:])
