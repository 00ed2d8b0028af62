"""Splits without leaks, nested subsets, partial annotation, and batches that (seed, epoch) decide."""

import pickle
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from fake_data import save_picture
from toy_sources import Batch, Toy, toy_data

from lightning_priors.data import PriorDataModule
from lightning_priors.data.datamodule import PRIOR_KEYS, hide_priors
from lightning_priors.data.sources import ImageFolderSource, RawSample, Source, Split
from lightning_priors.errors import PriorError


def used(data: PriorDataModule, split: Split) -> list[int]:
    """The indices that a loader gives in its first pass."""
    return torch.cat([batch["index"] for batch in getattr(data, f"{split}_dataloader")()]).tolist()


def train_set(data: PriorDataModule) -> set[int]:
    return set(used(data, "train"))


def test_batches_are_dense_and_complete() -> None:
    batch = next(iter(toy_data().train_dataloader()))
    shapes = {
        "image": (8, 3, 12, 12),
        "label": (8,),
        "index": (8,),
        "aux_labels": (8, 2),
        "group": (8,),
        "mask": (8, 12, 12),
        "mask_valid": (8,),
        "part_boxes": (8, 1, 4),
        "part_valid": (8, 1),
        "keypoints": (8, 1, 2),
        "keypoint_valid": (8, 1),
    }
    assert {key: tuple(value.shape) for key, value in batch.items()} == shapes
    assert {type(value) for value in batch.values()} == {torch.Tensor}


def test_names_and_numbers_of_classes_are_known_before_setup() -> None:
    data = PriorDataModule(Toy())
    assert (data.classes, data.num_classes, data.aux_num_classes) == (["a", "b", "c"], 3, [2, 4])


def test_validation_is_carved_from_training_class_by_class_and_test_is_untouched() -> None:
    data = toy_data(val_fraction=0.2)
    train, val, test = train_set(data), used(data, "val"), used(data, "test")
    assert not train & set(val)
    assert train | set(val) == set(range(90))
    assert test == list(range(200, 220))
    assert Counter(data.source.label(index) for index in val) == {0: 2, 1: 7, 2: 9}
    assert val == used(toy_data(val_fraction=0.2), "val")
    assert val != used(toy_data(val_fraction=0.2, seed=1), "val")


def test_a_validation_split_of_the_source_is_taken_as_it_is() -> None:
    data = toy_data(Toy(val=7), val_fraction=0.5)
    assert used(data, "val") == list(range(100, 107))
    assert train_set(data) == set(range(90))


SUBSETS: list[dict[str, Any]] = [{"train_fraction": 0.3}, {"images_per_class": 2}, {"annotated_fraction": 0.3}]


@pytest.mark.parametrize("options", SUBSETS)
def test_subsets_are_of_training_images_only(options: dict[str, Any]) -> None:
    whole, part = toy_data(val_fraction=0.2), toy_data(val_fraction=0.2, **options)
    for split in ("val", "test"):
        for one, other in zip(
            getattr(whole, f"{split}_dataloader")(), getattr(part, f"{split}_dataloader")(), strict=True
        ):
            assert all(torch.equal(one[key], other[key]) for key in one)
    assert train_set(part) <= train_set(whole)


@pytest.mark.parametrize(("option", "values"), [("train_fraction", [0.1, 0.3, 0.7]), ("images_per_class", [1, 3, 5])])
def test_training_subsets_are_nested(option: str, values: list[float]) -> None:
    chain = [train_set(toy_data(**{option: value})) for value in values]
    assert chain[0] < chain[1] < chain[2]
    assert chain[1] == train_set(toy_data(**{option: values[1]}))
    assert chain[1] != train_set(toy_data(**{option: values[1], "seed": 1, "val_fraction": 0.0}))


@pytest.mark.parametrize(
    ("val", "options", "message"),
    [
        (0, {}, "training on 81 of 90 images: 9 are set aside for validation (val_fraction 0.1)"),
        (
            0,
            {"images_per_class": 2},
            "training on 6 of 90 images: 9 are set aside for validation (val_fraction 0.1), "
            "75 are left out (images_per_class 2)",
        ),
        (4, {"train_fraction": 0.5}, "training on 44 of 90 images: 46 are left out (train_fraction 0.5)"),
        (4, {}, None),
    ],
)
def test_the_images_that_are_not_trained_on_are_counted_once(
    val: int, options: dict[str, Any], message: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    toy_data(Toy(val=val), **options).setup("fit")
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("training on")]
    assert said == ([] if message is None else [message])


def test_priors_are_dropped_for_a_fixed_nested_share_of_the_training_images() -> None:
    def annotated(fraction: float) -> set[int]:
        data = toy_data(annotated_fraction=fraction, val_fraction=0.0, batch_size=1)
        found = set()
        for _ in range(2):  # the same in every epoch
            now = set()
            for batch in data.train_dataloader():
                present = {key for key in PRIOR_KEYS if batch[key].any()}
                assert present in (set(), set(PRIOR_KEYS))
                now |= set(batch["index"].tolist()) if present else set()
            assert found in (set(), now)
            found = now
        return found

    quarter, half, all_of_them = annotated(0.25), annotated(0.5), annotated(1.0)
    assert (len(quarter), len(half), len(all_of_them)) == (22, 45, 90)
    assert quarter < half < all_of_them


