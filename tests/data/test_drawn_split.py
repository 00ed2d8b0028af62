"""Splits by kind: nothing of a tested kind is trained on, and folds cover all kinds. Groups are as rare as asked."""

from collections import Counter
from pathlib import Path

import pytest

from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import DrawnSplit, Kakapo, RareGroups, Source, Waterbirds
from lightning_priors.data.sources.drawn_split import deal
from lightning_priors.errors import PriorError

SPLITS = ("train", "val", "test")


def birds(**options) -> Kakapo:
    return Kakapo(train_size=300, val_size=90, test_size=60, size=32, **options)


def species(source: Source, split) -> set[int]:
    return {source.known(index)["aux_labels"][0] for index in source.indices(split)}


class TwoKinds(Kakapo):
    """Kakapos are of two kinds too, or no kind could be held out without the class."""

    @property
    def aux_classes(self):
        return {"kind": [str(number) for number in range(8)], **super().aux_classes}

    def known(self, index):
        known = super().known(index)
        known["aux_labels"] = [4 * known["label"] + index % 4, *known["aux_labels"]]
        return known


def kinds(**options) -> DrawnSplit:
    source = DrawnSplit(TwoKinds(train_size=300, val_size=90, test_size=60, size=32), by="kind", **options)
    source.setup()
    return source


@pytest.mark.parametrize("with_test", [False, True])
def test_tested_kinds_are_never_trained_on_and_all_their_images_are_tested(with_test: bool) -> None:
    everything = birds()
    allowed = [index for split in SPLITS[: 2 + with_test] for index in everything.indices(split)]
    tested = Counter()
    for split in range(4):
        source = kinds(split=split, folds=4, with_test=with_test)
        train, val, test = (species(source, part) for part in SPLITS)
        assert not test & (train | val)
        assert len(test) == 2
        assert {kind // 4 for kind in test} == {0, 1}, "of each class"
        indices = [index for part in SPLITS for index in source.indices(part)]
        assert sorted(indices) == sorted(allowed)
        assert set(source.indices("val")) <= set(everything.indices("val"))
        tested.update(source.indices("test"))
    assert tested == Counter(allowed), "each image once in a round of folds"


def test_after_the_last_fold_kinds_are_dealt_anew() -> None:
    first, second = ([frozenset(species(kinds(split=2 * r + f, folds=2), "test")) for f in range(2)] for r in range(2))
    assert set(first) != set(second)
    assert kinds(split=3, folds=2).indices("test") == kinds(split=3, folds=2).indices("test")


def test_single_images_are_drawn_class_by_class() -> None:
    source = DrawnSplit(birds(), folds=5)
    source.setup()
    labels = Counter(source.label(index) for part in ("train", "val", "test") for index in source.indices(part))
    tested = Counter(source.label(index) for index in source.indices("test"))
    assert all(abs(tested[label] - labels[label] / 5) <= 1 for label in labels)


def test_a_data_module_takes_it() -> None:
    data = PriorDataModule(kinds(with_test=True), image_size=32, batch_size=4)
    data.setup(None)
    assert {*data.datasets["test"].indices} == {*kinds(with_test=True).indices("test")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "spcies"}, "no auxiliary task 'spcies' .option by., did you mean 'species'"),
        ({"by": "species"}, "3 folds cannot be dealt; from 2 to 1: one label has no more kinds"),
        ({"folds": 1}, "1 folds cannot be dealt"),
        ({"split": -1}, "split is a number from 0, not -1"),
    ],
)
def test_mistakes(options: dict[str, object], message: str) -> None:
    with pytest.raises(PriorError, match=message):
        DrawnSplit(birds(), **options).setup()  # type: ignore[arg-type]


def test_folds_are_as_even_as_can_be() -> None:
    labels = {kind: kind % 3 == 0 for kind in range(20)}
    for seed in range(5):
        dealt = deal({kind: int(label) for kind, label in labels.items()}, folds=3, seed=seed)
        for label in (False, True):
            sizes = Counter(dealt[kind] for kind in labels if labels[kind] == label)
            assert max(sizes.values()) - min(sizes.values()) <= 1


# ---- rare groups


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
def test_groups_are_as_rare_as_asked_within_each_class_and_the_others_stay(share: float) -> None:
    plain, names = birds(bias=0.6), birds().group_names
    source = RareGroups(plain, [names[1], names[2]], share)
    source.setup()
    groups = Counter(source.known(index)["group"] for index in source.indices("train"))
    before = Counter(plain.known(index)["group"] for index in plain.indices("train"))
    assert (groups[0], groups[3]) == (before[0], before[3])
    for rare, common in ((1, 0), (2, 3)):
        assert groups[rare] == round(share / (1 - share) * before[common])
        assert abs(groups[rare] / (groups[rare] + groups[common]) - share) < 0.5 / groups[common]
    for split in ("val", "test"):
        assert source.indices(split) == plain.indices(split)


def test_a_larger_share_keeps_what_a_smaller_one_keeps() -> None:
    names = birds().group_names
    sources = [RareGroups(birds(bias=0.6), names[1:3], share) for share in (0.05, 0.2)]
    for source in sources:
        source.setup()
    few, many = ({*source.indices("train")} for source in sources)
    assert few < many


@pytest.mark.parametrize(
    ("groups", "share", "message"),
    [
        (["kakapo in the opn"], 0.0, "no group 'kakapo in the opn' .option groups., did you mean 'kakapo in the open'"),
        (["kakapo in the open"], 1.0, "share is from 0 to below 1, not 1.0"),
        (["kakapo in the open"], 0.9, "too few training images of 'kakapo': [0-9]+ would be a share of 0.9"),
    ],
)
def test_mistakes_of_rare_groups(groups: list[str], share: float, message: str) -> None:
    with pytest.raises(PriorError, match=message):
        RareGroups(birds(), groups, share).setup()


def test_on_photographs(shared_data: Path) -> None:
    """A third of the 35 species is tested; 5 % of the other birds' training backgrounds disagree, or none."""
    tested = Counter()
    for split in range(3):
        for share in (0.05, 0.0):
            drawn = DrawnSplit(Waterbirds(str(shared_data / "stampbirds")), "species", split, with_test=True)
            source = RareGroups(drawn, ["landbird on water", "waterbird on land"], share)
            source.setup()
            groups = Counter(source.known(index)["group"] for index in source.indices("train"))
            disagreeing = (groups[1] + groups[2]) / groups.total()
            assert disagreeing == pytest.approx(share, abs=0.002)
            assert not species(source, "test") & species(source, "train")
            of_test = Counter(source.known(index)["group"] for index in source.indices("test"))
            assert min(of_test[group] for group in range(4)) >= 50
        tested.update(species(source, "test"))
    assert tested == Counter(range(35))
