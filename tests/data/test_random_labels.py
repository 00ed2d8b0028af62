"""Random twins of auxiliary tasks."""

from collections import Counter

import pytest
import torch
from torchvision import tv_tensors

from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import Kakapo, RandomLabels, Source
from lightning_priors.errors import PriorError


class Numbers(Source):
    """Two primary classes with five finer ones each, of which the third has no label; a parity, too."""

    classes = ["low", "high"]  # noqa: RUF012 - a short way to define a property
    group_names = ["all"]  # noqa: RUF012
    part_names = ["left", "right"]  # noqa: RUF012
    keypoint_names = ["eye"]  # noqa: RUF012

    def __init__(self, tasks: bool = True) -> None:
        self.tasks = tasks
        self.prepared = False

    @property
    def aux_classes(self) -> dict[str, list[str]]:
        return {"digit": list("0123456789"), "parity": ["even", "odd"]} if self.tasks else {}

    def prepare_data(self) -> None:
        self.prepared = True

    def setup(self) -> None:
        pass

    def indices(self, split):
        return {"train": list(range(400)), "val": [400, 401], "test": [402]}[split]

    def label(self, index: int) -> int:
        return int(index % 10 >= 5)

    def load(self, index: int):
        digit = index % 10
        return {
            "image": tv_tensors.Image(torch.zeros(3, 4, 4, dtype=torch.uint8)),
            "label": self.label(index),
            "aux_labels": [-1 if digit == 2 else digit, digit % 2],
        }


def columns(source: RandomLabels) -> torch.Tensor:
    source.setup()
    return torch.tensor([source.load(index)["aux_labels"] for index in source.indices("train")])


def test_twins_have_the_same_labels_within_each_primary_class() -> None:
    source = RandomLabels(Numbers())
    labels = columns(source)
    primary = torch.tensor([source.label(index) for index in source.indices("train")])
    for task in range(2):
        for value in range(2):
            rows = primary == value
            counts = [Counter(labels[rows, column].tolist()) for column in (task, task + 2)]
            assert counts[0] == counts[1]


def test_twins_know_nothing_beyond_the_primary_class() -> None:
    labels = columns(RandomLabels(Numbers()))
    assert torch.equal(labels[:, 0], torch.tensor([-1 if i % 10 == 2 else i % 10 for i in range(400)]))
    agreement = (labels[:, 0] == labels[:, 2]).float().mean().item()
    assert agreement == pytest.approx(0.2, abs=0.06)


def test_names_and_chosen_twins() -> None:
    assert list(RandomLabels(Numbers()).aux_classes) == ["digit", "parity", "random_digit", "random_parity"]
    source = RandomLabels(Numbers(), twins=["parity"])
    assert source.aux_classes["random_parity"] == ["even", "odd"]
    assert columns(source).shape == (400, 3)


def test_the_exchange_depends_on_the_seed_alone() -> None:
    first, again, other = (columns(RandomLabels(Numbers(), seed=seed))[:, 2:] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[:, 0] % 2, first[:, 1]), "the twins of two tasks are exchanged separately"


def test_there_are_no_random_labels_to_be_judged_by() -> None:
    source = RandomLabels(Numbers())
    source.setup()
    assert [source.load(index)["aux_labels"] for index in (400, 402)] == [[0, 0, -1, -1], [-1, 0, -1, -1]]


def test_the_rest_is_that_of_the_source() -> None:
    inner = Numbers()
    source = RandomLabels(inner)
    source.prepare_data()
    assert inner.prepared
    for name in ("classes", "group_names", "part_names", "keypoint_names"):
        assert getattr(source, name) == getattr(inner, name)
    assert [source.indices(split) for split in ("val", "test")] == [[400, 401], [402]]


def test_a_drawn_source_in_the_data_module() -> None:
    data = PriorDataModule(RandomLabels(Kakapo(train_size=12, val_size=2, test_size=2, size=32)), 4, image_size=32)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["aux_labels"].shape == (4, 2)
    assert data.aux_num_classes[0] == data.aux_num_classes[1]
    kakapos = batch["label"] == 0
    assert torch.equal(batch["aux_labels"][kakapos, 0], batch["aux_labels"][kakapos, 1])


def test_mistakes_are_named() -> None:
    with pytest.raises(PriorError, match=r"no auxiliary task 'digits' \(option twins\), did you mean 'digit'"):
        RandomLabels(Numbers(), twins=["digits"]).setup()
    with pytest.raises(PriorError, match="RandomLabels: Numbers has no auxiliary tasks here"):
        RandomLabels(Numbers(tasks=False)).setup()