def test_dropping_priors_changes_nothing_else() -> None:
    whole, bare = (next(iter(toy_data(annotated_fraction=share).train_dataloader())) for share in (1.0, 0.0))
    for key in whole:
        assert torch.equal(whole[key], bare[key]) == (key not in PRIOR_KEYS), key


def test_hiding_priors_leaves_the_sample_alone() -> None:
    sample = toy_data().test_dataloader().dataset[0]
    hidden = hide_priors(sample)
    assert sample["mask"].all()
    assert not any(hidden[key].any() for key in PRIOR_KEYS)
    assert hidden["image"] is sample["image"]


def epochs(data: PriorDataModule, count: int = 2) -> list[list[Batch]]:
    loader = data.train_dataloader()
    return [list(loader) for _ in range(count)]


def equal(first: list[Batch], second: list[Batch]) -> bool:
    return all(torch.equal(one[key], other[key]) for one, other in zip(first, second, strict=True) for key in one)


def test_batches_depend_on_the_seed_and_the_epoch_alone() -> None:
    torch.manual_seed(0)
    first = epochs(toy_data(augmentation="color"))
    torch.manual_seed(123)  # what a network would draw between the batches
    again = epochs(toy_data(augmentation="color"))
    for one, other in zip(first, again, strict=True):
        assert equal(one, other)
    assert not equal(first[0], first[1])
    assert not equal(first[0], epochs(toy_data(augmentation="color", seed=1))[0])


def test_evaluation_is_not_augmented() -> None:
    plain, coloured = toy_data(augmentation="none"), toy_data(augmentation="color")
    for split in ("val", "test"):
        loaders = (getattr(data, f"{split}_dataloader")() for data in (plain, coloured))
        assert equal(*(list(loader) for loader in loaders))
    assert not equal(epochs(plain)[0], epochs(coloured)[0])


def test_an_image_is_augmented_anew_in_each_epoch() -> None:
    dataset = toy_data(augmentation="crop").train_dataloader().dataset
    assert torch.equal(dataset[3, 1]["image"], dataset[3, 1]["image"])
    assert not torch.equal(dataset[3, 1]["image"], dataset[3, 2]["image"])
    assert not torch.equal(dataset[3, 1]["image"], dataset[4, 1]["image"])


def test_workers_give_the_same_batches() -> None:
    alone = epochs(toy_data(train_fraction=0.5, augmentation="color"))
    shared = epochs(toy_data(train_fraction=0.5, augmentation="color", num_workers=2))
    for one, other in zip(alone, shared, strict=True):
        assert equal(one, other)


