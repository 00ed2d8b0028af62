"""Derivatives along a direction in the space of the parameters."""

import copy

import pytest
import timm
import torch
from torch import nn

from lightning_priors.hypergradient.forward_mode import finite_difference, forward_mode, supports_forward_mode


def test_finite_difference_along_nothing_is_zero():
    network = nn.Linear(2, 2)
    zeros = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    point = {name: p.detach() for name, p in network.named_parameters()}
    assert not finite_difference(network, point, {}, (torch.ones(1, 2),), lambda y: y, zeros).any()


def test_losses_that_do_not_depend_on_the_direction_have_derivative_zero():
    network = nn.Linear(2, 2)
    point = {name: p.detach() for name, p in network.named_parameters()}
    assert not forward_mode(network, point, {}, (torch.ones(1, 2),), lambda y: y, {}).any()


@pytest.mark.parametrize(
    "name", ["resnet18", "tf_efficientnet_lite0", "convnext_atto", "mobilenetv3_small_100", "vit_tiny_patch16_224"]
)
def test_forward_mode_of_timm_networks(name):
    torch.manual_seed(0)
    size = {"img_size": 32} if name.startswith("vit") else {}
    network = timm.create_model(name, num_classes=3, **size).train()
    before = copy.deepcopy(network.state_dict())
    assert supports_forward_mode(network, (torch.randn(2, 3, 32, 32),))
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("training", [True, False])
def test_forward_mode_of_a_transformer_layer(training):
    """In eval mode it would take a fused path that has no forward-mode derivative."""
    network = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).train(training)
    assert torch.backends.mha.get_fastpath_enabled()
    assert supports_forward_mode(network, (torch.randn(2, 4, 8),))
    assert torch.backends.mha.get_fastpath_enabled()
