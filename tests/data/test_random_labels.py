"""Random twins of auxiliary tasks."""

from collections import Counter

import pytest
import torch
from toy_sources import Numbers

from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import Kakapo, RandomLabels, RawSample, UnreadableImageError
from lightning_priors.errors import PriorError


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


def test_an_unreadable_image_takes_no_part_in_the_exchange() -> None:
    class Broken(Numbers):
        def load(self, index: int) -> RawSample:
            if index == 3:
                raise UnreadableImageError("no file 3.png")
            return super().load(index)

    source = RandomLabels(Broken())
    source.setup()
    assert sorted(source._labels) == [index for index in range(400) if index != 3]


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
    with pytest.raises(PriorError, match="RandomLabels: seed must not be negative, not -1"):
        RandomLabels(Numbers(), seed=-1).setup()
