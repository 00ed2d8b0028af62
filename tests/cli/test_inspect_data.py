"""The command inspect-data, as a user gives it."""

import json
import sys
from pathlib import Path

import pytest
from command_line import REPOSITORY, console, run_cli
from PIL import Image

sys.path.append(str(REPOSITORY / "tests" / "data"))
from annotation_files import coco_files

SMALL = ["--data.source.train_size=8", "--data.source.val_size=4", "--data.source.test_size=4", "--data.image_size=32"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_console_script_prints_a_table_and_writes_a_sheet(tmp_path: Path) -> None:
    coco_files(tmp_path / "birds")
    (tmp_path / "birds" / "images" / "b.jpg").write_text("no picture")
    config = REPOSITORY / "configs" / "data" / "coco.yaml"
    done = console(
        "inspect-data", "-c", str(config), f"--data.source.root={tmp_path / 'birds'}", f"--output={tmp_path}"
    )
    assert done.returncode == 1, "one picture cannot be read"
    assert "class kakapo" in done.stdout
    assert "unreadable, or with an annotation that does not fit: 1" in done.stdout
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "inspection.json").read_text())["counts"]["with mask"]["train"] == 2
    with Image.open(tmp_path / "inspection.png") as sheet:
        assert sheet.width > 500


def test_configurations_of_fit_are_taken_and_only_their_data_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    technique = REPOSITORY / "configs" / "techniques" / "cam_restriction.yaml"
    (tmp_path / "mine.yaml").write_text(
        "trainer: {max_epochs: 3}\nseed_everything: 1\nweights_only: null\ndata: {images_per_class: 2}\n"
    )
    assert run_cli("inspect-data", "-c", str(technique), "-c", "mine.yaml", "--data.source=Kakapo", *SMALL) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["images", "4", "4", "4"]
    assert (tmp_path / "inspection" / "inspection.png").is_file()


def test_the_default_data_are_those_of_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("inspect-data", *SMALL) == 0
    assert "class kakapo" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--data.source", "Cocoo"], "did you mean 'Coco'"),
        (["--data.source", "Coco", "--data.source.rot", "x"], "did you mean"),
        (["--data.source", "Coco", "--data.source.root", "nowhere"], "no folder nowhere"),
        (["-c", "no.yaml"], "there is no file no.yaml"),
        (["-c", "wrong.yaml"], "the configuration has no entry 'dat'; did you mean 'data'?"),
        (["--data.val_fraction", "2"], "val_fraction is a share between 0 and 1, not 2"),
        (["--pictures", "x"], "pictures"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("wrong.yaml").write_text("dat: {image_size: 32}")
    assert run_cli("inspect-data", *arguments) == 2
    shown = capsys.readouterr().err
    assert line in shown
    assert shown.strip().splitlines()[-1].startswith("error: ")
