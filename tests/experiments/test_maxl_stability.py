"""The table of collapsed generators."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "maxl_stability.py"


def test_an_untrained_generator_collapses_without_balance(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--root", str(shared_data), "--seeds", "1", "--steps", "2", "--variants", "balanced", "no guard"]
    monkeypatch.setattr("sys.argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    balanced, unguarded = (line.split() for line in capsys.readouterr().out.splitlines()[-2:])
    assert balanced[:2] == ["balanced", "0/1"]
    assert unguarded[:3] == ["no", "guard", "1/1"]
    assert float(balanced[-3]) > float(unguarded[-3])
    assert balanced[2] == "1/1", "an untrained generator is silent, however many sub-classes are the greatest of some"
