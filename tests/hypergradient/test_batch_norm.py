"""The derivative of batch normalisation against torch's own."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from lightning_priors.hypergradient.batch_norm import LeanBatchNorm
from lightning_priors.hypergradient.forward_mode import load_forward_rules

SHAPES = {1: (8, 3), 2: (4, 3, 5, 6), 3: (4, 3, 2, 5, 3)}
KINDS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def derivative(network: nn.Module, x: torch.Tensor, moving: set[str], lean: bool):
    """Value and derivative along a random direction of what is named."""
    generator = torch.Generator().manual_seed(1)
    point = {"x": x, **{name: p.detach() for name, p in network.named_parameters()}}
    draws = {name: torch.randn(p.shape, generator=generator, dtype=p.dtype) for name, p in point.items()}
    buffers = {name: b.clone() for name, b in network.named_buffers()}
    load_forward_rules()
    with torch.no_grad(), forward_ad.dual_level():
        duals = {n: forward_ad.make_dual(p, draws[n]) if n in moving else p for n, p in point.items()}
        moved = duals.pop("x")
        if lean:
            with LeanBatchNorm():
                out = torch.func.functional_call(network, duals | buffers, (moved,))
        else:
            out = torch.func.functional_call(network, duals | buffers, (moved,))
        return [None if part is None else part.clone() for part in forward_ad.unpack_dual(out)]


@pytest.mark.parametrize("moving", [["x"], ["weight"], ["bias"], ["x", "weight", "bias"], []], ids=str)
@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_it_is_that_of_torch(dimensions, moving, training):
    generator = torch.Generator().manual_seed(0)
    network = KINDS[dimensions](3).double().train(training)
    network.weight.data, network.bias.data = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    x = 3 + 2 * torch.randn(SHAPES[dimensions], generator=generator, dtype=torch.float64)
    value, tangent = derivative(network, x, moving, lean=True)
    expected, expected_tangent = derivative(network, x, moving, lean=False)
    torch.testing.assert_close(value, expected)
    if not moving:
        assert tangent is None
    else:
        torch.testing.assert_close(tangent, expected_tangent)


@pytest.mark.parametrize("options", [{"affine": False}, {"track_running_stats": False}], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_without_weights_or_running_statistics(options, training):
    network = nn.BatchNorm2d(3, **options).double().train(training)
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for ours, theirs in zip(derivative(network, x, {"x"}, True), derivative(network, x, {"x"}, False), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_channels_last():
    network = nn.BatchNorm2d(3).double()
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, expected = derivative(network, x, {"x", "weight"}, lean=False)
    _, tangent = derivative(network, x.contiguous(memory_format=torch.channels_last), {"x", "weight"}, lean=True)
    torch.testing.assert_close(tangent, expected)


def test_a_far_off_mean_costs_no_accuracy():
    x = 100 + torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    _, exact = derivative(nn.BatchNorm2d(3).double(), x.double(), {"weight", "bias"}, lean=False)
    _, tangent = derivative(nn.BatchNorm2d(3).double(), x.double(), {"weight", "bias"}, lean=True)
    torch.testing.assert_close(tangent, exact)
    ours, theirs = (derivative(nn.BatchNorm2d(3), x, {"x"}, lean)[1] for lean in (True, False))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
