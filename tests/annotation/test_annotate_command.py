"""The command, as a user gives it."""

import csv
import json
from pathlib import Path

import pytest
from command_line import console, run_cli
from outlines import MODULE, save_birds

from lightning_priors.errors import PriorError

QUIET = ("--data.image_size=32", "--data.batch_size=4")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a user's module and pictures, of which half have masks."""
    monkeypatch.chdir(tmp_path)
    save_birds(tmp_path / "birds", masks=4)
    (tmp_path / "my_outlines.py").write_text(MODULE)
    return tmp_path


@pytest.mark.slow
def test_a_function_of_the_working_folder_fills_in_what_fit_then_uses(here: Path) -> None:
    """By the console script; the bright box is what the function finds, so it is always right."""
    data = ("--data.source=Table", "--data.source.root=birds", *QUIET)
    done = console("annotate", *data, "--by=my_outlines.bright", "--out=filled", "--judge")
    assert (done.returncode, done.stderr) == (0, "")
    assert "bright: 3 of 6 pictures (train) filled in\nnot filled in: 3 known already" in done.stdout
    judged = json.loads((here / "filled" / "judge.json").read_text())
    assert judged["annotator"] == "bright"
    assert judged["shown"] == {"count": 3, "iou": 1.0, "pointing": 1.0, "score_rank_correlation": None}
    with (here / "filled" / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["mask"]) for row in rows] == [True] * 6 + [True, False], (
        "the validation image has one, the test none"
    )
    trainer = ("--trainer.fast_dev_run=2", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")
    assert run_cli("fit", "--model=CAMRestriction", "-c", "filled/data.yaml", *trainer) == 0


def test_the_configuration_of_a_run_is_taken_for_its_data(here: Path) -> None:
    (here / "run.yaml").write_text(
        "seed_everything: 3\nmodel: {class_path: Pretrained}\ntrainer: {max_epochs: 3}\n"
        "data: {source: {class_path: Table, init_args: {root: birds}}, image_size: 24}\n"
    )
    assert run_cli("annotate", "-c", "run.yaml", "--by", "my_outlines.bright", "--out", "filled") == 0
    assert "image_size: 24" in (here / "filled" / "data.yaml").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by=my_outlines.brigth"], "the module my_outlines has no 'brigth'; did you mean 'bright'?"),
        (["--by=my_outline.bright"], "there is no module my_outline; did you mean 'my_outlines'?"),
        (["--by=my_outlines.number"], "number() takes 0 positional arguments but 1 was given"),
        (["--by=my_outlines.wrong"], "wrong gave a Tensor for a picture, not an Annotation(score, mask)"),
        (["--by=Evidnce"], "--by: there is no class 'Evidnce'; did you mean 'Evidence'?"),
        (["--by=FoundRegions", "--by.chekpoint=x"], "did you mean"),
        (["--by=FoundRegions", "--by.checkpoint=x"], "there is no run or checkpoint x"),
        (["--by=my_outlines.bright", "--splits=[trian]"], "trian"),
        (["--by=my_outlines.bright", "--splits=[]"], "--splits names no split; choose from train, val, test"),
        (["--by=my_outlines.bright", "--out=birds"], "birds/table.csv is there already; give another folder"),
        ([], "by"),
    ],
)
def test_a_mistake_is_one_line(
    here: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--data.source=Table", "--data.source.root=birds", *QUIET)
    assert run_cli("annotate", *data, "--out=filled", *options) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1]
    assert len(lines) == 1
    assert not (here / "filled" / "table.csv").exists()


def test_help_names_the_annotators(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((SystemExit, PriorError)):
        run_cli("annotate", "--help")
    assert "--min_score" in capsys.readouterr().out
