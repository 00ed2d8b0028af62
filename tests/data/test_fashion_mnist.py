"""Fashion-MNIST in torchvision's layout; a small one with the same files, and the real one where it is."""

import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import FashionMNIST
from lightning_priors.data.sources.fashion_mnist import CLASSES, group_labels
from lightning_priors.errors import PriorError

TOPS, SHOES = ["T-shirt/top", "Pullover", "Coat", "Shirt"], ["Sandal", "Sneaker", "Ankle boot"]


def write_idx(path: Path, array: np.ndarray) -> None:
    """The format of MNIST: a magic number with the number of dimensions, the sizes, the bytes."""
    header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    """Thirty training and twenty test images; class i % 10, every pixel of image i is i."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, first, count in (("train", 0, 30), ("t10k", 100, 20)):
        numbers = np.arange(first, first + count)
        write_idx(raw / f"{name}-images-idx3-ubyte", np.tile(numbers[:, None, None], (1, 28, 28)))
        write_idx(raw / f"{name}-labels-idx1-ubyte", numbers % 10)
    return tmp_path


def ready(root: Path, **options: Any) -> FashionMNIST:
    source = FashionMNIST(str(root), **options)
    source.setup()
    return source


def test_by_default_shirts_are_told_from_the_rest(fashion: Path) -> None:
    source = ready(fashion)
    assert source.classes == ["Shirt", "other"]
    assert source.aux_classes == {"class": list(CLASSES)}
    assert [source.label(index) for index in range(10)] == [1, 1, 1, 1, 1, 1, 0, 1, 1, 1]
    assert source.load(16)["aux_labels"] == [6]


def test_the_group_is_the_class_among_the_ten(fashion: Path) -> None:
    source = ready(fashion, groups=[SHOES, TOPS])
    assert source.group_names == list(CLASSES)
    assert [source.load(index)["group"] for index in (0, 5, 19, 42)] == [0, 5, 9, 2]


def test_pictures_and_splits(fashion: Path) -> None:
    source = ready(fashion)
    assert source.indices("train") == list(range(30))
    assert source.indices("val") == []
    assert source.indices("test") == list(range(30, 50))
    for index, level in ((7, 7), (33, 103)):
        image = source.load(index)["image"]
        assert (tuple(image.shape), image.unique().tolist()) == ((3, 28, 28), [level])


def test_another_target(fashion: Path) -> None:
    source = ready(fashion, target="Bag")
    assert source.classes == ["Bag", "other"]
    assert Counter(source.label(index) for index in range(30)) == {0: 3, 1: 27}


def test_groups_are_the_primary_classes_and_leave_the_rest_out(fashion: Path) -> None:
    source = ready(fashion, groups=[SHOES, TOPS])
    assert source.classes == ["Sandal + Sneaker + Ankle boot", "T-shirt/top + Pullover + Coat + Shirt"]
    kept = source.indices("train")
    assert {index % 10 for index in kept} == {0, 2, 4, 5, 6, 7, 9}
    assert [source.label(index) for index in (5, 7, 9, 0, 6)] == [0, 0, 0, 1, 1]
    assert source.aux_classes == {"class": list(CLASSES)}


def test_ten_groups_are_the_original_task(fashion: Path) -> None:
    source = ready(fashion, groups=[[name] for name in CLASSES])
    assert [source.label(index) for index in range(10)] == list(range(10))


def test_auxiliary_tasks_may_be_of_any_level(fashion: Path) -> None:
    source = ready(fashion, aux={"kind": [TOPS, SHOES], "class": [[name] for name in reversed(CLASSES)]})
    assert [len(names) for names in source.aux_classes.values()] == [2, 10]
    assert [source.load(index)["aux_labels"] for index in (0, 1, 5)] == [[0, 9], [-1, 8], [1, 4]]
    assert "aux_labels" not in ready(fashion, aux={}).load(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "Shrit"}, r"no class 'Shrit' \(option target\), did you mean 'Shirt'"),
        ({"groups": [["Bag"], ["Shoe"]]}, r"no class 'Shoe' \(option groups\), "),
        ({"groups": [["Bag"], ["Coat", "Bag"]]}, "'Bag' is in two groups of groups"),
        ({"groups": [["Bag"], []]}, "group 1 of groups is empty"),
        ({"aux": {"kind": [["Bags"]]}}, r"no class 'Bags' \(option aux 'kind'\), did you mean 'Bag'"),
        ({"target": "Bag", "groups": [["Bag"], ["Coat"]]}, "give target or groups, not both"),
    ],
)
def test_wrong_options_are_named(fashion: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PriorError, match=message):
        ready(fashion, **options)


def test_every_class_has_at_most_one_group() -> None:
    assert group_labels([TOPS, SHOES], "groups") == [0, -1, 0, -1, 0, 1, 0, 1, -1, 1]


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        PriorError, match=r"no Fashion-MNIST in \S*: the folder \S*FashionMNIST/raw: .*set download: true"
    ):
        ready(tmp_path)
    (tmp_path / "FashionMNIST" / "raw").mkdir(parents=True)
    with pytest.raises(PriorError, match=r"no Fashion-MNIST in \S*: the four files; or set download: true"):
        ready(tmp_path)


def test_nothing_is_fetched_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("asked torchvision")

    monkeypatch.setattr(datasets, "FashionMNIST", refuse)
    FashionMNIST(str(tmp_path)).prepare_data()


def test_a_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(self: object) -> None:
        raise RuntimeError("Error downloading train-images\nmirror 1\nmirror 2")

    monkeypatch.setattr(datasets.FashionMNIST, "download", unreachable)
    with pytest.raises(PriorError, match=r"Fashion-MNIST cannot be fetched into \S*: Error downloading train-images$"):
        FashionMNIST(str(tmp_path), download=True).prepare_data()


def test_files_that_are_there_are_not_fetched(fashion: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.FashionMNIST, "_check_exists", lambda self: True)
    FashionMNIST(str(fashion), download=True).prepare_data()


def test_the_real_files(shared_data: Path) -> None:
    data = PriorDataModule(FashionMNIST(str(shared_data)), batch_size=20, image_size=32, images_per_class=10)
    data.setup()
    assert [len(data._datasets[split]) for split in ("train", "val", "test")] == [20, 6000, 10000]
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (20, 3, 32, 32)
    assert torch.equal(batch["label"], (batch["aux_labels"][:, 0] != CLASSES.index("Shirt")).long())
    labels = Counter(data.source.label(index) for index in data.source.indices("test"))
    assert labels == {0: 1000, 1: 9000}
