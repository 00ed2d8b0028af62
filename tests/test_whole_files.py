"""Whatever ends a process, and whatever is full: the files that it has written are whole."""

import csv
import json
import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from command_line import FIT, finish, start
from matplotlib.figure import Figure
from PIL import Image
from processes import Started

from lightning_priors.__main__ import main
from lightning_priors.callbacks import WholeFiles
from lightning_priors.compare.rows import Row, write_rows
from lightning_priors.errors import PriorError
from lightning_priors.whole_files import write_figure, write_table, write_text

WRITERS = {
    "runs.csv": lambda path: write_rows(path, [Row("new", 0)] * 50),
    "report.html": lambda path: write_text(path, "new" * 10000),
    "panel.png": lambda path: write_figure(path, Figure((9, 9))),
    "last.ckpt": lambda path: WholeFiles().save_checkpoint({"epoch": 2}, path),
}


ENDS = [
    (signal.SIGKILL, "os.fsync"),
    (signal.SIGKILL, "pathlib.Path.replace"),
    (signal.SIGTERM, "os.fsync"),
    (signal.SIGINT, "os.fsync"),
]


def _write_and_end(path: Path, sent: int, moment: str) -> None:
    """Writes a file and ends itself where the written part becomes the file."""
    owner, function = {"os.fsync": (os, "fsync"), "pathlib.Path.replace": (Path, "replace")}[moment]
    setattr(owner, function, lambda *_: os.kill(os.getpid(), sent))
    WRITERS[path.name](path)


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "moment"), ENDS)
@pytest.mark.parametrize("name", WRITERS)
def test_a_process_that_is_ended_at_the_end_of_writing_leaves_the_earlier_file(name, sent, moment, tmp_path):
    (tmp_path / name).write_text("earlier")
    ended = Started(_write_and_end, (tmp_path / name, int(sent), moment), os.environ, [str(Path(__file__).parent)])
    _, err = finish(ended)
    assert (tmp_path / name).read_text() == "earlier"
    if sent != signal.SIGINT:
        assert ended.returncode == -sent, err
    else:  # an exception, so that nothing else is left either
        assert "KeyboardInterrupt" in err
        assert [path.name for path in tmp_path.iterdir()] == [name]


def whole(path: Path) -> bool:
    """Reads a file with what reads files of its kind."""
    if path.suffix == ".png":
        Image.open(path).load()
    elif path.suffix == ".ckpt":
        torch.load(path, weights_only=True)
    elif path.suffix == ".yaml":
        assert yaml.safe_load(path.read_text())["model"]
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".csv":
        header, *rows = csv.reader(path.read_text().splitlines())
        assert all(len(row) == len(header) for row in rows)
    else:
        return path.name.startswith(".") and path.suffix == ".part"
    return True


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_run_that_is_ended_leaves_whole_files(sent, code, tmp_path, monkeypatch):
    """At some moment of a run that writes all the time."""
    monkeypatch.chdir(tmp_path)
    process = start(*FIT, "--trainer.max_epochs=100000", "--trainer.callbacks+=ConfusionMatrix")
    end = time.monotonic() + 200
    while not list(tmp_path.rglob("epoch_001.png")):
        assert time.monotonic() < end, "no second panel"
        assert process.poll() is None, process.stderr
        time.sleep(0.05)
    time.sleep(random.Random(int(sent)).random())
    process.send_signal(sent)
    _, err = finish(process, timeout=100)
    assert process.returncode == code, err
    assert "Traceback" not in err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {".png", ".ckpt", ".yaml", ".csv"} <= {path.suffix for path in files}
    assert all(whole(path) for path in files)


def _fit_with_small_files(kilobytes: int) -> int:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as every new interpreter does
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, kilobytes * 1024))
    return main(list(FIT))


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [1, 40, 200])
def test_a_run_on_a_full_disk_is_one_line(kilobytes, tmp_path, monkeypatch):
    """No file can grow beyond that: configuration, panel or checkpoint is the one that does not fit."""
    monkeypatch.chdir(tmp_path)
    environment = os.environ | {"MPLCONFIGDIR": str(tmp_path / "fonts")}
    done = Started(_fit_with_small_files, (kilobytes,), environment, [str(Path(__file__).parent)])
    _, err = finish(done)
    assert done.returncode in (1, 2), err
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "cannot write" in lines[0] or "File too large" in lines[0]
    assert all(whole(path) for path in (tmp_path / "runs").rglob("*") if path.is_file())


def test_an_earlier_file_survives_a_mistake_while_writing(tmp_path):
    class Broken:
        def savefig(self, path: Path, *, format: str, pil_kwargs: dict) -> None:
            path.write_text("half")
            raise OSError(28, "No space left on device")

    (tmp_path / "a.png").write_text("earlier")
    with pytest.raises(PriorError, match=r"cannot write .*a\.png: No space left on device"):
        write_figure(tmp_path / "a.png", Broken())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.png", "earlier")]


def test_tables_and_texts_are_read_back(tmp_path):
    rows = [["path", "label"], ["a, b.png", 'kea "nui"'], ["c\nd", "kākāpō"]]
    write_table(tmp_path / "t.csv", rows)
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == rows
    write_text(tmp_path / "t.txt", "kākāpō\n")
    assert (tmp_path / "t.txt").read_bytes() == "kākāpō\n".encode()
