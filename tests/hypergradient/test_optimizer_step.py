import math

import pytest
import torch
from gradients import assign, random_gradients
from torch import nn

from lightning_priors.hypergradient import global_norm, stepped_parameters, update_rules
from lightning_priors.hypergradient.optimizer_step import through_clipping

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "dampened": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.3),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.01),
    "decoupled adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.01, decoupled_weight_decay=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.01),
}


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_the_next_step_is_what_the_optimiser_does(name):
    torch.manual_seed(0)
    network = nn.Linear(3, 2, dtype=torch.float64)
    optimizer = OPTIMIZERS[name](network.parameters())
    for seed in range(4):
        gradients = random_gradients(network, seed)
        predicted = stepped_parameters(network, optimizer, gradients)
        assign(network, gradients)
        optimizer.step()
        for key, parameter in network.named_parameters():
            torch.testing.assert_close(predicted[key], parameter)


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_the_sensitivity_is_the_derivative_of_the_step(name):
    torch.manual_seed(0)
    network = nn.Linear(3, 2, dtype=torch.float64)
    optimizer = OPTIMIZERS[name](network.parameters())
    for seed in range(3):
        gradient = random_gradients(network, seed)["weight"].requires_grad_()
        rule = update_rules(network, optimizer)["weight"]
        (slope,) = torch.autograd.grad(rule.stepped(network.weight, gradient).sum(), gradient)
        value = torch.as_tensor(rule.sensitivity(network.weight, gradient), dtype=torch.float64)
        torch.testing.assert_close(value.expand_as(slope), slope)
        assign(network, random_gradients(network, seed))
        optimizer.step()


@pytest.mark.parametrize("options", [{"maximize": True}, {"amsgrad": True}])
def test_variants_are_refused(options):
    network = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="maximize or amsgrad"):
        update_rules(network, torch.optim.AdamW(network.parameters(), **options))


@pytest.mark.parametrize("limit", [0.5, 100.0], ids=["clipped", "not-clipped"])
def test_through_clipping_is_the_derivative_of_clipping(limit):
    network = nn.Linear(3, 2, dtype=torch.float64)
    gradients, direction = random_gradients(network, 0), random_gradients(network, 1)

    def clip(*values):
        norm = torch.cat([value.flatten() for value in values]).norm()
        return tuple((limit / (norm + 1e-6)).clamp(max=1) * value for value in values)

    clipped, expected = torch.autograd.functional.jvp(clip, tuple(gradients.values()), tuple(direction.values()))
    factor = (limit / (global_norm(gradients) + 1e-6)).clamp(max=1)
    value = through_clipping(direction, factor, dict(zip(gradients, clipped, strict=True)))
    torch.testing.assert_close(tuple(value.values()), expected, rtol=1e-9, atol=1e-12)


def test_the_norm_is_that_of_all_entries():
    tensors = random_gradients(nn.Linear(3, 2, dtype=torch.float64), 0)
    squares = sum(float((tensor**2).sum()) for tensor in tensors.values())
    assert float(global_norm(tensors)) == pytest.approx(math.sqrt(squares))
