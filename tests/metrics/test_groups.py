import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy

from lightning_priors.metrics import GroupAccuracy, WorstGroupAccuracy


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
