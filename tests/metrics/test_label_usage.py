import math

import pytest
import torch
from scipy.stats import entropy

from lightning_priors.metrics import LabelUsage


def generated(sub_classes: list[int], images: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, len(sub_classes), (images,), generator=generator)
    owner = torch.repeat_interleave(torch.arange(len(sub_classes)), torch.tensor(sub_classes))
    logits = torch.randn(images, sum(sub_classes), generator=generator)
    return logits.masked_fill(owner != label[:, None], -math.inf).softmax(1), label


def test_by_hand():
    usage = LabelUsage(sub_classes=[2, 3])
    labels = torch.tensor([[0.9, 0.1, 0, 0, 0], [0.2, 0.8, 0, 0, 0], [0, 0, 0.25, 0.75, 0], [0, 0, 0.25, 0.75, 0]])
    usage.update(labels, torch.tensor([0, 0, 1, 1]))
    result = usage.compute()
    assert result["used"].tolist() == [2, 1]
    torch.testing.assert_close(result["confidence"], torch.tensor([0.85, 0.75]))
    expected = [entropy([0.55, 0.45]) / math.log(2), entropy([0.25, 0.75]) / math.log(3)]
    torch.testing.assert_close(result["entropy"], torch.tensor(expected, dtype=torch.float32))


def test_information_is_that_of_the_joint_distribution():
    """Of image and sub-class within a class, by its definition; and its three extremes."""
    labels, label = generated([3, 5], 40)
    usage = LabelUsage([3, 5])
    usage.update(labels, label)
    for primary, (first, psi) in enumerate([(0, 3), (3, 5)]):
        joint = labels[label == primary, first : first + psi].double()
        joint = joint / joint.sum()
        independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
        bits = float((joint * (joint / independent).log2()).sum())
        assert float(usage.compute()["information"][primary]) == pytest.approx(bits, abs=1e-5)
        assert float(usage.compute()["information_share"][primary]) == pytest.approx(bits / math.log2(psi), abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "information", "surety"),
    [(torch.full((4, 4), 0.25), 0.0, 0.0), (torch.eye(4)[[2] * 4], 0.0, 1.0), (torch.eye(4), 1.0, 1.0)],
)
def test_uniform_constant_and_perfect_labels(labels, information, surety):
    usage = LabelUsage([4])
    usage.update(labels, torch.zeros(4, dtype=torch.int64))
    assert float(usage.compute()["information_share"]) == pytest.approx(information)
    assert float(usage.compute()["information"]) == pytest.approx(2 * information)
    assert float(usage.compute()["surety"]) == pytest.approx(surety)


def test_batches_add_up():
    labels, label = generated([2, 3, 4], 60)
    whole, parts = LabelUsage([2, 3, 4]), LabelUsage([2, 3, 4])
    whole.update(labels, label)
    for rows in torch.arange(60).split(7):
        parts.update(labels[rows], label[rows])
    for name, values in whole.compute().items():
        torch.testing.assert_close(parts.compute()[name], values)


@pytest.mark.parametrize(("min_share", "used"), [(0.01, 2), (0.3, 1)])
def test_a_rare_sub_class_is_not_in_use(min_share, used):
    usage = LabelUsage([3, 2], min_share)
    usage.update(torch.eye(5)[[0, 0, 0, 0, 1, 4]], torch.tensor([0, 0, 0, 0, 0, 1]))
    assert usage.compute()["used"].tolist() == [used, 1]


def test_extremes_of_entropy():
    usage = LabelUsage([4, 4, 1])
    labels = torch.zeros(3, 9)
    labels[0, :4], labels[1, 4], labels[2, 8] = 0.25, 1, 1
    usage.update(labels, torch.tensor([0, 1, 2]))
    torch.testing.assert_close(usage.compute()["entropy"], torch.tensor([1.0, 0.0, 1.0]))


def test_classes_that_never_occur_are_nan():
    usage = LabelUsage([2, 2])
    usage.update(torch.tensor([[0.5, 0.5, 0, 0]]), torch.tensor([0]))
    for name, values in usage.compute().items():
        of_subclasses = name in ("share", "probability")
        assert values.isnan().tolist() == ([False, False, True, True] if of_subclasses else [False, True])
