"""The table of what a step costs."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "step_cost.py"


@pytest.mark.parametrize("group", ["auxiliary", "spatial"])
def test_every_variant_steps_and_is_compared_with_the_plain_one(
    group: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [group, "--backbone", "tiny", "--image-size", "32", "--batch-size", "4", "--steps", "1"]
    monkeypatch.setattr("sys.argv", [str(SCRIPT), *arguments])
    script = runpy.run_path(str(SCRIPT), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    ratios = {line[:40].strip(): float(line.split()[-2]) for line in lines[3:]}
    assert list(ratios) == list(script["VARIANTS"][group])
    assert ratios["plain"] == 1
