"""Whatever ends a process, and whatever is full: the files that it has written are whole."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from command_line import FIT, REPOSITORY, finish, start
from PIL import Image

from lightning_priors.errors import PriorError
from lightning_priors.whole_files import write_figure, write_table, write_text

WRITERS = {
    "runs.csv": ("from lightning_priors.compare.rows import Row, write_rows", "write_rows(path, [Row('new', 0)] * 50)"),
    "report.html": ("from lightning_priors.whole_files import write_text", "write_text(path, 'new' * 10000)"),
    "panel.png": (
        "from matplotlib.figure import Figure\nfrom lightning_priors.whole_files import write_figure",
        "write_figure(path, Figure((9, 9)))",
    ),
    "last.ckpt": (
        "from lightning_priors.callbacks import WholeFiles",
        "WholeFiles().save_checkpoint({'epoch': 2}, path)",
    ),
}


ENDS = [
    (signal.SIGKILL, "os.fsync"),
    (signal.SIGKILL, "pathlib.Path.replace"),
    (signal.SIGTERM, "os.fsync"),
    (signal.SIGINT, "os.fsync"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "moment"), ENDS)
@pytest.mark.parametrize("name", WRITERS)
def test_a_process_that_is_ended_at_the_end_of_writing_leaves_the_earlier_file(name, sent, moment, tmp_path):
    (tmp_path / name).write_text("earlier")
    imports, call = WRITERS[name]
    owner, _, function = moment.rpartition(".")
    script = "\n".join(
        [imports, "import os, pathlib, signal", f"path = pathlib.Path({str(tmp_path / name)!r})",
         # a shell starts its background jobs deaf to Ctrl-C, and the suite may be one
         "signal.signal(signal.SIGINT, signal.default_int_handler)",
         f"{owner}.{function} = lambda *_: os.kill(os.getpid(), {int(sent)})", call]
    )  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert (tmp_path / name).read_text() == "earlier"
    if sent != signal.SIGINT:
        assert ended.returncode == -sent, ended.stderr
    else:  # an exception, so that nothing else is left either
        assert "KeyboardInterrupt" in ended.stderr
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


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [1, 40, 200])
def test_a_run_on_a_full_disk_is_one_line(kilobytes, tmp_path):
    """No file can grow beyond that: configuration, panel or checkpoint is the one that does not fit."""
    command = " ".join(f"'{word}'" for word in FIT)
    script = f"ulimit -f {kilobytes}; exec {sys.executable} -m lightning_priors {command}"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "MPLCONFIGDIR": str(tmp_path / "fonts")}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
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
