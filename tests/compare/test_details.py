"""What is measured of a run beside its row: counted by hand on answers that are known."""

from types import SimpleNamespace

import pytest
import torch

from lightning_priors.callbacks import BackgroundExchange
from lightning_priors.compare.details import _tested, background_columns, confusion, needs
from lightning_priors.explain.measure import Answers
from lightning_priors.techniques import GroupDRO, Pretrained

NOTHING = torch.full((6,), torch.nan)


def answers(predicted: list[int], label: list[int], group: list[int] | None) -> Answers:
    logits = torch.nn.functional.one_hot(torch.tensor(predicted), 2).float()
    groups = None if group is None else torch.tensor(group)
    nothing = torch.full((len(label),), torch.nan)
    return Answers(logits, torch.tensor(label), groups, nothing, nothing, nothing, nothing.isnan())


def test_answers_are_counted_by_class_and_group() -> None:
    said = answers([0, 1, 1, 1, 0, 1], [0, 0, 0, 1, 1, 1], [0, 0, 1, 2, 2, 3])
    assert confusion(said, ["kakapo", "other"], ["a", "b", "c", "d"]) == [
        {"class": "kakapo", "group": "a", "answers": [1, 1]},
        {"class": "kakapo", "group": "b", "answers": [0, 1]},
        {"class": "other", "group": "c", "answers": [1, 1]},
        {"class": "other", "group": "d", "answers": [0, 1]},
    ]
    assert confusion(answers([0, 1], [0, 0], None), ["kakapo", "other"], []) == [
        {"class": "kakapo", "group": "", "answers": [1, 1]}
    ]


def test_needs_are_those_of_technique_and_callbacks() -> None:
    assert needs(Pretrained(), []) == []
    assert needs(GroupDRO(), [BackgroundExchange()]) == ["groups", "masks or boxes or keypoints"]


@pytest.mark.parametrize(("limit", "expected"), [(1.0, 45), (0.5, 20), (2, 20), (9, 45)])
def test_as_many_images_are_asked_about_as_the_test_has(limit: float, expected: int) -> None:
    assert _tested(SimpleNamespace(limit_test_batches=limit), 45, 10) == expected  # type: ignore[arg-type]


def test_the_columns_about_backgrounds_are_taken_from_the_report() -> None:
    backgrounds = {"alone": {"accuracy": 0.5}, "exchanged": {"accuracy": 0.25}, "gap": {"mean": None}}
    assert background_columns({"test": {"backgrounds": backgrounds}}) == {
        "test/acc_alone": 0.5,
        "test/acc_exchanged": 0.25,
    }