def test_loading_takes_nothing_from_the_random_numbers_of_the_network() -> None:
    data = toy_data(augmentation="color")
    before = torch.get_rng_state()
    list(data.train_dataloader())
    list(data.val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


def test_setup_builds_what_a_stage_needs_and_does_it_once() -> None:
    data = PriorDataModule(Toy(), image_size=12)
    data.setup("fit")
    dataset = data.train_dataloader().dataset
    with pytest.raises(RuntimeError, match="setup"):
        data.test_dataloader()
    data.setup("test")
    data.setup("fit")
    assert data.train_dataloader().dataset is dataset
    assert used(data, "test") == torch.cat([batch["index"] for batch in data.predict_dataloader()]).tolist()


def test_a_module_that_was_set_up_can_be_sent_to_another_process() -> None:
    data = toy_data()
    assert used(pickle.loads(pickle.dumps(data)), "train") == used(data, "train")


def test_prepare_data_reaches_the_source() -> None:
    class Fetched(Toy):
        fetched = False

        def prepare_data(self) -> None:
            self.fetched = True

    data = PriorDataModule(Fetched())
    data.prepare_data()
    assert data.source.fetched


@pytest.fixture
def broken(pictures: Path) -> Path:
    """Pictures of which three are unreadable: cut off, no picture, gone empty."""
    for number in range(2, 12):
        save_picture(pictures / "train" / "cat" / f"cat{number}.jpg")
    cut = pictures / "train" / "cat" / "cat5.jpg"
    cut.write_bytes(cut.read_bytes()[:300])
    (pictures / "train" / "cat" / "cat7.jpg").write_text("no picture")
    (pictures / "test" / "dog" / "dog0.jpg").write_bytes(b"")
    return pictures


def test_a_bad_image_stops_by_default(broken: Path) -> None:
    data = toy_data(ImageFolderSource(str(broken)))
    with pytest.raises(PriorError, match=r"cannot read \S*dog0.jpg \(the test split\)"):
        list(data.test_dataloader())


def test_a_bad_image_in_a_worker_is_named_too(broken: Path) -> None:
    data = toy_data(ImageFolderSource(str(broken)), num_workers=1)
    with pytest.raises(PriorError, match=r"cannot read \S*dog0.jpg \(the test split\)"):
        list(data.test_dataloader())


def test_bad_images_are_skipped_and_named(broken: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    data = PriorDataModule(ImageFolderSource(str(broken)), batch_size=1, image_size=12, on_bad_image="skip")
    data.setup("fit")
    data.setup("fit")
    (said,) = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert said.startswith("skipped 2 of 14 images:")
    assert [name for name in ("cat5.jpg", "cat6.jpg", "cat7.jpg", "dog0.jpg") if name in said] == [
        "cat5.jpg",
        "cat7.jpg",
    ]
    data.setup("test")
    names = {str(data.source._files[index].path) for index in data.unreadable}
    assert names == {"train/cat/cat5.jpg", "train/cat/cat7.jpg", "test/dog/dog0.jpg"}
    shown = {*used(data, "train"), *used(data, "val"), *used(data, "test")}
    assert len(shown) == 18 - 3
    assert not shown & set(data.unreadable)


def test_every_file_is_checked_once() -> None:
    class Counted(Toy):
        loaded: ClassVar[Counter[int]] = Counter()

        def load(self, index: int) -> RawSample:
            self.loaded[index] += 1
            return super().load(index)

    data = toy_data(Counted(), on_bad_image="skip")
    data.setup("fit")
    assert data.source.loaded == Counter([*range(90), *range(200, 220)])
    assert data.unreadable == {}


def test_a_wrong_annotation_is_no_bad_image(pictures: Path) -> None:
    save_picture(pictures / "masks" / "train" / "cat" / "cat0.png", size=(7, 7))
    with pytest.raises(PriorError, match=r"is 7 x 7, its image 40 x 30"):
        toy_data(ImageFolderSource(str(pictures)), on_bad_image="skip")


def test_a_split_of_unreadable_images_only_says_so(broken: Path) -> None:
    (broken / "test" / "cat" / "cat0.jpg").write_text("no picture")
    data = toy_data(ImageFolderSource(str(broken)), on_bad_image="skip")
    with pytest.raises(
        PriorError, match=r"test split of ImageFolderSource is empty \(4 unreadable images were skipped\)"
    ):
        data.test_dataloader()


@pytest.mark.parametrize(
    ("source", "options", "split", "message"),
    [
        (Toy(), {"val_fraction": 0.0}, "val", "val split of Toy is empty: set val_fraction above 0"),
        (Toy(), {"val_fraction": 1.0}, "train", "train split of Toy is empty: "),
        (Toy(train=0, val=4), {}, "train", "train split of Toy is empty: give the data a train split"),
        (Toy(test=0), {}, "test", "test split of Toy is empty: give the data a test split"),
    ],
)
def test_an_empty_split_is_named(source: Source, options: dict[str, Any], split: str, message: str) -> None:
    data = toy_data(source, **options)
    with pytest.raises(PriorError, match=message):
        getattr(data, f"{split}_dataloader")()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 1.5}, "val_fraction is a share between 0 and 1, not 1.5"),
        ({"annotated_fraction": -0.1}, "annotated_fraction is a share between 0 and 1, not -0.1"),
        ({"train_fraction": 0.0}, "train_fraction is above 0"),
        ({"batch_size": 0}, "batch_size is at least 1, not 0"),
        ({"image_size": 0}, "image_size is at least 4, not 0"),
        ({"images_per_class": 0}, "images_per_class is at least 1, not 0"),
        ({"seed": -1}, "seed is at least 0, not -1"),
        ({"num_workers": -1}, "num_workers is at least 0, not -1"),
        ({"images_per_class": 5, "train_fraction": 0.5}, "give train_fraction or images_per_class, not both"),
        ({"on_bad_image": "skp"}, "no on_bad_image 'skp', did you mean 'skip'"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PriorError, match=message):
        PriorDataModule(Toy(), **options)


def test_a_wrong_augmentation_is_named_in_setup() -> None:
    with pytest.raises(PriorError, match="no augmentation 'crp', did you mean 'crop'"):
        toy_data(augmentation="crp")


def test_too_many_images_per_class_name_the_class() -> None:
    with pytest.raises(PriorError, match="images_per_class is 20, but the class 'a' has 8 training images"):
        toy_data(images_per_class=20)


def test_a_label_out_of_range_is_named() -> None:
    class Wrong(Toy):
        def label(self, index: int) -> int:
            return 3 if index == 17 else super().label(index)

    with pytest.raises(PriorError, match="image 17 of Wrong has the label 3, which is out of range: 3 classes"):
        toy_data(Wrong())


def test_an_image_in_two_splits_is_refused() -> None:
    class Leaky(Toy):
        def indices(self, split: Split) -> list[int]:
            return [*super().indices(split), *([5] if split == "test" else [])]

    with pytest.raises(PriorError, match="image 5 of Leaky is both in the train and in the test split"):
        toy_data(Leaky())
