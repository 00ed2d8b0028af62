"""Oxford-IIIT Pet in the layout of its archives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_data import SIZE, edit, save_picture, write_lines
from PIL import Image
from torchvision import datasets

from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import OxfordPets
from lightning_priors.data.sources.base import UnreadableImageError
from lightning_priors.errors import PriorError

BREEDS = {"Abyssinian": (1, 1, 1), "american_bulldog": (2, 2, 1), "Bengal": (6, 1, 2)}
"""Number of the breed, species (1 a cat, 2 a dog), number among its species: capitals are cats."""


def save_trimap(path: Path) -> None:
    """Background, a border column, then the pet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.full((SIZE[1], SIZE[0]), 2, dtype=np.uint8)
    levels[:, 10] = 3
    levels[:, 11:] = 1
    Image.fromarray(levels).save(path)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two training images and one test image of each of three breeds."""
    folder = tmp_path / "oxford-iiit-pet"
    for name, numbers in {"trainval": (1, 20), "test": (3,)}.items():
        lines = []
        for breed, cells in BREEDS.items():
            for number in numbers:
                save_picture(folder / "images" / f"{breed}_{number}.jpg")
                save_trimap(folder / "annotations" / "trimaps" / f"{breed}_{number}.png")
                lines.append(" ".join(map(str, (f"{breed}_{number}", *cells))))
        write_lines(folder / "annotations" / f"{name}.txt", lines)
    return tmp_path


def ready(root: Path, **options: Any) -> OxfordPets:
    source = OxfordPets(str(root), **options)
    source.setup()
    return source


def test_cat_or_dog_with_the_breed_as_auxiliary_task(pets: Path) -> None:
    source = ready(pets)
    assert source.classes == ["cat", "dog"]
    assert source.aux_classes == {"breed": ["Abyssinian", "american_bulldog", "Bengal"]}
    assert [source.indices(split) for split in ("train", "val", "test")] == [[0, 1, 2, 3, 4, 5], [], [6, 7, 8]]
    assert [source.label(index) for index in range(9)] == [0, 0, 1, 1, 0, 0, 0, 1, 0]
    assert [source.load(index)["aux_labels"] for index in (0, 3, 8)] == [[0], [1], [2]]


def test_the_breed_with_the_species_as_auxiliary_task(pets: Path) -> None:
    source = ready(pets, primary="breed")
    assert source.classes == ["Abyssinian", "american_bulldog", "Bengal"]
    assert source.aux_classes == {"species": ["cat", "dog"]}
    assert [source.label(index) for index in range(9)] == [0, 0, 1, 1, 2, 2, 0, 1, 2]
    assert source.load(7)["aux_labels"] == [1]


def test_one_breed_against_the_others(pets: Path) -> None:
    source = ready(pets, target="Bengal")
    assert source.classes == ["Bengal", "other"]
    assert list(source.aux_classes) == ["breed", "species"]
    assert [source.label(index) for index in range(9)] == [1, 1, 1, 1, 0, 0, 1, 1, 0]
    assert source.load(2)["aux_labels"] == [1, 1]


@pytest.mark.parametrize(("masks", "border"), [("soft", 0.5), ("hard", 0.0)])
def test_the_trimap_is_the_mask(pets: Path, masks: str, border: float) -> None:
    sample = ready(pets, masks=masks).load(4)
    assert sample["mask"].shape == (1, *sample["image"].shape[1:])
    assert torch.equal(sample["mask"][0, 0], torch.tensor([0.0] * 10 + [border] + [1.0] * (SIZE[0] - 11)))
    assert sample["mask_valid"]


def test_each_image_is_a_file(pets: Path) -> None:
    source = ready(pets)
    assert all((source.folder / source.file(index)).is_file() for index in source.indices("train"))


def test_without_masks_no_trimap_is_needed(pets: Path) -> None:
    (pets / "oxford-iiit-pet" / "annotations" / "trimaps").rename(pets / "elsewhere")
    assert "mask" not in ready(pets, masks="none").load(0)
    with pytest.raises(PriorError, match=r"no folder \S*trimaps"):
        ready(pets)


def test_the_data_module_serves_it_from_the_inner_folder(pets: Path) -> None:
    data = PriorDataModule(OxfordPets(str(pets / "oxford-iiit-pet")), batch_size=4, image_size=32, val_fraction=0)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert (batch["mask"].shape, data.aux_num_classes) == ((4, 32, 32), [3])


def test_mistakes_are_named(pets: Path, tmp_path: Path) -> None:
    with pytest.raises(PriorError, match=r"no breed 'Bengl' \(option target\), did you mean 'Bengal'"):
        ready(pets, target="Bengl")
    with pytest.raises(PriorError, match=r"no folder \S*nowhere"):
        ready(tmp_path / "nowhere")
    lists = pets / "oxford-iiit-pet" / "annotations"
    edit(lists / "test.txt", "Bengal_3 6 1 2", "Bengal_3 6 3 2")
    with pytest.raises(PriorError, match=r"no species '3' \(row 3 of test.txt\)"):
        ready(pets)
    edit(lists / "test.txt", "Bengal_3 6 3 2", "Bengal_3 7 1 2")
    with pytest.raises(PriorError, match=r"the breed Bengal has two numbers, one in row 3 of test\.txt"):
        ready(pets)


def test_wrong_trimaps_are_named(pets: Path) -> None:
    source = ready(pets)
    path = pets / "oxford-iiit-pet" / "annotations" / "trimaps" / "Abyssinian_1.png"
    Image.fromarray(np.ones((5, 5), dtype=np.uint8)).save(path)
    with pytest.raises(PriorError, match=r"trimap \S*Abyssinian_1.png \(row 1 of trainval.txt\) has another size"):
        source.load(0)
    Image.fromarray(np.full((SIZE[1], SIZE[0]), 255, dtype=np.uint8)).save(path)
    with pytest.raises(PriorError, match="has levels other than 1, 2 and 3"):
        source.load(0)
    path.write_bytes(b"no picture")
    with pytest.raises(UnreadableImageError, match=r"cannot read \S*Abyssinian_1\.png"):
        source.load(0)
    path.unlink()
    with pytest.raises(UnreadableImageError, match=r"no file \S*Abyssinian_1\.png"):
        source.load(0)


def test_torchvision_is_asked_only_when_it_is_wanted_and_needed(pets: Path, tmp_path: Path, monkeypatch) -> None:
    asked = []

    def fetch(root: str, target_types: str, download: bool) -> None:
        asked.append(root)
        raise RuntimeError("Error downloading\nmirror")

    monkeypatch.setattr(datasets, "OxfordIIITPet", fetch)
    empty = tmp_path / "empty"
    for root, download in ((pets, True), (empty, False)):
        OxfordPets(str(root), download=download).prepare_data()
    assert not asked
    with pytest.raises(PriorError, match=r"Oxford-IIIT Pet cannot be fetched into \S*empty: Error downloading$"):
        OxfordPets(str(empty), download=True).prepare_data()
