"""Every training image is shown in every epoch, in one process and in several, also after a resumed run."""

import pickle
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from processes import run_on_ranks
from torch.utils.data import BatchSampler
from toy_sources import Recorder, toy_data

from lightning_priors.data.samplers import EpochSampler, NoSingletonBatchSampler

SCRIPT = Path(__file__).parent / "train_in_processes.py"


def batches_of(images: int, batch_size: int) -> list[list[int]]:
    sampler = NoSingletonBatchSampler(range(images), batch_size, drop_last=False)
    batches = list(sampler)
    assert len(sampler) == len(batches)
    return batches


@pytest.mark.parametrize("batch_size", range(1, 8))
def test_batches_are_those_of_torch_but_for_a_single_last_image(batch_size: int) -> None:
    for images in range(30):
        batches = batches_of(images, batch_size)
        assert [position for batch in batches for position in batch] == list(range(images))
        theirs = list(BatchSampler(range(images), batch_size, drop_last=False))
        if images % batch_size == 1 and 1 < batch_size < images:
            assert batches == [*theirs[:-2], theirs[-2] + theirs[-1]]
        else:
            assert batches == theirs


@pytest.mark.parametrize(
    ("images", "batch_size", "sizes"),
    [(65, 32, [32, 33]), (60, 32, [32, 28]), (33, 32, [33]), (64, 32, [32, 32]), (1, 32, [1]), (3, 1, [1, 1, 1])],
)
def test_sizes_of_batches(images: int, batch_size: int, sizes: list[int]) -> None:
    assert [len(batch) for batch in batches_of(images, batch_size)] == sizes


def test_an_incomplete_batch_is_left_out_on_request() -> None:
    sampler = NoSingletonBatchSampler(range(7), batch_size=3, drop_last=True)
    assert list(sampler) == [[0, 1, 2], [3, 4, 5]]
    assert len(sampler) == 2


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"batch_size": 8}, [8] * 11 + [2]),
        ({"batch_size": 89}, [90]),
        ({"batch_size": 91}, [90]),
        ({"batch_size": 8, "images_per_class": 1}, [3]),
    ],
)
def test_the_loader_shows_every_image_in_every_epoch(options: dict[str, Any], sizes: list[int]) -> None:
    loader = toy_data(val_fraction=0.0, **options).train_dataloader()
    assert len(loader) == len(sizes)
    for _ in range(2):
        shown = [batch["index"].tolist() for batch in loader]
        assert [len(indices) for indices in shown] == sizes
        assert sorted(index for indices in shown for index in indices) == sorted(loader.dataset.indices)


def test_each_process_has_its_own_share() -> None:
    images = list(range(10))
    shares = [list(EpochSampler(images, seed=4, world_size=2, rank=rank)) for rank in (0, 1)]
    assert not set(shares[0]) & set(shares[1])
    assert {position for position, _ in shares[0] + shares[1]} == set(images)


def test_the_sampler_starts_anew_where_it_is_told_to() -> None:
    sampler = EpochSampler(list(range(10)), seed=4)
    passes = [list(sampler) for _ in range(3)]
    assert [epoch for (_, epoch), *_ in passes] == [0, 1, 2]
    assert len({tuple(position for position, _ in one) for one in passes}) == 3
    sampler.set_epoch(1)
    assert list(sampler) == passes[1]


def fitted(folder: Path, epochs: int, checkpoint: str | None = None, num_workers: int = 0, **options: Any) -> Recorder:
    trainer = L.Trainer(
        max_epochs=epochs,
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **options,
    )
    model = Recorder()
    data = toy_data(augmentation="crop", train_fraction=0.3, num_workers=num_workers)
    trainer.fit(model, data, ckpt_path=checkpoint)
    assert trainer.num_training_batches == len({indices for epoch, indices, _ in model.seen if epoch == epochs - 1})
    trainer.save_checkpoint(folder / "last.ckpt")
    return model


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_sees_what_the_whole_run_would_have_seen(tmp_path: Path, num_workers: int) -> None:
    whole = fitted(tmp_path / "whole", 3)
    assert [epoch for epoch, *_ in whole.seen] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len({indices for _, indices, _ in whole.seen}) == 9
    fitted(tmp_path / "part", 1, num_workers=num_workers)
    resumed = fitted(tmp_path / "rest", 3, str(tmp_path / "part" / "last.ckpt"), num_workers=num_workers)
    assert resumed.seen == whole.seen[3:]


@pytest.mark.filterwarnings("ignore:You requested to overfit")  # Lightning says that it turns shuffling off
def test_overfit_batches_shows_the_same_pictures_in_every_epoch(tmp_path: Path) -> None:
    model = fitted(tmp_path, 3, overfit_batches=2)
    shown = [(indices, pixels) for _, indices, pixels in model.seen]
    assert shown[:2] * 3 == shown
    assert {len(indices) for indices, _ in shown} == {8}


@pytest.fixture(scope="module")
def shares(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[tuple[int, tuple[int, ...], float]]]]:
    """What each of two processes was shown in each run of the script."""
    folder = tmp_path_factory.mktemp("processes")
    run_on_ranks(2, SCRIPT, str(folder))
    names = {path.stem.rpartition("-")[0] for path in folder.glob("*.pickle")}
    return {name: [pickle.loads((folder / f"{name}-{rank}.pickle").read_bytes()) for rank in (0, 1)] for name in names}


def in_epoch(share: list[tuple[int, tuple[int, ...], float]], epoch: int) -> list[tuple[int, ...]]:
    return [indices for number, indices, _ in share if number == epoch]


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [0, 1])
def test_two_processes_show_every_image_in_equally_many_batches(shares: Any, epoch: int) -> None:
    first, second = (in_epoch(share, epoch) for share in shares["plain"])
    assert [len(batch) for batch in first] == [len(batch) for batch in second] == [8, 8, 9]
    images = [index for batch in first + second for index in batch]
    assert sorted(images) == list(range(50))


@pytest.mark.slow
def test_two_processes_keep_the_order_of_seed_and_epoch(shares: Any) -> None:
    for rank, share in enumerate(shares["plain"]):
        sampler = EpochSampler(range(50), seed=0, world_size=2, rank=rank)
        for epoch in (0, 1):
            wanted = [position for position, _ in sampler]
            assert [index for batch in in_epoch(share, epoch) for index in batch] == wanted


@pytest.mark.slow
def test_lightning_leaves_the_sampler_alone_and_workers_change_nothing(shares: Any) -> None:
    assert shares["plain"] == shares["own_sampler"] == shares["workers"]


@pytest.mark.slow
def test_two_processes_overfit_the_same_pictures_in_every_epoch(shares: Any) -> None:
    for share in shares["overfit"]:
        assert in_epoch(share, 0) == in_epoch(share, 1)
        assert [len(batch) for batch in in_epoch(share, 0)] == [8, 8]
