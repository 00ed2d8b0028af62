"""What a run costs: which intervals count as steps, and that the peak is one."""

import math
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import nn

from lightning_priors.compare.measure import PeakMemory, StepTimer


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that is moved by hand."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


class Waiting(L.LightningModule):
    """Each training step takes 1 second, each validation step 100, and the way to the next epoch 10."""

    def __init__(self, now: list[float]) -> None:
        super().__init__()
        self.now, self.layer = now, nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.now[0] += 1 + (self.trainer.current_epoch == 0 and batch_idx < 4) * 7
        return self.layer(batch).sum()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.now[0] += 100

    def on_train_epoch_start(self) -> None:
        self.now[0] += 10

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated")  # Lightning's own
@pytest.mark.parametrize("check", [None, 2])
def test_only_the_way_from_batch_to_batch_counts(ticking: list[float], tmp_path: Path, check: int | None) -> None:
    timer = StepTimer()
    trainer = L.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        devices=1,
        max_epochs=2,
        val_check_interval=check,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[timer],
    )
    loader = torch.utils.data.DataLoader(torch.ones(6, 1))
    trainer.fit(Waiting(ticking), loader, loader)
    # six batches have five intervals between them; a validation after every second batch leaves three of these
    intervals = {None: [8.0, 8.0, 8.0, 1.0, 1.0, 1, 1, 1, 1, 1], 2: [8.0, 8.0, 1.0, 1.0, 1.0, 1.0]}
    assert timer.seconds == intervals[check]
    assert timer.median() == 1.0


def test_the_first_three_are_left_out() -> None:
    timer = StepTimer()
    timer.seconds = [50.0, 40.0, 30.0]
    assert math.isnan(timer.median())
    timer.seconds += [2.0, 4.0]
    assert timer.median() == 3.0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets the mark be lowered")
def test_the_peak_is_that_of_the_present_run() -> None:
    def peak(megabytes: int) -> float:
        memory = PeakMemory(torch.device("cpu"))
        block = torch.ones(megabytes * 2**18)
        del block
        return memory.mebibytes()

    small, large, small_again = peak(1), peak(256), peak(1)
    assert large - small > 200
    assert large - small_again > 200  # lowered again, although it was higher before


def test_no_measurement_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, text: str) -> int:
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    assert math.isnan(PeakMemory(torch.device("cpu")).mebibytes())
