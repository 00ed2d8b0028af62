"""Auxiliary tasks that divide the primary classes, at random or by what the images look like."""

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import (
    ClusteredLabels,
    RandomSubClasses,
    RawSample,
    Source,
    Split,
    UnreadableImageError,
)
from lightning_priors.data.sources import sub_classes as module
from lightning_priors.data.sources.sub_classes import SubClasses, clusters, numbers_of_sub_classes
from lightning_priors.errors import PriorError

KINDS = 3
TRAIN, TEST = 90, 6


class Colours(Source):
    """Two primary classes of three colours each, with a little noise; the colour is the human auxiliary label."""

    classes = ["warm", "cold"]  # noqa: RUF012 - a short way to define a property

    def __init__(self, human: bool = True, noise: int = 10) -> None:
        self.human = human
        self.noise = noise

    @property
    def aux_classes(self) -> dict[str, list[str]]:
        return {"colour": [str(number) for number in range(2 * KINDS)]} if self.human else {}

    def setup(self) -> None:
        pass

    def indices(self, split: Split) -> list[int]:
        return {"train": list(range(TRAIN)), "val": [], "test": list(range(TRAIN, TRAIN + TEST))}[split]

    def colour(self, index: int) -> int:
        return index * 7 % (2 * KINDS)

    def label(self, index: int) -> int:
        return self.colour(index) // KINDS

    def load(self, index: int) -> RawSample:
        generator = torch.Generator().manual_seed(index)
        pixels = torch.full((3, 12, 16), 40 * self.colour(index))
        pixels += torch.randint(0, self.noise + 1, (3, 12, 16), generator=generator)
        sample = RawSample(image=tv_tensors.Image(pixels.to(torch.uint8)), label=self.label(index))
        if self.human:
            sample["aux_labels"] = [self.colour(index)]
        return sample


BOTH = pytest.mark.parametrize("wrap", [RandomSubClasses, ClusteredLabels])


def labels_of(source: SubClasses, order: int = 1) -> dict[int, int]:
    """The added label of each training image, asked for in this order."""
    source.setup()
    return {index: source.load(index)["aux_labels"][-1] for index in source.indices("train")[::order]}


@BOTH
def test_labels_lie_inside_the_primary_class(wrap: type[SubClasses]) -> None:
    source = wrap(Colours(), sub_classes=[2, 3])
    names = source.aux_classes[source.task]
    assert names == ["warm 1", "warm 2", "cold 1", "cold 2", "cold 3"]
    labels = labels_of(source)
    assert {names[number].split()[0] for number in labels.values()} == {"warm", "cold"}
    for index, number in labels.items():
        assert names[number].startswith(source.classes[source.label(index)])
    assert set(labels.values()) == set(range(5))


@BOTH
def test_the_seed_alone_decides(wrap: type[SubClasses]) -> None:
    first = labels_of(wrap(Colours(), seed=1))
    assert labels_of(wrap(Colours(), seed=1), order=-1) == first
    assert labels_of(wrap(Colours(human=False), seed=1)) == first
    assert labels_of(wrap(Colours(), seed=2)) != first


@BOTH
def test_images_outside_of_the_training_split_have_no_label(wrap: type[SubClasses]) -> None:
    source = wrap(Colours())
    source.setup()
    for index in source.indices("test"):
        assert source.load(index)["aux_labels"] == [source.source.colour(index), -1]


@BOTH
def test_a_source_without_auxiliary_tasks_gets_the_one(wrap: type[SubClasses]) -> None:
    source = wrap(Colours(human=False), sub_classes=2)
    source.setup()
    assert list(source.aux_classes) == [source.task]
    assert len(source.load(0)["aux_labels"]) == 1
    assert source.load(source.indices("test")[0])["aux_labels"] == [-1]


@BOTH
@pytest.mark.parametrize("options", [{"images_per_class": 5}, {"train_fraction": 0.3}, {"val_fraction": 0.5}])
def test_subsets_of_the_training_images_keep_their_labels(wrap: type[SubClasses], options: dict[str, Any]) -> None:
    labels = labels_of(wrap(Colours()))
    data = PriorDataModule(wrap(Colours()), batch_size=4, image_size=8, **options)
    data.setup()
    assert data.aux_num_classes == [2 * KINDS, 10]
    for batch in data.train_dataloader():
        assert batch["aux_labels"][:, 1].tolist() == [labels[index] for index in batch["index"].tolist()]
    assert all((batch["aux_labels"][:, 1] == -1).all() for batch in data.test_dataloader())


