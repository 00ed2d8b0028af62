"""A resumed run knows its best checkpoint, and a checkpoint is a whole file whatever happens while it is written."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from lightning_priors.callbacks import RunCheckpoint, WholeFiles
from lightning_priors.errors import PriorError
from lightning_priors.whole_files import write_whole


class Scripted(L.LightningModule):
    """Has a validation value for each epoch, and a weight that tells the epoch."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values, self.weight = values, torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        return self.weight * 0

    def validation_step(self, batch, batch_idx):
        self.weight.data.fill_(self.current_epoch)
        self.log("val/acc", self.values[self.current_epoch], batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(values: list[float], folder: Path, epochs: int, ckpt_path: Path | None = None) -> RunCheckpoint:
    best = RunCheckpoint(folder, filename="best", monitor="val/acc", mode="max", enable_version_counter=False)
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[best, RunCheckpoint(folder, filename="last", enable_version_counter=False)],
        num_sanity_val_steps=0,
    )
    loader = DataLoader([torch.zeros(1)])
    trainer.fit(Scripted(values), loader, loader, ckpt_path=ckpt_path, weights_only=True)
    return best


def epoch_of(path: Path | str) -> float:
    return float(torch.load(path, weights_only=True)["state_dict"]["weight"])


def test_the_best_of_the_earlier_run_stays_the_best(tmp_path):
    values = [0.9, 0.5, 0.6, 0.7]
    fit(values, tmp_path / "first", epochs=2)
    best = fit(values, tmp_path / "second", 4, tmp_path / "first" / "last.ckpt")
    assert Path(best.best_model_path) == tmp_path / "second" / "best.ckpt"
    assert float(best.best_model_score) == pytest.approx(0.9)
    assert epoch_of(best.best_model_path) == 0
    assert epoch_of(tmp_path / "first" / "best.ckpt") == 0, "the earlier run is left as it was"


def test_a_better_one_replaces_the_copy_alone(tmp_path):
    values = [0.6, 0.5, 0.9, 0.7]
    fit(values, tmp_path / "first", epochs=2)
    best = fit(values, tmp_path / "second", 4, tmp_path / "first" / "last.ckpt")
    assert float(best.best_model_score) == pytest.approx(0.9)
    assert epoch_of(tmp_path / "second" / "best.ckpt") == 2
    assert epoch_of(tmp_path / "first" / "best.ckpt") == 0
    assert sorted(path.name for path in (tmp_path / "second").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_run_that_was_moved_is_found_beside_its_last_checkpoint(tmp_path):
    values = [0.9, 0.5, 0.6]
    fit(values, tmp_path / "first", epochs=2)
    (tmp_path / "first").rename(tmp_path / "moved")
    best = fit(values, tmp_path / "second", 3, tmp_path / "moved" / "last.ckpt")
    assert epoch_of(best.best_model_path) == 0


def test_a_best_checkpoint_that_is_gone_is_said(tmp_path, caplog):
    values = [0.9, 0.5, 0.6]
    fit(values, tmp_path / "first", epochs=2)
    (tmp_path / "first" / "best.ckpt").unlink()
    best = fit(values, tmp_path / "second", 3, tmp_path / "first" / "last.ckpt")
    assert float(best.best_model_score) == pytest.approx(0.6)
    assert "the best checkpoint of the earlier run" in caplog.text


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")
def test_in_the_same_folder_it_goes_on_as_before(tmp_path):
    values = [0.9, 0.5, 0.6]
    fit(values, tmp_path, epochs=2)
    best = fit(values, tmp_path, 3, tmp_path / "last.ckpt")
    assert (epoch_of(best.best_model_path), epoch_of(tmp_path / "last.ckpt")) == (0, 2)


# -------------------------------------------------------------------- whole files


def test_a_process_that_is_killed_while_it_writes_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"epoch": 1}, path)
    script = f"""
        import time, torch
        from lightning_priors.callbacks import WholeFiles
        class Slow:
            def __reduce__(self):
                print("writing", flush=True)
                time.sleep(60)
        WholeFiles().save_checkpoint({{"weights": torch.zeros(1000), "slow": Slow()}}, {str(path)!r})
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    WholeFiles().save_checkpoint({"epoch": 2}, path)  # what the killed process left behind is no obstacle
    assert [found.name for found in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path):
    path = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"epoch": 1}, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(PriorError, match=r"^cannot write .*last\.ckpt: [^\n]+$"):
            WholeFiles().save_checkpoint({"weights": torch.zeros(100_000)}, path)
        with pytest.raises(PriorError, match=r"^cannot write .*copy: File too large$"):
            write_whole(tmp_path / "copy", lambda part: part.write_bytes(bytes(100_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [found.name for found in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_real_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        WholeFiles().save_checkpoint({"epoch": 1}, disk / "last.ckpt")
        with pytest.raises(PriorError, match="No space left on device"):
            WholeFiles().save_checkpoint({"weights": torch.zeros(100_000)}, disk / "last.ckpt")
        assert torch.load(disk / "last.ckpt", weights_only=True) == {"epoch": 1}
    finally:
        time.sleep(0.1)
        subprocess.run(["umount", disk], check=True)
