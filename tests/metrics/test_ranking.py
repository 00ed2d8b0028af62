"""AUROC and average precision against torchmetrics and by hand, also where probabilities round."""

import pytest
import torch
from torchmetrics.functional.classification import multiclass_auroc, multiclass_average_precision

from lightning_priors.metrics import AUROC, AveragePrecision
from lightning_priors.metrics.ranking import log_odds

BOTH = [(AUROC, multiclass_auroc), (AveragePrecision, multiclass_average_precision)]


def value(metric, logits, target):
    metric = metric()
    for rows in torch.arange(len(target)).split(7):
        metric.update(logits[rows], target[rows])
    return metric.compute()


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize(("metric", "reference"), BOTH)
def test_agrees_with_torchmetrics(metric, reference, classes):
    generator = torch.Generator().manual_seed(classes)
    logits = (torch.randn(50, classes, generator=generator) * 4).round() / 4  # some are equal, exactly
    target = torch.randint(0, classes, (50,), generator=generator)
    torch.testing.assert_close(value(metric, logits, target), reference(logits, target, classes))


@pytest.mark.parametrize("metric", [AUROC, AveragePrecision])
def test_scores_far_out_are_still_ranked(metric):
    """Their probabilities are all 1 in single precision, where half of the pairs would count as equal."""
    logits = torch.stack([torch.zeros(4), torch.tensor([100.0, 200.0, 300.0, 400.0])], 1)
    assert value(metric, logits, torch.tensor([0, 0, 1, 1])) == 1
    assert value(AUROC, logits, torch.tensor([1, 1, 0, 0])) == 0


def test_a_monotone_change_of_the_logits_and_their_order_change_nothing():
    generator = torch.Generator().manual_seed(0)
    score, target = torch.randn(40, generator=generator), torch.randint(0, 2, (40,), generator=generator)
    logits = torch.stack([torch.zeros(40), score], 1)
    order = torch.randperm(40, generator=generator)
    for metric in (AUROC, AveragePrecision):
        expected = value(metric, logits, target)
        torch.testing.assert_close(value(metric, 5 * logits**3 + 2, target), expected)
        torch.testing.assert_close(value(metric, logits[order], target[order]), expected)


def test_classes_that_never_occur_are_left_out_and_one_class_alone_has_no_ranking():
    logits = torch.eye(3)[[0, 1, 0, 1]]
    assert value(AUROC, logits, torch.tensor([0, 1, 0, 1])) == 1
    assert value(AUROC, logits, torch.zeros(4, dtype=torch.long)).isnan()


def test_log_odds_are_exact_on_both_sides():
    logits = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 300
    expected = torch.stack(
        [logits[:, k] - logits[:, [j for j in range(4) if j != k]].logsumexp(1) for k in range(4)], 1
    )
    torch.testing.assert_close(log_odds(logits), expected)
