"""What holds exactly between class activation maps, logits and log-odds."""

import pytest
import torch

from lightning_priors.functional.cam import class_activation_map, evidence_map, logits_from_cam, signed_cam


def random_head(classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(4, 6, 5, 3, dtype=torch.float64, generator=generator)
    weight = torch.randn(classes, 6, dtype=torch.float64, generator=generator)
    bias = torch.randn(classes, dtype=torch.float64, generator=generator)
    return features, weight, bias


@pytest.mark.parametrize("classes", [1, 2, 9])
def test_mean_of_the_cam_plus_bias_is_the_logit_of_pooling_then_linear(classes):
    features, weight, bias = random_head(classes)
    pooled = features.mean((2, 3)) @ weight.T + bias
    torch.testing.assert_close(logits_from_cam(class_activation_map(features, weight), bias), pooled)


def test_mean_of_the_signed_cam_plus_the_biases_is_the_log_odds():
    features, weight, bias = random_head(2)
    cam = class_activation_map(features, weight)
    probability = logits_from_cam(cam, bias).softmax(1)
    log_odds = torch.log(probability[:, 1] / probability[:, 0])
    torch.testing.assert_close(signed_cam(cam).mean((1, 2)) + bias[1] - bias[0], log_odds)


def test_evidence_of_two_classes_is_the_signed_cam_turned_to_the_label():
    features, weight, _ = random_head(2)
    cam, label = class_activation_map(features, weight), torch.tensor([0, 1, 1, 0])
    sign = (2 * label - 1)[:, None, None]
    torch.testing.assert_close(evidence_map(cam, label), sign * signed_cam(cam))


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_evidence_does_not_change_when_all_classes_gain_the_same_map(classes):
    features, weight, _ = random_head(classes)
    cam, label = class_activation_map(features, weight), torch.arange(4) % classes
    common = torch.randn(4, 1, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(evidence_map(cam + common, label), evidence_map(cam, label))


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_evidence_for_all_classes_adds_up_to_zero(classes):
    features, weight, _ = random_head(classes)
    cam = class_activation_map(features, weight)
    total = sum(evidence_map(cam, torch.full((4,), label)) for label in range(classes))
    torch.testing.assert_close(total, torch.zeros_like(total))


def test_the_cam_passes_gradients_to_features_and_weight():
    features, weight, _ = random_head(3)
    assert torch.autograd.gradcheck(class_activation_map, (features.requires_grad_(), weight.requires_grad_()))
