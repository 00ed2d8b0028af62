"""Masks that are wrong by a known amount: how much, by hand, and for which images."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors

from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import NoisyMasks, RawSample, Source, Split
from lightning_priors.data.sources.noisy_masks import KINDS, box_about, dilated, eroded, shifted
from lightning_priors.errors import PriorError

SIDE = 20
"""Of the square target in the middle of 80 x 60 pixels; a length is the amount times it."""


class Squares(Source):
    """Forty images for training, each tenth without a mask, and two others."""

    classes = ["one"]  # noqa: RUF012 - a short way to define a property

    def setup(self) -> None:
        pass

    def indices(self, split: Split) -> list[int]:
        return {"train": list(range(40)), "val": [40], "test": [41]}[split]

    def label(self, index: int) -> int:
        return 0

    def load(self, index: int) -> RawSample:
        mask = torch.zeros(1, 60, 80)
        mask[:, 20 : 20 + SIDE, 30 : 30 + SIDE] = 1.0
        valid = index % 10 != 9
        image = tv_tensors.Image(torch.zeros(3, 60, 80, dtype=torch.uint8))
        return {"image": image, "label": 0, "mask": tv_tensors.Image(mask * valid), "mask_valid": valid}


def square() -> Tensor:
    return Squares().load(0)["mask"].as_subclass(Tensor)


def iou(one: Tensor, other: Tensor) -> float:
    inside, target = one >= 0.5, other >= 0.5
    return ((inside & target).sum() / (inside | target).sum()).item()


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_and_images_without_a_mask_stay_as_they_are(kind: Any) -> None:
    plain, noisy = Squares(), NoisyMasks(Squares(), kind, 0.5)
    for index in (9, 40, 41):
        assert torch.equal(noisy.load(index)["mask"], plain.load(index)["mask"])
        assert noisy.load(index)["mask_valid"] == plain.load(index)["mask_valid"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "boxes"])
def test_no_amount_changes_nothing(kind: Any) -> None:
    assert torch.equal(NoisyMasks(Squares(), kind, 0.0).load(0)["mask"], square())


def test_a_square_is_widened_with_round_corners() -> None:
    """The area is that of the square, of a strip along each side, and of a quarter of a disc at each corner."""
    wide = NoisyMasks(Squares(), "dilated", 0.5).load(0)["mask"]
    length = SIDE // 2
    corners = sum(4 for x in range(1, 11) for y in range(1, 11) if x**2 + y**2 <= length**2)
    assert wide.sum() == SIDE**2 + 4 * SIDE * length + corners
    assert corners == pytest.approx(math.pi * length**2 - 4 * length, rel=0.1)
    assert iou(wide, square()) == pytest.approx(SIDE**2 / wide.sum().item())


def test_a_square_gets_smaller_by_the_length_on_each_side_but_never_vanishes() -> None:
    assert NoisyMasks(Squares(), "eroded", 0.25).load(0)["mask"].sum() == (SIDE - 2 * 5) ** 2
    assert eroded(square(), 100).sum() == 4, "the innermost pixels"


def test_a_square_moves_by_the_length_in_a_direction_of_its_own() -> None:
    noisy = NoisyMasks(Squares(), "shifted", 0.5)
    centres = []
    for index in range(9):
        mask = noisy.load(index)["mask"][0] > 0
        assert mask.sum() == SIDE**2
        centres.append((mask.nonzero().float().mean(0) - torch.tensor([29.5, 39.5])).tolist())
        assert math.hypot(*centres[-1]) == pytest.approx(0.5 * SIDE, abs=0.8)
    assert len({tuple(centre) for centre in centres}) > 5
    again, other = NoisyMasks(Squares(), "shifted", 0.5), NoisyMasks(Squares(), "shifted", 0.5, seed=1)
    assert torch.equal(again.load(3)["mask"], noisy.load(3)["mask"])
    assert not all(torch.equal(other.load(index)["mask"], noisy.load(index)["mask"]) for index in range(9))


def test_what_leaves_the_picture_is_lost() -> None:
    assert shifted(square(), right=40, down=0).sum() == 10 * SIDE
    assert shifted(square(), right=0, down=-60).sum() == 0


def test_the_box_of_a_disc_and_a_wider_one() -> None:
    rows, columns = torch.meshgrid(torch.arange(60), torch.arange(80), indexing="ij")
    disc = ((rows - 30) ** 2 + (columns - 40) ** 2 <= 100).float()[None]
    assert box_about(disc, 0).sum() == 21 * 21
    assert iou(box_about(disc, 0), disc) == pytest.approx(317 / 441), "so many points have whole coordinates"
    assert box_about(disc, 100).all()


def test_an_empty_mask_stays_empty() -> None:
    for change in (dilated, eroded, box_about):
        assert not change(torch.zeros(1, 5, 5), 3).any()


def test_a_share_of_the_images_gets_the_mask_of_another_one() -> None:
    class Numbered(Squares):
        def load(self, index):
            sample = super().load(index)
            sample["mask"] = tv_tensors.Image(torch.full((1, 60, 80 - index), index / 100))
            sample["image"] = tv_tensors.Image(torch.zeros(3, 60, 80 - index, dtype=torch.uint8))
            return sample

    noisy, givers = NoisyMasks(Numbered(), "exchanged", 0.5), {}
    for index in range(40):
        if noisy.source.load(index)["mask_valid"]:
            mask = noisy.load(index)["mask"]
            assert mask.shape == (1, 60, 80 - index)
            givers[index] = round(100 * mask.max().item())
    changed = {index: giver for index, giver in givers.items() if giver != index}
    assert 20 - 4 <= len(changed) <= 20, "half of forty, without those that have no mask"
    assert len(set(changed.values())) == len(changed), "nobody gives twice"
    everything = NoisyMasks(Numbered(), "exchanged", 1.0)
    assert all(round(100 * everything.load(index)["mask"].max().item()) != index for index in range(9))


def test_batches_have_the_wrong_masks() -> None:
    data = PriorDataModule(NoisyMasks(Squares(), "boxes", 0.5), image_size=40, augmentation="none")
    data.setup()
    sizes = {round(sample["mask"].sum().item()) for sample in data.datasets["train"]}
    assert sizes == {0, round((2 * SIDE) ** 2 * 40 * 40 / (60 * 80))}


@pytest.mark.parametrize(
    ("kind", "amount", "message"),
    [
        ("dilate", 0.1, "no mask noise 'dilate', did you mean 'dilated'?"),
        ("shifted", -1, "the amount of shifted masks is from 0 to inf, not -1"),
        ("exchanged", 1.5, "the amount of exchanged masks is from 0 to 1, not 1.5"),
    ],
)
def test_wrong_options_are_named(kind: Any, amount: float, message: str) -> None:
    with pytest.raises(PriorError) as caught:
        NoisyMasks(Squares(), kind, amount)
    assert message in str(caught.value)
