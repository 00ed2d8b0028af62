import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from gradients import assign, random_gradients
from torch import nn

from lightning_priors.functional.focal import per_class_losses
from lightning_priors.hypergradient import (
    InnerStep,
    RandomState,
    forward_mode,
    named_gradients,
    stepped_parameters,
    supports_forward_mode,
    unrolled_label_gradient,
)
from lightning_priors.techniques.maxl.soft_labels import masked_softmax, soft_label_loss


def norm_net(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)]
    return nn.Sequential(*layers).to(dtype)


def a_step(network: nn.Module, **options) -> tuple[InnerStep, dict[str, torch.Tensor]]:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    return InnerStep(network, optimizer, random_gradients(network, 0), **options), random_gradients(network, 1)


def test_looking_ahead_changes_neither_network_nor_optimiser():
    network = nn.Linear(3, 2, dtype=torch.float64)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.01)
    assign(network, random_gradients(network, 0))
    optimizer.step()
    before = copy.deepcopy((network.state_dict(), optimizer.state_dict()))
    stepped_parameters(network, optimizer, random_gradients(network, 1))
    InnerStep(network, optimizer).label_gradient((torch.ones(1, 3),), lambda y: y, random_gradients(network, 2))
    after = (network.state_dict(), optimizer.state_dict())
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_groups_have_their_own_rate_and_parameters_outside_are_constants():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    groups = [{"params": network[0].parameters(), "lr": 0.5}, {"params": network[2].parameters()}]
    step = InnerStep(network, torch.optim.SGD(groups, lr=0.1), random_gradients(network, 0))
    v = {name: torch.ones_like(p) for name, p in network.named_parameters()}
    direction = step.direction(v)
    assert set(direction) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert direction["0.weight"].unique().tolist() == pytest.approx([-0.5])
    assert direction["2.bias"].unique().tolist() == pytest.approx([-0.1])


def test_entries_that_never_had_a_gradient_do_not_move_under_adam():
    network = nn.Linear(3, 1, bias=False)
    gradient = torch.tensor([[1.0, 0.0, -2.0]])
    step = InnerStep(network, torch.optim.AdamW(network.parameters()), {"weight": gradient})
    direction = step.direction({"weight": torch.ones(1, 3)})["weight"]
    assert direction.isfinite().all()
    assert direction[0, 1] == 0


@pytest.mark.parametrize("optimizer", [torch.optim.RMSprop, torch.optim.NAdam])
def test_other_optimisers_are_refused(optimizer):
    network = nn.Linear(1, 1)
    with pytest.raises(TypeError, match=f"not for {optimizer.__name__}"):
        InnerStep(network, optimizer(network.parameters()))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("method", ["forward_mode", "finite_difference"])
def test_batch_norm_buffers_are_never_touched(training, method):
    network = norm_net().train(training)
    step, v = a_step(network)
    before = copy.deepcopy(dict(network.named_buffers()))
    step.label_gradient((torch.randn(4, 3, 8, 8),), lambda y: y, v, method)
    unrolled_label_gradient(
        network,
        torch.optim.SGD(network.parameters(), lr=0.1),
        (torch.randn(4, 3, 8, 8),),
        torch.rand(4, 4, dtype=torch.float64),
        lambda y, labels: (labels * y).mean(),
        (torch.randn(4, 3, 8, 8),),
        lambda y: (y**2).mean(),
    )
    torch.testing.assert_close(dict(network.named_buffers()), before, rtol=0, atol=0)


def test_in_eval_mode_the_statistics_are_those_of_the_step():
    network = norm_net().eval()
    network(torch.randn(8, 3, 8, 8, dtype=torch.float64))
    image = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    step, v = a_step(network)
    before = step.label_gradient((image,), lambda y: y, v)
    network[1].running_var.mul_(10)
    torch.testing.assert_close(step.label_gradient((image,), lambda y: y, v), before)


def test_the_derivative_is_taken_at_the_parameters_of_the_step():
    network = norm_net()
    image = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    step, v = a_step(network)
    before = step.label_gradient((image,), per_class_losses, v)
    for parameter in network.parameters():
        parameter.data.add_(1.0)
    torch.testing.assert_close(step.label_gradient((image,), per_class_losses, v), before)


def test_only_what_the_step_moves_is_copied():
    network = norm_net()
    gradients = {name: g for name, g in random_gradients(network, 0).items() if name.startswith("5")}
    step = InnerStep(network, torch.optim.SGD(network.parameters(), lr=0.1), gradients)
    copied = {n for n, p in network.named_parameters() if step.parameters[n].data_ptr() != p.data_ptr()}
    assert copied == {"5.weight", "5.bias"}


def test_gradients_of_the_parameters_stay_as_they_are():
    network = norm_net()
    assign(network, random_gradients(network, 5))
    step, v = a_step(network)
    step.label_gradient((torch.randn(4, 3, 8, 8),), per_class_losses, v)
    for name, gradient in random_gradients(network, 5).items():
        assert torch.equal(network.get_parameter(name).grad, gradient)


