"""``predict RUN PICTURES``: what is written equals what the loaded classifier says, and nothing is lost."""

import csv
import io
import json
import shutil
import signal
import sys
import time
from pathlib import Path

import lightning as L
import numpy as np
import pytest
from command_line import run_cli, start
from PIL import Image

import lightning_priors
from lightning_priors import Pretrained, PriorDataModule
from lightning_priors.data.sources import Kakapo


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of a moment."""
    L.seed_everything(0, verbose=False)
    folder = tmp_path_factory.mktemp("run")
    data = PriorDataModule(Kakapo(), batch_size=8, image_size=32, images_per_class=8, val_fraction=0.02)
    trainer = L.Trainer(max_epochs=1, limit_val_batches=0, accelerator="cpu", logger=False, default_root_dir=folder,
                        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)  # fmt: skip
    trainer.fit(Pretrained(), data)
    trainer.save_checkpoint(folder / "checkpoints" / "best.ckpt")
    return folder


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of it, because predictions are written into the run's folder."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def birds(tmp_path) -> Path:
    """Pictures of different colours, two of them with the same name."""
    colours = np.random.default_rng(0).integers(0, 256, (3, 3))
    for name, colour in zip(("one.png", "a/two.jpg", "b/two.jpg"), colours, strict=True):
        path = tmp_path / "birds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), tuple(map(int, colour))).save(path)
    return tmp_path / "birds"


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_table_has_what_the_classifier_says(run, birds, capsys):
    assert run_cli("predict", str(run), str(birds), "--device=cpu") == 0
    assert capsys.readouterr().err == f"3 of 3 pictures: {run}/predict/predictions.csv\n"
    written = rows((run / "predict" / "predictions.csv").read_text())
    files = [str(birds / name) for name in ("a/two.jpg", "b/two.jpg", "one.png")]
    said = lightning_priors.load(run, device="cpu").predict(files)
    assert [row["path"] for row in written] == files
    assert [row["label"] for row in written] == [each.label for each in said]
    for row, each in zip(written, said, strict=True):
        assert float(row["probability"]) == pytest.approx(max(each.probabilities.values()), rel=1e-5)
        for name, probability in each.probabilities.items():
            assert float(row[f"p({name})"]) == pytest.approx(probability, rel=1e-5)


def test_what_a_table_says_goes_along_beside_an_unreadable_file(run, birds, capsys):
    (birds / "broken.jpg").write_text("no picture")
    (birds / "t.csv").write_text("path,label,place\nbroken.jpg,x,1\nmissing.jpg,x,2\nb/two.jpg,duck,3\none.png,x,4\n")
    out = birds / "said.jsonl"
    assert run_cli("predict", str(run), str(birds / "t.csv"), f"--out={out}", "--unreadable=skip") == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(Path(line["path"]).name, line["given_label"], line["place"]) for line in lines] == [
        ("two.jpg", "duck", "3"),
        ("one.png", "x", "4"),
    ]
    assert lines[0]["probabilities"][lines[0]["label"]] == lines[0]["probability"]
    told = capsys.readouterr().err
    assert "label is given_label" in told
    assert f"skipped: cannot read {birds}/broken.jpg: " in told
    assert f"skipped: no file {birds}/missing.jpg: " in told
    assert "2 of 4 pictures" in told


def test_an_unreadable_file_ends_the_command_unless_told(run, birds, capsys):
    (birds / "broken.jpg").write_text("no picture")
    assert run_cli("predict", str(run), str(birds), "--out=-") == 2
    assert capsys.readouterr().err.startswith(f"error: cannot read {birds}/broken.jpg: ")


def test_panels_have_the_names_of_the_pictures(run, birds, tmp_path, capsys):
    assert run_cli("predict", str(run), str(birds), "--out=-", "--panels", str(tmp_path / "panels")) == 0
    drawn = sorted(str(path.relative_to(tmp_path / "panels")) for path in (tmp_path / "panels").rglob("*.png"))
    assert drawn == ["a/two.jpg.png", "b/two.jpg.png", "one.png.png"]
    assert len(rows(capsys.readouterr().out)) == 3


def test_no_file_is_lost(run, birds, capsys):
    picture = str(birds / "one.png")
    for _ in range(3):
        assert run_cli("predict", str(run), picture) == 0
    names = sorted(path.name for path in (run / "predict").iterdir())
    assert names == ["predictions.csv", "predictions_2.csv", "predictions_3.csv"]
    out = f"--out={run / 'predict' / 'predictions.csv'}"
    assert run_cli("predict", str(run), picture, out) == 2
    assert "is there already; give another name, or --overwrite" in capsys.readouterr().err
    assert run_cli("predict", str(run), picture, out, "--overwrite") == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nowhere", "x.jpg"], "there is no run or checkpoint nowhere"),
        (["RUN"], "predict RUN needs PICTURES: a file, a folder"),
        (["RUN", "x.jpg"], "there is no picture or folder x.jpg: "),
        (["RUN", "one.png", "--ot=x.csv"], "there is no option --ot; did you mean '--out'?"),
        (["RUN", "one.png", "--out=x.txt"], "--out x.txt: give a file that ends with .csv or .jsonl, or -"),
        (["RUN", "one.png", "--batch-size=0"], "--batch-size is at least 1, not 0"),
        (["RUN", "one.png", "--device=cpuu"], "--device cpuu: "),
    ],
)
def test_a_mistake_is_one_line(run, birds, arguments, line, capsys, monkeypatch):
    monkeypatch.chdir(birds)
    assert run_cli("predict", *(str(run) if argument == "RUN" else argument for argument in arguments)) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"error: {line}")
    assert (told.err.count("\n"), told.out) == (1, "")


def test_paths_on_the_input_and_the_table_on_the_output(run, birds, capsys, monkeypatch):
    monkeypatch.chdir(birds)
    monkeypatch.setattr(sys, "stdin", io.StringIO("one.png\na/two.jpg\n"))
    assert run_cli("predict", str(run), "-", "--out=-") == 0
    assert [row["path"] for row in rows(capsys.readouterr().out)] == ["one.png", "a/two.jpg"]


@pytest.mark.slow
def test_a_killed_run_leaves_whole_lines(run, birds, tmp_path):
    (tmp_path / "many.txt").write_text(f"{birds / 'one.png'}\n" * 100_000)
    out = tmp_path / "said.csv"
    process = start("predict", str(run), str(tmp_path / "many.txt"), f"--out={out}", "--batch-size=8")
    deadline = time.monotonic() + 120
    while not (out.exists() and out.stat().st_size > 2000) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    text = out.read_text()
    assert text.endswith("\n")
    written = rows(text)
    assert 1 < len(written) < 100_000
    assert all(None not in row.values() and float(row["probability"]) >= 0.5 for row in written)


def test_help_tells_the_two_forms_apart(capsys):
    with pytest.raises(SystemExit):
        run_cli("predict", "--help")
    shown = capsys.readouterr().out
    assert "RUN comes first" in shown
    assert "--panels" in shown
    assert "--ckpt_path" in shown
