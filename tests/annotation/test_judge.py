"""Judging against the truth, and which pictures count as unseen."""

from pathlib import Path

import pytest
import torch
from outlines import Corner, Half, save_birds

from lightning_priors.annotation.annotate import records
from lightning_priors.annotation.judge import Judge, judge_box, judge_mask
from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import Table


def test_a_perfect_mask_an_empty_one_and_a_wrong_one() -> None:
    truth = torch.zeros(4, 4)
    truth[1:3, 1:3] = 1
    assert judge_mask(truth, truth) == (1.0, 1.0)
    assert judge_mask(None, truth) == judge_mask(torch.zeros(4, 4), truth) == (0.0, 0.0)
    assert judge_mask(1 - truth, truth) == (0.0, 0.0)
    assert judge_mask(torch.ones(4, 4), truth) == pytest.approx((4 / 16, 4 / 16))
    assert judge_box([3, 3, 4, 4], torch.tensor([0.0, 0, 2, 2])) == (0.0, 0.0)


def test_hidden_pictures_are_unseen_and_the_others_shown(tmp_path: Path) -> None:
    """The bright box has level 230 and the rest less than 120, so half of the level is its mask."""
    data = PriorDataModule(Table(str(save_birds(tmp_path / "birds", masks=8))), annotated_fraction=0.5, batch_size=4)
    data.setup()
    masks, boxes = Judge([], data.source.part_names), Judge(["head"], data.source.part_names)
    for record in records(data, Half(), ["train"], ask_all=True):
        masks.add(record)
    for record in records(data, Corner(), ["train"], ask_all=True):
        boxes.add(record)
    report = masks.report()
    assert {name: entry["count"] for name, entry in report.items()} == {"unseen": 3, "shown": 3}
    assert all(entry["iou"] == entry["pointing"] == 1.0 for entry in report.values())
    assert boxes.report() == {}, "the data has no box of a head"


def test_boxes_of_the_same_name_are_compared(tmp_path: Path) -> None:
    class Box(Corner):
        part_names = ("box",)

    data = PriorDataModule(Table(str(save_birds(tmp_path / "birds"))))
    data.setup()
    judge = Judge(["box"], data.source.part_names)
    for record in records(data, Box(), ["train", "val", "test"], ask_all=True):
        judge.add(record)
    # pictures 1, 3, 5, 7 have the box 1, 2, 9.5, 8; 1 and 5 are 24 x 48, so nothing is found; 3 and 7 are 50 x 20
    iou = 8.5 * 6 / (25 * 10)
    assert judge.report() == {
        "shown": {"count": 4, "iou": pytest.approx(iou / 2, abs=1e-4), "pointing": 0.0, "score_rank_correlation": None}
    }
