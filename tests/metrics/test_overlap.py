"""How generated classes overlap human ones."""

import math

import pytest
import torch
from torch import Tensor

from lightning_priors.metrics import LabelOverlap
from lightning_priors.metrics.mutual_information import adjusted_mutual_information


def overlap(choice: Tensor, human: Tensor, sub_classes: list[int]) -> dict[str, list[float]]:
    metric = LabelOverlap(sub_classes)
    for rows in torch.arange(len(choice)).split(7):
        metric.update(torch.eye(sum(sub_classes))[choice[rows]], human[rows])
    return metric.compute()


def test_the_same_division_under_other_names_is_one():
    choice = torch.arange(40) % 4
    human = torch.tensor([7, 3, 0, 5])[choice, None]
    result = overlap(choice, human, [2, 2])
    assert result["all"] == pytest.approx([1.0])
    assert result["within"] == pytest.approx([1.0])


def test_sub_classes_by_chance_get_zero_within_though_not_over_all():
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(2, (2000,), generator=generator)
    choice = 3 * label + torch.randint(3, (2000,), generator=generator)
    human = 4 * label + torch.randint(4, (2000,), generator=generator)
    result = overlap(choice, human[:, None], [3, 3])
    assert result["all"][0] > 0.3
    assert result["within"][0] == pytest.approx(0, abs=0.005)


def test_within_is_the_mean_over_the_classes_that_the_task_divides():
    """Class 0 has one human class, so there is nothing to find; of class 1 there are 20 and of class 2 10 images."""
    choice = torch.tensor([0, 1] * 5 + [2, 3] * 10 + [4, 5] * 5)
    human = torch.tensor([0] * 10 + [1] * 10 + [2] * 10 + [3, 4] * 5)
    first = float(adjusted_mutual_information(torch.tensor([[5, 5], [5, 5]])))
    result = overlap(choice, human[:, None], [2, 2, 2])
    assert result["within"] == pytest.approx([(20 * first + 10 * 1.0) / 30])


def test_images_without_a_human_label_do_not_count_and_tasks_are_told_apart():
    choice = torch.arange(40) % 4
    known = torch.where(torch.arange(40) < 20, choice, -1)
    result = overlap(choice, torch.stack([known, torch.full_like(choice, -1), 0 * choice], 1), [2, 2])
    assert result["all"][0] == pytest.approx(1)
    assert math.isnan(result["all"][1])
    assert math.isnan(result["within"][1])
    assert result["all"][2] == 0
    assert math.isnan(result["within"][2])
