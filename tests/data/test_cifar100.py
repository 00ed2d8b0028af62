"""CIFAR-100 in the layout of its files: pickles of Python 2, arrays of bytes."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cifar_files import COARSE, dump
from torchvision import datasets

from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import CIFAR100
from lightning_priors.data.sources.cifar100 import TEN, THREE, coarser, read_pickle
from lightning_priors.errors import PriorError

FINE = [f"fine{number:02}" for number in range(40)]
OWNER = [(7 * number) % 20 for number in range(40)]  # two fine classes in each coarse one, in no order

MAXL_TEN = [1, 2, 5, 6, 5, 6, 6, 3, 0, 7, 8, 0, 1, 3, 4, 0, 2, 5, 9, 9]
MAXL_THREE = [0, 0, 0, 0, 0, 1, 2, 2, 2, 2]
"""The tables of the paper's code: which of ten classes each coarse class is in, and which of three each of ten."""


def part(count: int, first: int) -> dict[str, Any]:
    numbers = range(first, first + count)
    pixels = np.stack([np.repeat(np.arange(3, dtype=np.uint8) * 50 + number, 1024) for number in numbers])
    fine = [number % 40 for number in numbers]
    return {
        "filenames": [f"image_{number}.png" for number in numbers],
        "batch_label": "batch",
        "fine_labels": fine,
        "coarse_labels": [OWNER[label] for label in fine],
        "data": pixels,
    }


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Eighty training and forty test images; every pixel of image i is i, 50 + i, 100 + i."""
    folder = tmp_path / "cifar-100-python"
    dump(folder / "meta", {"fine_label_names": FINE, "coarse_label_names": COARSE})
    dump(folder / "train", part(80, 0))
    dump(folder / "test", part(40, 80))
    return tmp_path


def ready(root: Path, **options: Any) -> CIFAR100:
    source = CIFAR100(str(root), **options)
    source.setup()
    return source


def test_coarse_labels_come_from_the_files(cifar: Path) -> None:
    source = ready(cifar)
    assert source.classes == COARSE
    assert source.aux_classes == {"level_100": FINE}
    assert [source.label(index) for index in range(40)] == OWNER
    assert [source.load(index)["aux_labels"] for index in (3, 85)] == [[3], [5]]


def test_the_levels_of_ten_and_three_are_those_of_maxl(cifar: Path) -> None:
    assert coarser(TEN, COARSE) == MAXL_TEN
    assert coarser(THREE, list(TEN)) == MAXL_THREE
    source = ready(cifar, level=3, aux=[10, 20, 100])
    assert [len(source.classes), *(len(names) for names in source.aux_classes.values())] == [3, 10, 20, 40]
    for index in range(120):
        ten, coarse, fine = source.load(index)["aux_labels"]
        assert (fine, coarse, ten) == (index % 40, OWNER[index % 40], MAXL_TEN[coarse])
        assert source.label(index) == MAXL_THREE[ten]


def test_pictures_and_splits(cifar: Path) -> None:
    source = ready(cifar)
    assert source.indices("train") == list(range(80))
    assert source.indices("val") == []
    assert source.indices("test") == list(range(80, 120))
    image = source.load(90)["image"]
    assert image.shape == (3, 32, 32)
    assert image.dtype == torch.uint8
    assert [channel.unique().tolist() for channel in image] == [[90], [140], [190]]


def test_a_target_against_all_others(cifar: Path) -> None:
    source = ready(cifar, target="fine05", aux=[100])
    assert source.classes == ["fine05", "other"]
    assert [index for index in range(80) if source.label(index) == 0] == [5, 45]
    assert source.load(45)["aux_labels"] == [5]


def test_the_folder_itself_may_be_named(cifar: Path) -> None:
    assert ready(cifar / "cifar-100-python").classes == COARSE


def test_the_data_module_serves_it(cifar: Path) -> None:
    data = PriorDataModule(CIFAR100(str(cifar), level=3, aux=[10, 100]), batch_size=8, image_size=32)
    data.setup()
    assert (data.num_classes, data.aux_num_classes) == (3, [10, 40])
    assert next(iter(data.train_dataloader()))["aux_labels"].shape == (8, 2)
    assert "aux_labels" not in ready(cifar, aux=[]).load(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 5}, "CIFAR-100 has no level of 5 classes; choose from 3, 10, 20, 100"),
        ({"aux": [50]}, "CIFAR-100 has no level of 50 classes"),
        ({"target": "fine5"}, r"no class 'fine5' \(option target\), did you mean"),
    ],
)
def test_wrong_options_are_named(cifar: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PriorError, match=message):
        ready(cifar, **options)


def test_missing_and_foreign_files_are_named(cifar: Path, tmp_path: Path) -> None:
    with pytest.raises(PriorError, match=r"no folder \S*nowhere"):
        ready(tmp_path / "nowhere")
    folder = cifar / "cifar-100-python"
    (folder / "test").rename(folder / "tests")
    with pytest.raises(PriorError, match=r"no file \S*test: .*did you mean 'tests'"):
        ready(cifar)
    dump(folder / "test", {"data": 1})
    with pytest.raises(PriorError, match=r"\S*test is no file of CIFAR-100: it has no fine_labels"):
        ready(cifar)
    for content in (b"", b"text", pickle.dumps({"data": 1})[:-3]):
        (folder / "test").write_bytes(content)
        with pytest.raises(PriorError, match=r"\S*test is no file of CIFAR-100"):
            ready(cifar)


def test_files_that_were_written_anew_are_read_too(cifar: Path) -> None:
    path = cifar / "cifar-100-python" / "train"
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps(part(80, 0), protocol))
        assert ready(cifar).load(7)["image"].max() == 107


def test_a_fine_class_in_two_coarse_ones_is_found(cifar: Path) -> None:
    content = part(80, 0)
    content["coarse_labels"][41] += 1
    dump(cifar / "cifar-100-python" / "train", content)
    with pytest.raises(PriorError, match="the fine class 'fine01' is in two coarse classes"):
        ready(cifar)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("harmed"),)


def test_a_pickle_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dump(tmp_path / "train", {"data": Harmful()})
    with pytest.raises(PriorError, match=r"no file of CIFAR-100: it asks for \S+getattr"):
        read_pickle(tmp_path / "train", ["data"])
    assert not Path("harmed").exists()


def test_torchvision_is_asked_only_when_it_is_wanted_and_needed(cifar: Path, tmp_path: Path, monkeypatch) -> None:
    asked = []

    def fetch(root: str, download: bool) -> None:
        asked.append(root)
        raise RuntimeError("Error downloading\nmirror")

    monkeypatch.setattr(datasets, "CIFAR100", fetch)
    empty = tmp_path / "empty"
    for root, download in ((cifar, True), (empty, False)):
        CIFAR100(str(root), download=download).prepare_data()
    assert not asked
    with pytest.raises(PriorError, match=r"CIFAR-100 cannot be fetched into \S*empty: Error downloading$"):
        CIFAR100(str(empty), download=True).prepare_data()