@pytest.mark.parametrize("method", ["forward_mode", "finite_difference"])
def test_dropout_draws_the_masks_of_the_step(method):
    """Against the same network with the masks of the step written in as constants."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 64), nn.Dropout(0.5), nn.Tanh(), nn.Linear(64, 3)).double()
    x = torch.randn(4, 5, dtype=torch.float64)
    state = RandomState(x.device)
    mask = F.dropout(torch.ones(4, 64, dtype=torch.float64), 0.5)
    step, v = a_step(network, random_state=state)
    drawn_before = torch.get_rng_state()
    value = step.label_gradient((x,), lambda y: y, v, method)
    assert torch.equal(torch.get_rng_state(), drawn_before)

    class WithMask(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network

        def forward(self, x):
            return self.net[3](torch.tanh(self.net[0](x) * mask))

    parameters = {f"net.{name}": p.detach() for name, p in network.named_parameters()}
    along = {f"net.{name}": u for name, u in step.direction(v).items()}
    reference = forward_mode(WithMask(), parameters, {}, (x,), lambda y: y, along) / 4
    torch.testing.assert_close(value, reference, rtol=1e-6, atol=1e-9)


def test_finite_difference_in_float32_is_near():
    network = norm_net(torch.float32)
    network[2] = nn.Tanh()
    step, v = a_step(network)
    image = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    exact = step.label_gradient((image,), per_class_losses, v)
    near = step.label_gradient((image,), per_class_losses, v, "finite_difference")
    assert ((near - exact).norm() / exact.norm()).item() < 0.02


class NoForwardMode(torch.autograd.Function):
    """Squares; it has a backward rule only."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class Squares(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2, dtype=torch.float64)

    def forward(self, x):
        return NoForwardMode.apply(self.linear(x))


def test_without_forward_mode_the_finite_difference_is_taken_and_said():
    torch.manual_seed(0)
    network, x = Squares(), torch.randn(4, 3, dtype=torch.float64)
    step, v = a_step(network)
    with pytest.warns(UserWarning, match="finite differences instead of forward mode"):
        value = step.label_gradient((x,), lambda y: y, v)
    reference, along = network.linear(x), step.direction(v)
    expected = 2 * reference * (x @ along["linear.weight"].T + along["linear.bias"]) / 4
    torch.testing.assert_close(value, expected.detach(), rtol=1e-6, atol=1e-8)
    assert not supports_forward_mode(network, (x,))


def test_asking_for_finite_differences_says_nothing():
    step, v = a_step(Squares())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step.label_gradient((torch.ones(1, 3),), lambda y: y, v, "finite_difference")


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(8), nn.GroupNorm(2, 8)], ids=["batch", "group"])
def test_channels_last_gives_the_same(norm):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    image = torch.randn(4, 3, 9, 9, dtype=torch.float64)
    step, v = a_step(network)
    expected = step.label_gradient((image,), per_class_losses, v)
    network.to(memory_format=torch.channels_last)
    step, v = a_step(network)
    value = step.label_gradient((image.contiguous(memory_format=torch.channels_last),), per_class_losses, v)
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_under_autocast_the_pass_is_made_in_float32(dtype):
    network = norm_net(torch.float32)
    image = torch.randn(4, 3, 8, 8).to(dtype)
    step, v = a_step(network)
    expected = step.label_gradient((image.float(),), per_class_losses, v)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = step.label_gradient((image,), per_class_losses, v)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)


def test_named_gradients_leave_out_what_the_loss_does_not_depend_on():
    network = nn.ModuleDict({"used": nn.Linear(1, 1), "unused": nn.Linear(1, 1), "frozen": nn.Linear(1, 1)})
    network["frozen"].requires_grad_(False)
    loss = network["frozen"](network["used"](torch.ones(1, 1))).sum()
    parameters = dict(network.named_parameters())
    assert set(named_gradients(loss, parameters, retain_graph=True)) == {"used.weight", "used.bias"}
    assert named_gradients(loss, parameters).keys() == {"used.weight", "used.bias"}
    assert network["used"].weight.grad is None


def test_the_ten_lines_outside_any_framework_lower_the_loss_ahead():
    """The loop of the module's docstring, with the labels of one image as the generator's parameters."""
    torch.manual_seed(0)
    network = nn.ModuleDict({"body": nn.Linear(4, 16), "primary": nn.Linear(16, 2), "auxiliary": nn.Linear(16, 4)})
    network.forward = lambda x: (network["primary"](h := network["body"](x).tanh()), network["auxiliary"](h))
    generator = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    meta_optimizer = torch.optim.Adam(generator.parameters(), lr=0.05)
    image, label = torch.randn(16, 4), torch.arange(16) % 2
    allowed = torch.tensor([[True, True, False, False], [False, False, True, True]])[label]
    start, ahead = copy.deepcopy(network.state_dict()), []
    for _ in range(30):
        network.load_state_dict(start)  # always the same step, so that the losses ahead compare
        labels = masked_softmax(generator(image), allowed)
        primary, auxiliary = network(image)
        loss = F.cross_entropy(primary, label) + soft_label_loss(per_class_losses(auxiliary), labels.detach())
        optimizer.zero_grad()
        loss.backward()
        step = InnerStep(network, optimizer)
        optimizer.step()
        primary_loss = F.cross_entropy(network(image)[0], label)
        v = named_gradients(primary_loss, dict(network.named_parameters()))
        meta_optimizer.zero_grad()
        labels.backward(step.label_gradient((image,), lambda outputs: per_class_losses(outputs[1]), v))
        meta_optimizer.step()
        ahead.append(primary_loss.item())
    assert ahead[-1] < ahead[0] - 1e-3
