"""A mistake in one process, or its death, ends the others within a minute, and is told in one line of each."""

import signal
from pathlib import Path

import pytest
from command_line import SMALL, finish, start_new

MODULE = '''
import os

from lightning_priors.errors import PriorError
from lightning_priors.techniques import Pretrained


class Crash(Pretrained):
    """The second process has trouble in the second step."""

    def __init__(self, *, how: str = "", num_classes: int = 2) -> None:
        super().__init__(num_classes=num_classes)
        self.save_hyperparameters()
        self.how = how

    def step(self, batch):
        if self.global_rank == 1 and self.global_step == 1:
            if self.how == "mistake":
                raise PriorError("row 3: bird.png is broken")
            os.kill(os.getpid(), 9)
        return super().step(batch)
'''
TWO = ("--trainer.devices=2", "--trainer.max_epochs=3", "--data.source.train_size=32", "--data.batch_size=4")


def run(*options: str) -> tuple[int, list[str]]:
    """The exit code and the lines of both processes on the error output."""
    kept = [word for word in SMALL if word.partition("=")[0] not in {other.partition("=")[0] for other in TWO}]
    process = start_new("fit", *options, *kept, *TWO)
    _, err = finish(process, timeout=120)
    return process.returncode, err.splitlines()


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("crash.py").write_text(MODULE)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["mistake", "killed"])
def test_trouble_in_one_process_ends_all(how):
    code, lines = run("--model=crash.Crash", f"--model.how={how}")
    assert code in (2, -signal.SIGTERM, -signal.SIGKILL)
    errors = [line for line in lines if line.startswith("error: ")]
    assert ("error: row 3: bird.png is broken" in errors) == (how == "mistake")
    assert 1 <= len(errors) <= 2
    assert "Traceback" not in "\n".join(lines)


@pytest.mark.slow
def test_shared_batch_normalisation_is_refused_on_the_cpu():
    code, lines = run("--model=Pretrained", "--trainer.sync_batchnorm=true")
    assert code == 2
    assert "error: --trainer.sync_batchnorm works on GPUs alone; leave it out" in lines
    assert "Traceback" not in "\n".join(lines)
