"""What is said of data before training: counts, annotations, unreadable files and pictures in two splits."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from annotation_files import KEA, annotation, coco_files
from fake_data import save_picture
from PIL import Image

from lightning_priors.data import PriorDataModule
from lightning_priors.data.inspection import (
    SIMILAR,
    Inspection,
    Seen,
    as_json,
    as_text,
    doubles,
    examples,
    inspect,
    perceptual_hash,
)
from lightning_priors.data.sources import Coco, ImageFolderSource, Kakapo, Waterbirds


def counts(data: PriorDataModule) -> dict[str, dict[str, int]]:
    return as_json(inspect(data))["counts"]


def noise(seed: int, side: int = 48) -> np.ndarray:
    """A picture of large soft blobs, as photographs are."""
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    return (fine[0].permute(1, 2, 0) * 255).byte().numpy()


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for start, (split, count) in enumerate({"train": 4, "val": 2, "test": 2}.items()):
        for number in range(count):
            path = tmp_path / split / ("cat", "dog")[number % 2] / f"{split}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise(10 * start + number)).save(path)
    return tmp_path


def test_counts_are_those_of_what_training_uses() -> None:
    data = PriorDataModule(
        Kakapo(train_size=40, val_size=6, test_size=8, size=32), images_per_class=5, annotated_fraction=0.5
    )
    found = counts(data)
    assert found["images"] == {"train": 10, "val": 6, "test": 8}
    assert found["class kakapo"]["train"] == found[f"class {data.classes[1]}"]["train"] == 5
    hidden = len(data.datasets["train"].without_priors)
    assert 0 < hidden < 10
    assert found["with mask"] == {"train": 10 - hidden, "val": 6, "test": 8}
    assert found["with auxiliary species"]["train"] == 10


def test_annotations_and_sizes_are_counted_by_picture(tmp_path: Path) -> None:
    data = PriorDataModule(Coco(str(coco_files(tmp_path)), parts=["head", "target"], aux=["sex"]), val_fraction=0)
    found = inspect(data)
    table = as_json(found)["counts"]
    assert [table[name]["train"] for name in ("with mask", "with boxes", "with auxiliary sex")] == [2, 3, 2]
    assert as_json(found)["sizes"]["train"] == {"40 x 30": 4}
    assert "pictures are 40 wide, 30 high" in as_text(found)


def test_unreadable_pictures_and_annotations_that_do_not_fit_are_named(tmp_path: Path) -> None:
    root = coco_files(tmp_path)
    (root / "images" / "b.jpg").write_text("no picture")
    content = json.loads((root / "birds.json").read_text())
    content["annotations"].append(annotation(9, 14, KEA, bbox=[30, 20, 50, 50]))
    (root / "birds.json").write_text(json.dumps(content))
    found = inspect(PriorDataModule(Coco(str(root), parts=["head", "target"]), val_fraction=0))
    assert [(problem.split, problem.file) for problem in found.problems] == [
        ("train", "images/b.jpg"),
        ("train", "images/e.jpg"),
    ]
    assert "cannot read" in found.problems[0].text
    assert "lies outside its image" in found.problems[1].text
    assert "unreadable, or with an annotation that does not fit: 2\n  train: cannot read" in as_text(found)


def test_what_the_data_module_has_skipped_is_named(folders: Path) -> None:
    (folders / "train" / "cat" / "train0.png").write_text("no picture")
    found = inspect(PriorDataModule(ImageFolderSource(str(folders)), on_bad_image="skip"))
    assert [problem.file for problem in found.problems] == ["train/cat/train0.png"]
    assert len(found.seen) == 7


def test_a_picture_in_two_splits_is_found_by_its_pixels_and_by_its_looks(folders: Path) -> None:
    first, second = (folders / "train" / name for name in ("cat/train0.png", "dog/train1.png"))
    Image.open(first).save(folders / "test" / "dog" / "same.png", compress_level=1)  # another file, the same pixels
    Image.open(second).resize((36, 36)).save(folders / "val" / "dog" / "alike.jpg", quality=80)
    found = inspect(PriorDataModule(ImageFolderSource(str(folders))))
    one, other = found.doubles
    assert (one.file, one.other_file, one.distance, one.labels_differ) == (
        "test/dog/same.png",
        "train/cat/train0.png",
        0,
        True,
    )
    assert (other.file, other.other_file, other.labels_differ) == ("val/dog/alike.jpg", "train/dog/train1.png", False)
    assert 1 <= other.distance <= SIMILAR + 1
    text = as_text(found)
    assert (
        "in two splits with the same pixels: 1\n"
        "  test test/dog/same.png = train train/cat/train0.png (their labels differ)\n"
        "in two splits and much alike: 1\n"
        "  val val/dog/alike.jpg = train train/dog/train1.png" in text
    )


def seen(split: Any, index: int, bits: np.ndarray | None, digest: str) -> Seen:
    return Seen(split, index, f"{split}{index}", 0, None, (8, 8), frozenset(), digest, bits)


def test_of_several_the_nearest_is_named_and_pictures_without_contrast_are_left_alone() -> None:
    rng = np.random.default_rng(0)
    bits = rng.random(63) < 0.5
    near, nearer = bits.copy(), bits.copy()
    near[:3], nearer[:1] = ~near[:3], ~nearer[:1]
    far = ~bits
    known = [seen("train", i, each, f"t{i}") for i, each in enumerate((near, nearer, far, None))]
    found = doubles([*known, seen("test", 0, bits, "x"), seen("test", 1, None, "y"), seen("val", 0, None, "z")])
    assert [(double.file, double.other_file, double.distance) for double in found] == [("test0", "train1", 2)]


def test_a_flat_picture_has_no_hash() -> None:
    assert perceptual_hash(torch.full((3, 8, 8), 7, dtype=torch.uint8)) is None


def test_copies_of_photographs_are_similar_and_different_photographs_are_not(shared_data: Path) -> None:
    birds = Waterbirds(str(shared_data / "stampbirds"))
    birds.setup()
    hashes, copies = [], []
    for index in birds.indices("test")[::15]:
        image = birds.load(index)["image"]
        hashes.append(perceptual_hash(image))
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).resize((100, 100)).save(buffer, format="JPEG", quality=70)
        copies.append(perceptual_hash(torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)))
    bits = np.stack(hashes).astype(int)
    distance = np.abs(bits[:, None] - np.stack(copies).astype(int)).sum(-1)
    assert np.diag(distance).max() <= SIMILAR
    assert (distance + 99 * np.eye(len(distance), dtype=int)).min() > SIMILAR


def test_examples_show_every_class_with_its_annotations_before_and_after_the_augmentation() -> None:
    data = PriorDataModule(
        Kakapo(train_size=40, val_size=6, test_size=8, size=32), image_size=32, annotated_fraction=0.2
    )
    rows = examples(data, inspect(data), 4)
    plain, augmented = rows["as they are"], rows["augmented"]
    assert plain["label"].tolist() == augmented["label"].tolist() == [0, 1, 0, 1]
    assert plain["mask_valid"].all()
    moved = [not torch.equal(one, other) for one, other in zip(plain["mask"], augmented["mask"], strict=True)]
    assert any(moved)
    position = list(data.datasets["train"].indices).index(int(augmented["index"][0]))
    assert torch.equal(augmented["image"][0], data.datasets["train"][position]["image"])


def test_many_classes_are_cut_in_the_table_and_whole_in_the_json() -> None:
    found = Inspection([f"bird{number}" for number in range(50)], [], [], [], [])
    assert "class bird39" in as_text(found)
    assert "class bird40" not in as_text(found)
    assert "and 10 more classes" in as_text(found)
    assert "class bird49" in as_json(found)["counts"]


def test_the_json_has_plain_values(folders: Path) -> None:
    save_picture(folders / "test" / "cat" / "flat.png")
    found = as_json(inspect(PriorDataModule(ImageFolderSource(str(folders)))))
    assert json.loads(json.dumps(found)) == found
