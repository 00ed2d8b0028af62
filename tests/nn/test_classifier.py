"""The class activation map and the logits of every backbone are one and the same."""

import pytest
import torch

from lightning_priors.nn import CAMHead, Classifier

BACKBONES = [
    "tiny",
    "resnet18",
    "tf_efficientnet_lite0",
    "convnext_atto",
    "mobilenetv3_small_100",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
]


@pytest.mark.parametrize("name", BACKBONES)
def test_mean_of_the_map_plus_bias_is_the_logit(name: str) -> None:
    torch.manual_seed(0)
    classifier = Classifier(num_classes=3, backbone=name).double().eval()
    torch.nn.init.normal_(classifier.head.bias)
    logits, cam = classifier(torch.randn(2, 3, 96, 128, dtype=torch.float64))
    assert cam.shape[:2] == (2, 3)
    assert cam.shape[2] * 4 == cam.shape[3] * 3, "the map has the image's aspect ratio"
    torch.testing.assert_close(cam.mean((2, 3)) + classifier.head.bias, logits, rtol=0, atol=1e-12)


def test_head_equals_global_average_pooling_and_a_linear_layer() -> None:
    torch.manual_seed(0)
    head = CAMHead(16, 5).double()
    linear = torch.nn.Linear(16, 5).double()
    with torch.no_grad():
        linear.weight.copy_(head.weight)
        linear.bias.copy_(torch.nn.init.normal_(head.bias))
    features = torch.randn(4, 16, 7, 3, dtype=torch.float64)
    torch.testing.assert_close(head(features)[0], linear(features.mean((2, 3))))


def test_signed_map_of_two_classes_is_the_log_odds() -> None:
    torch.manual_seed(0)
    classifier = Classifier(num_classes=2).double().eval()
    torch.nn.init.normal_(classifier.head.bias)
    logits, cam = classifier(torch.randn(3, 3, 64, 64, dtype=torch.float64))
    probability = logits.softmax(1)[:, 1]
    bias = classifier.head.bias
    log_odds = (cam[:, 1] - cam[:, 0]).mean((1, 2)) + bias[1] - bias[0]
    torch.testing.assert_close(log_odds, torch.logit(probability))


def test_flipping_the_features_flips_the_map_and_keeps_the_logits() -> None:
    torch.manual_seed(0)
    head = CAMHead(8, 2).double()
    features = torch.randn(1, 8, 4, 6, dtype=torch.float64)
    logits, cam = head(features)
    flipped_logits, flipped_cam = head(features.flip(-1))
    torch.testing.assert_close(flipped_logits, logits)
    torch.testing.assert_close(flipped_cam, cam.flip(-1))


def test_a_cell_of_the_tiny_network_sees_its_own_neighbourhood_alone() -> None:
    torch.manual_seed(0)
    backbone = Classifier(num_classes=2).backbone.eval()
    image = torch.randn(1, 3, 64, 64, requires_grad=True)
    (gradient,) = torch.autograd.grad(backbone(image)[0, :, 4, 4].sum(), image)
    rows, columns = gradient[0].abs().sum(0).nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (25, 39, 25, 39)
