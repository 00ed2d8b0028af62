"""Drawn letters and digits: reproducible, in fonts that no two splits share, and in groups that mean nothing."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.ft2font import FT2Font

from lightning_priors.data.sources import Glyphs
from lightning_priors.data.sources.glyphs import CHARACTERS, FACES, Pose, draw, group_of_each
from lightning_priors.errors import PriorError

SMALL = {"train_size": 100, "val_size": 60, "test_size": 60, "size": 32}
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
STRAIGHT = Pose("DejaVuSans", 0.45, (0.0, 0.0), turn=0.0, shear=0.0, noise=0.0)


def ink(character: str, **changes: object) -> np.ndarray:
    """How dark each pixel of a picture of 64 x 64 is, in [0, 1]."""
    how = STRAIGHT._replace(**changes)
    return 1 - draw(character, how, 64, np.random.default_rng(0)) / 255


def middle(picture: np.ndarray) -> np.ndarray:
    """The centre of the ink, x and y in pixels."""
    y, x = np.indices(picture.shape)
    return np.array([(x * picture).sum(), (y * picture).sum()]) / picture.sum()


def test_a_picture_depends_on_seed_and_index_alone() -> None:
    first, second = Glyphs(**SMALL, seed=3), Glyphs(**{**SMALL, "train_size": 7, "test_size": 4}, seed=3)
    indices = [second.indices(split)[2] for split in ("train", "val", "test")]
    forward = [first.load(index)["image"] for index in indices]
    backward = [second.load(index)["image"] for index in reversed(indices)][::-1]
    assert all(torch.equal(one, other) for one, other in zip(forward, backward, strict=True))
    assert not torch.equal(forward[0], Glyphs(**SMALL, seed=4).load(indices[0])["image"])


def test_a_picture_cannot_be_spoilt() -> None:
    source = Glyphs(**SMALL)
    source.load(0)["image"].zero_()
    assert torch.equal(source.load(0)["image"], Glyphs(**SMALL).load(0)["image"])


def test_no_family_of_fonts_is_in_two_splits() -> None:
    """By the family that the font file itself names; those of Computer Modern name their cut as the family."""
    families = {split: {FT2Font(str(FONTS / f"{face}.ttf")).family_name for face in FACES[split]} for split in FACES}
    assert not families["train"] & families["val"]
    assert not families["train"] & families["test"]
    assert not families["val"] & families["test"]
    assert {"DejaVu Sans", "STIXGeneral"} <= families["train"]


def test_every_face_has_every_character() -> None:
    for face in {face for faces in FACES.values() for face in faces}:
        font = FT2Font(str(FONTS / f"{face}.ttf"))
        assert all(font.get_char_index(ord(character)) for character in CHARACTERS), face


def test_groups_divide_the_characters() -> None:
    source = Glyphs(**SMALL, aux=["character", "equal", "crossing", "coarser"])
    source.setup()
    samples = [source.load(index) for index in source.indices("train")]
    labels = np.array([[sample["label"], *sample["aux_labels"]] for sample in samples])
    assert len({tuple(row) for row in labels[:, :2].tolist()}) == len(CHARACTERS)  # each character has one group
    assert (labels[:, 0] == labels[:, 2]).all()
    assert len({tuple(row) for row in labels[:, [0, 3]].tolist()}) > 10  # another division
    assert sorted({tuple(row) for row in labels[:, [0, 4]].tolist()}) == [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1)]
    assert [len(names) for names in source.aux_classes.values()] == [47, 5, 5, 2]
    assert [source.label(index) for index in source.indices("train")] == labels[:, 0].tolist()


def test_the_target_is_the_first_group_and_one_class_among_the_other_characters() -> None:
    plain, source = Glyphs(**SMALL), Glyphs(**SMALL, target=True, aux=["other_character", "equal"])
    source.setup()
    names = source.aux_classes["other_character"]
    assert source.classes == ["group 1", "other"]
    assert names[0] == "group 1"
    assert len(names) == 47 - 10 + 1
    for index in source.indices("train"):
        sample, group = source.load(index), plain.label(index)
        assert sample["label"] == source.label(index) == (0 if group == 0 else 1)
        expected = "group 1" if group == 0 else CHARACTERS[source.character(index)]
        assert names[sample["aux_labels"][0]] == expected
        assert sample["aux_labels"][1] == group


def test_groups_are_another_division_with_another_seed() -> None:
    divisions = [group_of_each(5, seed) for seed in range(5)]
    assert all(sorted(map(division.count, range(5))) == [9, 9, 9, 10, 10] for division in divisions)
    assert all(divisions[i] != divisions[j] for i in range(5) for j in range(i))


def test_the_same_characters_in_all_splits() -> None:
    source = Glyphs(**SMALL)
    for split in ("train", "val", "test"):
        assert {source.character(index) for index in source.indices(split)} == set(range(47))


def test_a_shift_moves_the_ink() -> None:
    moved = middle(ink("A", shift=(0.1, -0.05))) - middle(ink("A"))
    np.testing.assert_allclose(moved, [6.4, -3.2], atol=0.1)


def test_a_turn_turns_about_the_middle() -> None:
    """By a quarter, clockwise, an I lies; half a turn is the picture upside down."""
    quarter, half = ink("F", turn=np.pi / 2), ink("F", turn=np.pi)
    np.testing.assert_allclose(quarter, np.rot90(ink("F"), -1), atol=0.05)
    np.testing.assert_allclose(half, ink("F")[::-1, ::-1], atol=0.05)


def test_a_shear_moves_rows_against_each_other() -> None:
    upper, lower = (middle(ink("I", shear=0.2)[rows])[0] for rows in (slice(0, 32), slice(32, 64)))
    assert lower - upper == pytest.approx(0.2 * 0.45 * 64 / 2, rel=0.15)


def test_noise_has_its_standard_deviation() -> None:
    grey = draw(" ", STRAIGHT._replace(noise=0.1), 64, np.random.default_rng(0)) / 255
    darker = grey[grey < 1] - 1  # what is lighter than white is cut off
    assert np.sqrt((darker**2).mean()) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"groups": 1}, "groups must be from 2 to 47, not 1"),
        ({"size": 8}, "size must be at least 16 pixels, not 8"),
        ({"train_size": -1}, "train_size must be from 0 to 1000000, not -1"),
        ({"seed": -1}, "seed must not be negative, not -1"),
        ({"aux": ["charakter"]}, "no auxiliary task 'charakter'; .*character"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(PriorError, match=said):
        Glyphs(**options).setup()
