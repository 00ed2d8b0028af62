import math

import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy

from lightning_priors.metrics import GroupAccuracy, GroupAdjustedAccuracy, WorstClassAccuracy, WorstGroupAccuracy


def test_accuracy_of_each_group_agrees_with_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(200, 3, generator=generator)
    target, group = (torch.randint(0, high, (200,), generator=generator) for high in (3, 5))
    each, worst = GroupAccuracy(num_groups=5), WorstGroupAccuracy()
    for rows in torch.arange(200).split(64):
        each.update(scores[rows], target[rows], group[rows])
        worst.update(scores[rows], target[rows], group[rows])
    reference = torch.stack(
        [multiclass_accuracy(scores[group == g], target[group == g], 3, average="micro") for g in range(5)]
    )
    torch.testing.assert_close(each.compute(), reference)
    torch.testing.assert_close(worst.compute(), reference.min())


def test_classes_and_scores_are_both_taken():
    scores, target, group = torch.eye(3), torch.tensor([0, 1, 0]), torch.tensor([0, 1, 1])
    by_scores, by_classes = GroupAccuracy(2), GroupAccuracy(2)
    by_scores.update(scores, target, group)
    by_classes.update(scores.argmax(1), target, group)
    assert by_scores.compute().tolist() == by_classes.compute().tolist() == [1.0, 0.5]


def test_a_group_always_wrong_is_the_worst():
    metric = WorstGroupAccuracy(num_groups=2)
    metric.update(torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([0, 1]))
    assert metric.compute() == 0


def test_groups_that_never_occur_do_not_count():
    metric = WorstGroupAccuracy(num_groups=10)
    metric.update(torch.tensor([1]), torch.tensor([1]), torch.tensor([7]))
    assert metric.compute() == 1


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")  # torchmetrics warns of exactly this case
def test_nothing_seen_is_nan():
    assert WorstGroupAccuracy().compute().isnan()
    assert GroupAccuracy(2).compute().isnan().all()


def test_a_group_out_of_range_is_an_error():
    with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)"):
        GroupAccuracy(2).update(torch.tensor([0]), torch.tensor([0]), torch.tensor([2]))


def test_reset_forgets():
    metric = WorstGroupAccuracy()
    metric.update(torch.tensor([0]), torch.tensor([1]), torch.tensor([0]))
    metric.reset()
    metric.update(torch.tensor([1]), torch.tensor([1]), torch.tensor([1]))
    assert metric.compute() == 1


def test_the_worst_class_agrees_with_torchmetrics():
    generator = torch.Generator().manual_seed(1)
    scores, target = torch.randn(90, 4, generator=generator), torch.randint(0, 4, (90,), generator=generator)
    metric = WorstClassAccuracy()
    metric.update(scores, target)
    torch.testing.assert_close(metric.compute(), multiclass_accuracy(scores, target, 4, average="none").min())


def test_adjusted_accuracy_is_the_accuracy_on_images_that_occur_as_often_as_in_training():
    """Drawn from the same groups in the shares of the training, images have that accuracy."""
    group = torch.arange(4).repeat_interleave(5)
    right = torch.arange(20) % 5 < group + 1  # 20, 40, 60 and 80 %
    metric = GroupAdjustedAccuracy()
    metric.update(right.long(), torch.ones(20, dtype=torch.long), group)
    metric.counts = [7, 0, 2, 1]
    drawn = torch.cat([right[group == number].repeat(count) for number, count in enumerate(metric.counts)])
    torch.testing.assert_close(metric.compute(), drawn.float().mean())


def test_groups_of_the_training_that_are_not_evaluated_have_no_weight():
    found = []
    for counts in ([1, 100, 3], [0, 5]):
        metric = GroupAdjustedAccuracy()
        metric.update(torch.tensor([1, 0]), torch.tensor([1, 1]), torch.tensor([0, 2]))
        metric.counts = counts
        found.append(metric.compute().item())
    assert found[0] == 0.25
    assert math.isnan(found[1])
