import math

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import entropy
from torch.autograd import gradcheck

from lightning_priors.functional.focal import per_class_losses
from lightning_priors.hypergradient.forward_mode import load_forward_rules
from lightning_priors.techniques.maxl.soft_labels import (
    hierarchy,
    hierarchy_mask,
    label_entropy,
    masked_softmax,
    sinkhorn,
    soft_label_loss,
)

SUB_CLASSES = [2, 4, 1]
load_forward_rules()


def masks(images: int = 12) -> torch.Tensor:
    return hierarchy_mask(SUB_CLASSES)[torch.arange(images) % 3]


def random_logits(images: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.randn(images, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_hierarchy_of_one_number_and_of_a_list():
    assert hierarchy(5, 2) == [5, 5]
    assert hierarchy([1, 3], 2) == [1, 3]


@pytest.mark.parametrize(
    ("psi", "said"), [([1, 2, 3], "gives 3 numbers, but there are 2 primary classes"), ([2, 0], "at least one")]
)
def test_hierarchy_refuses_what_does_not_fit(psi, said):
    with pytest.raises(ValueError, match=said):
        hierarchy(psi, 2)


def test_each_sub_class_has_one_primary_class():
    mask = hierarchy_mask(SUB_CLASSES)
    assert mask.sum(0).tolist() == [1] * 7
    assert mask.sum(1).tolist() == SUB_CLASSES


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_masked_softmax_is_the_softmax_of_the_sub_classes_alone(temperature):
    logits, mask = random_logits(), masks()
    labels = masked_softmax(logits, mask, temperature)
    for image in range(12):
        expected = (logits[image][mask[image]] / temperature).softmax(0)
        torch.testing.assert_close(labels[image][mask[image]], expected)
    assert not labels[~mask].any()


@pytest.mark.parametrize("size", [1e4, 3e4])
def test_masked_softmax_of_huge_logits_in_half_precision(size):
    logits = (size * random_logits().clamp(-2, 2)).half().requires_grad_()
    labels = masked_softmax(logits, masks())
    assert labels.dtype == torch.float32
    torch.testing.assert_close(labels.sum(1), torch.ones(12))
    labels[:, 0].sum().backward()
    assert logits.grad.isfinite().all()


def test_gradients_of_the_labels():
    logits = random_logits(4).requires_grad_()
    assert gradcheck(lambda z: masked_softmax(z, masks(4), 0.7), logits)
    assert gradcheck(lambda z: sinkhorn(z, masks(4), 0.7, iterations=3), logits)


@pytest.mark.parametrize("labels_of", [masked_softmax, sinkhorn])
def test_the_temperature_must_be_positive(labels_of):
    with pytest.raises(ValueError, match="positive number"):
        labels_of(random_logits(), masks(), temperature=0.0)


def test_sinkhorn_balances_within_each_primary_class():
    mask = masks()
    labels = sinkhorn(2 * random_logits(), mask, iterations=300)
    torch.testing.assert_close(labels.sum(1), torch.ones(12, dtype=torch.float64))
    expected = torch.tensor([2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 4.0], dtype=torch.float64)  # 4 images of each class
    torch.testing.assert_close(labels.sum(0), expected, rtol=1e-4, atol=1e-4)
    assert not labels[~mask].any()


def test_sinkhorn_undoes_a_collapse():
    logits = torch.zeros(8, 4)
    logits[:, 0] = 50.0
    labels = sinkhorn(logits, torch.ones(8, 4, dtype=torch.bool), iterations=1)
    torch.testing.assert_close(labels, torch.full((8, 4), 0.25))


def test_sinkhorn_keeps_the_order_of_images_within_a_sub_class():
    logits = torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    labels = sinkhorn(logits, torch.ones(3, 2, dtype=torch.bool), iterations=10)
    assert labels[0, 0] > labels[1, 0] > labels[2, 0]


def test_sinkhorn_without_images_of_a_primary_class():
    logits = random_logits(5).requires_grad_()
    labels = sinkhorn(logits, hierarchy_mask(SUB_CLASSES)[torch.zeros(5, dtype=torch.long)])
    torch.testing.assert_close(labels.sum(1), torch.ones(5, dtype=torch.float64))
    (labels**2).sum().backward()
    assert logits.grad.isfinite().all()


def test_losses_with_hard_labels_are_cross_entropy():
    logits, label = random_logits(), torch.arange(12) % 7
    loss = soft_label_loss(per_class_losses(logits, gamma=0), F.one_hot(label, 7))
    torch.testing.assert_close(loss, F.cross_entropy(logits, label))


def test_losses_with_soft_labels_are_cross_entropy():
    logits, labels = random_logits(), random_logits(seed=1).softmax(1)
    torch.testing.assert_close(
        soft_label_loss(per_class_losses(logits, gamma=0), labels), F.cross_entropy(logits, labels)
    )


def test_focal_losses_by_hand():
    probability = torch.tensor([[0.9, 0.1]])
    expected = torch.tensor([[-(0.1**2) * math.log(0.9), -(0.9**2) * math.log(0.1)]])
    torch.testing.assert_close(per_class_losses(probability.log(), gamma=2.0), expected)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 2.5])
def test_gradients_of_the_losses(gamma):
    assert gradcheck(lambda z: per_class_losses(z, gamma), random_logits(3).requires_grad_(), check_forward_ad=True)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_certain_predictions_have_finite_losses_and_gradients(gamma):
    logits = torch.tensor([[200.0, 0.0, -200.0]], requires_grad=True)
    losses = per_class_losses(logits, gamma)
    assert losses[0, 0] == 0
    losses.sum().backward()
    assert losses.isfinite().all()
    assert logits.grad.isfinite().all()


def test_losses_of_half_precision_are_float32():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert per_class_losses(torch.zeros(1, 2, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize("gamma", [-1.0, 0.5])
def test_gamma_without_a_finite_slope_is_refused(gamma):
    with pytest.raises(ValueError, match="gamma is 0"):
        per_class_losses(torch.zeros(1, 2), gamma)


def test_label_entropy_agrees_with_scipy():
    mean_label = random_logits().softmax(1).mean(0)
    assert label_entropy(mean_label).item() == pytest.approx(-entropy(mean_label.numpy()))


def test_label_entropy_is_least_for_even_labels_and_zero_for_one_sub_class():
    assert label_entropy(torch.full((4,), 0.25)).item() == pytest.approx(-math.log(4))
    assert label_entropy(torch.tensor([0.0, 1.0, 0.0])) == 0


def test_entropy_of_a_batch_without_some_primary_class_has_a_finite_gradient():
    logits = random_logits(3).requires_grad_()
    mask = hierarchy_mask(SUB_CLASSES)[torch.tensor([0, 0, 1])]
    assert gradcheck(lambda z: label_entropy(masked_softmax(z, mask).mean(0)), logits)
