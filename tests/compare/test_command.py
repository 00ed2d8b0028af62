"""The command's own options: help without torch, and mistakes in one line with exit code 2."""

import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run_cli

PLAN = "runs: {plain: {options: [--model=Pretrained]}}\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("plan.yaml").write_text(PLAN)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "error: compare: the following arguments are required: -c/--config"),
        (["-c"], "error: compare: argument -c/--config: expected one argument"),
        (["-c", "plam.yaml"], "error: there is no file plam.yaml; did you mean 'plan.yaml'?"),
        (["-c", "plan.yaml", "--seed=1"], "error: compare has no option --seed; did you mean '--seeds'?"),
        (["-c", "plan.yaml", "--out", "x"], "error: compare has no option --out; did you mean '--output'?"),
        (
            ["-c", "plan.yaml", "--seeds=1;2"],
            "error: --seeds takes integers between commas, such as 0,1,2; '1;2' is none",
        ),
        (["-c", "bad.yaml"], "error: bad.yaml: unknown key 'run' in the plan; did you mean 'runs'?"),
        (
            ["-c", "typo.yaml"],
            "error: run 'plain': --model: there is no class 'Pretraned'; did you mean 'Pretrained'?",
        ),
    ],
)
def test_mistakes(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text(PLAN.replace("runs", "run"))
    Path("typo.yaml").write_text(PLAN.replace("Pretrained", "Pretraned"))
    assert run_cli("compare", *arguments) == 2
    assert capsys.readouterr().err == f"{line}\n"
    assert not Path("runs").exists()  # nothing has begun


def test_help_needs_no_torch(environment: dict[str, str]) -> None:
    code = (
        "import sys; from lightning_priors.__main__ import main; code = main(['compare', '--help']);"
        "print('torch' in sys.modules, code)"
    )
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "False 0"
    assert "goes on where it was" in run.stdout
    assert "--seeds 0,1,2" in run.stdout