def test_clusters_of_well_separated_pictures_are_found_exactly() -> None:
    for seed in range(5):
        labels = labels_of(ClusteredLabels(Colours(), sub_classes=KINDS, seed=seed))
        found = {(number, Colours().colour(index)) for index, number in labels.items()}
        assert len(found) == 2 * KINDS, "each cluster is one colour"


def test_one_cluster_takes_all_images_of_its_class() -> None:
    assert labels_of(ClusteredLabels(Colours(), sub_classes=1)) == {i: Colours().label(i) for i in range(TRAIN)}


def test_random_labels_are_even_and_independent_of_the_human_ones() -> None:
    labels = labels_of(RandomSubClasses(Colours(), sub_classes=[3, 7]))
    counts = Counter(labels.values())
    assert {counts[number] for number in range(3)} == {15}
    assert {counts[number] for number in range(3, 10)} == {6, 7}
    together = defaultdict(set)
    for index, number in labels.items():
        together[number].add(Colours().colour(index))
    assert all(len(colours) == KINDS for number, colours in together.items() if number < 3)


def test_random_labels_read_no_image() -> None:
    class Unread(Colours):
        def load(self, index: int) -> RawSample:
            raise AssertionError

    RandomSubClasses(Unread()).setup()


def test_an_unreadable_image_gets_no_cluster() -> None:
    class Broken(Colours):
        def load(self, index: int) -> RawSample:
            if index == 3:
                raise UnreadableImageError("no file 3.png")
            return super().load(index)

    source = ClusteredLabels(Broken(), sub_classes=KINDS)
    source.setup()
    assert sorted(source._labels) == [index for index in range(TRAIN) if index != 3]
    data = PriorDataModule(source, image_size=8, on_bad_image="skip")
    data.setup()
    assert data.unreadable == {3: "no file 3.png"}


def test_wrappers_can_be_stacked_but_not_twice_the_same() -> None:
    source = RandomSubClasses(ClusteredLabels(Colours(), sub_classes=KINDS), sub_classes=2)
    source.setup()
    assert list(source.aux_classes) == ["colour", "clusters", "random"]
    assert len(source.load(0)["aux_labels"]) == 3
    with pytest.raises(PriorError, match="RandomSubClasses: the data already has an auxiliary task 'random'"):
        RandomSubClasses(source).setup()


def test_a_class_without_training_images_has_no_clusters() -> None:
    class Warm(Colours):
        def label(self, index: int) -> int:
            return 0

    assert set(labels_of(ClusteredLabels(Warm(), sub_classes=KINDS)).values()) == set(range(KINDS))


@BOTH
@pytest.mark.parametrize(
    ("sub_classes", "message"),
    [
        ([1, 2, 3], "^sub_classes gives 3 numbers for 2 classes$"),
        (0, "^sub_classes is at least 1, not 0$"),
        ([4, -1], "^sub_classes is at least 1, not -1$"),
    ],
)
def test_numbers_that_do_not_fit_are_named(wrap: type[SubClasses], sub_classes: Any, message: str) -> None:
    source = wrap(Colours(), sub_classes=sub_classes)
    for ask in (source.setup, lambda: source.aux_classes):
        with pytest.raises(PriorError, match=message):
            ask()


@BOTH
def test_a_negative_seed_is_named(wrap: type[SubClasses]) -> None:
    with pytest.raises(PriorError, match=f"{wrap.__name__}: seed must not be negative, not -1"):
        wrap(Colours(), seed=-1).setup()


def test_more_clusters_than_different_images_name_the_class() -> None:
    with pytest.raises(PriorError, match="sub_classes is 46, but the class 'warm' has 45 different training images"):
        ClusteredLabels(Colours(), sub_classes=46).setup()
    with pytest.raises(PriorError, match="sub_classes is 4, but the class 'cold' has 3 different training images"):
        ClusteredLabels(Colours(noise=0), sub_classes=[3, 4]).setup()


def test_clusters_are_never_empty() -> None:
    points = torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    for seed in range(20):
        assert len(set(clusters(points, 12, np.random.default_rng(seed)).tolist())) == 12


def test_a_clustering_that_fails_from_every_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(*_: Any, **__: Any) -> None:
        raise module.ClusterError

    monkeypatch.setattr(module, "kmeans2", empty)
    with pytest.raises(PriorError, match="k-means finds no 5 clusters in 45 images: take fewer sub_classes"):
        ClusteredLabels(Colours()).setup()


def test_one_number_serves_all_classes() -> None:
    assert numbers_of_sub_classes(4, 3) == [4, 4, 4]
