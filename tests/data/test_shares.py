"""Several processes evaluate every image once, whatever their number, and agree with one process."""

import json
from pathlib import Path

import lightning as L
import pytest
from processes import run_on_ranks
from toy_sources import Toy, toy_data

from lightning_priors.data.samplers import ShareSampler
from lightning_priors.techniques import Pretrained


@pytest.mark.parametrize("images", [2, 7, 12])
@pytest.mark.parametrize("processes", [1, 2, 5])
def test_the_shares_are_a_partition(images, processes):
    shares = [list(ShareSampler(range(images), processes, rank)) for rank in range(processes)]
    assert sorted(position for share in shares for position in share) == list(range(images))
    assert [len(ShareSampler(range(images), processes, rank)) for rank in range(processes)] == list(map(len, shares))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def single(checkpoint: Path, stage: str) -> dict[str, float]:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    data = toy_data(Toy(train=16, val=7, test=5), batch_size=2)
    evaluate = trainer.validate if stage == "validate" else trainer.test
    (found,) = evaluate(Pretrained.load_from_checkpoint(checkpoint), data, verbose=False)
    return dict(found)


@pytest.mark.slow
def test_two_processes_evaluate_seven_images_as_one_does(tmp_path):
    """One rank has four images in two batches of two, the other three: the last image of that rank is a batch."""
    script = Path(__file__).with_name("validate_in_processes.py")
    run_on_ranks(2, script, str(tmp_path), "2")
    reports = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert sorted(reports[0]["seen"] + reports[1]["seen"]) == sorted([*range(100, 107)] * 2)
    expected = single(tmp_path / "last.ckpt", "validate")
    for report in reports:
        assert report["fit"] == pytest.approx({name: expected[name] for name in report["fit"]}, abs=1e-5)
        assert report["validate"] == pytest.approx(expected, abs=1e-5)
        assert report["test"] == pytest.approx(single(tmp_path / "last.ckpt", "test"), abs=1e-5)
