"""Forward-mode passes that take the results of convolutions from an earlier pass."""

import pytest
import timm
import torch
import torch.nn.functional as F
from gradients import random_gradients
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_priors.functional.directional import forward_mode
from lightning_priors.functional.kept_convolutions import KeptConvolutions, displaced_tangent, rounds_convolutions


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def derivative(
    network: nn.Module, image: torch.Tensor, kept: KeptConvolutions | None, displaced: bool = False
) -> torch.Tensor:
    """Along a direction that is the same each time."""
    point, along = dict(network.named_parameters()), random_gradients(network, 1)
    point = {name: value.detach() for name, value in point.items()}
    buffers = dict(network.named_buffers())
    return forward_mode(network, point, buffers, (image,), lambda y: y, along, kept, displaced)


def both_ways(network: nn.Module, image: torch.Tensor, kept: KeptConvolutions) -> list[torch.Tensor]:
    """The derivative with the convolutions that were kept, and without."""
    return [derivative(network, image, kept), derivative(network, image, None)]


def keep(network: nn.Module, image: torch.Tensor) -> KeptConvolutions:
    kept = KeptConvolutions()
    with kept:
        network(image)
    return kept


class Convolutions(nn.Module):
    """All kinds: of one to three dimensions, with and without bias, stride, groups, padding by name, by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.second = nn.Conv2d(8, 8, 3, groups=4, dilation=2, padding="same", bias=False)
        self.line = nn.Conv1d(8, 6, 5)
        self.space = nn.Conv3d(1, 2, (1, 1, 3))
        self.weight = nn.Parameter(torch.randn(4, 2, 1, 1))
        self.frozen = nn.Conv2d(4, 4, 1).requires_grad_(False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(image).relu()).relu()
        x = self.line(x.flatten(2)).relu()
        x = self.space(x[:, None, None]).tanh()[:, :, 0]
        return self.frozen(F.conv2d(input=x, weight=self.weight, bias=None)).flatten(1)


def test_all_kinds_of_convolutions() -> None:
    network, image = Convolutions().double(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    kept = keep(network, image)
    assert len(kept.results) == 6
    left, right = both_ways(network, image, kept)
    torch.testing.assert_close(left, right, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ["vgg11_bn", "resnet18", "mobilenetv2_050", "convnext_atto", "test_vit"])
def test_networks_of_timm(name: str) -> None:
    options = {"img_size": 32} if name == "test_vit" else {}
    network, image = timm.create_model(name, num_classes=3, **options), torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(*both_ways(network, image, keep(network, image)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-6), (torch.float32, 3e-3)])
def test_displaced_convolutions_of_all_kinds(dtype: torch.dtype, error: float) -> None:
    """Near the derivative, and not the derivative itself, which would mean that nothing was displaced."""
    network, image = Convolutions().to(dtype), torch.randn(2, 3, 8, 8, dtype=dtype)
    kept = keep(network, image)
    near, exact = derivative(network, image, kept, displaced=True), derivative(network, image, kept)
    assert 0 < (near - exact).norm() < error * exact.norm()


@pytest.mark.parametrize("name", ["vgg11_bn", "resnet18", "mobilenetv2_050", "convnext_atto", "test_vit"])
def test_displaced_convolutions_of_networks_of_timm(name: str) -> None:
    """However many layers lie behind each other: rectifiers and pools have their own derivatives, and no kinks."""
    options = {"img_size": 32} if name == "test_vit" else {}
    network = timm.create_model(name, num_classes=3, **options).double()
    image = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    kept = keep(network, image)
    near, exact = derivative(network, image, kept, displaced=True), derivative(network, image, kept)
    assert (near - exact).norm() < 1e-6 * exact.norm()


def test_a_displaced_derivative_costs_one_convolution_for_each_of_the_network() -> None:
    """The first one too: its input does not move, so that it has one alone, and is exact."""
    network, image = timm.create_model("resnet18", num_classes=0), torch.randn(2, 3, 32, 32)
    kept = keep(network, image)
    spent = []
    for make in (lambda: network(image), *(lambda d=d: derivative(network, image, kept, d) for d in (True, False))):
        with FlopCounterMode(display=False) as counter:
            make()
        spent.append(counter.get_flop_counts()["Global"][torch.ops.aten.convolution])
    assert spent[0] == spent[1] < spent[2] / 1.9


@pytest.mark.parametrize("still", ["w", "dw", "dx", "all"])
def test_displacing_what_is_zero(still: str) -> None:
    parts = {name: torch.randn(3, 3, dtype=torch.float64) for name in ("x", "w", "dx", "dw")}
    for name in parts if still == "all" else [still]:
        parts[name] = torch.zeros(3, 3, dtype=torch.float64)
    exact = parts["dx"] @ parts["w"] + parts["x"] @ parts["dw"]
    torch.testing.assert_close(
        displaced_tangent(torch.matmul, parts["x"] @ parts["w"], **parts), exact, atol=1e-6, rtol=1e-6
    )


def test_a_convolution_that_was_kept_is_not_made_again() -> None:
    """Its result counts even where it is wrong."""
    network, image = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Sigmoid()).double(), torch.randn(2, 3, 2, 2).double()
    kept = keep(network, image)
    kept.results[0] = (torch.full_like(kept.results[0][0], 50.0), 0)
    left, right = both_ways(network, image, kept)
    assert left.abs().max() < 1e-20 < right.abs().max(), "the sigmoid of 50 is flat"


class DoubledInPlace(nn.Module):
    """Of what is doubled in place, unlike of a rectifier, the convolution's result cannot be read off any more."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.convolution(image).mul_(2).sin()


def test_what_was_changed_in_place_is_computed_anew() -> None:
    network, image = DoubledInPlace().double(), torch.randn(2, 3, 5, 5).double()
    left, right = both_ways(network, image, keep(network, image))
    assert torch.equal(left, right)
    assert right.abs().max() > 0


@pytest.mark.parametrize("moving", ["0.bias", "0.weight", "1.bias", "1.weight"])
def test_a_direction_in_which_one_tensor_alone_moves(moving: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1), nn.Tanh()).double()
    image = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    kept, point = keep(network, image), {name: value.detach() for name, value in network.named_parameters()}
    along = {moving: torch.randn_like(point[moving])}
    left, right = [forward_mode(network, point, {}, (image,), lambda y: y, along, k) for k in (kept, None)]
    torch.testing.assert_close(left, right, rtol=1e-13, atol=1e-13)
    assert right.abs().max() > 0


def test_what_was_kept_in_half_precision_is_computed_anew() -> None:
    network, image = nn.Conv2d(3, 8, 3), torch.randn(2, 3, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        kept = keep(network, image)
    assert kept.results[0][0].dtype == torch.bfloat16
    left, right = both_ways(network, image, kept)
    assert left.dtype == torch.float32
    torch.testing.assert_close(left, right)


@pytest.mark.parametrize("allowed", [True, False])
def test_gpus_round_convolutions_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch, allowed: bool) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    assert rounds_convolutions("cuda") is allowed
    assert rounds_convolutions("cpu") is False
