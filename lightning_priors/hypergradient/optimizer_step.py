"""What the next step of an optimiser does to the parameters, as a differentiable function of the gradients."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_priors.hypergradient.gradients import global_norm


@dataclass(frozen=True)
class SGDRule:
    """The next step of `torch.optim.SGD` for one parameter."""

    lr: float
    momentum: float
    dampening: float
    nesterov: bool
    weight_decay: float
    buffer: Tensor | None

    def stepped(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        """The parameter after the step, of any shape."""
        gradient = gradient + self.weight_decay * parameter
        velocity = gradient
        if self.buffer is not None:
            velocity = self.momentum * self.buffer + (1 - self.dampening) * gradient
        if self.momentum and self.nesterov:
            return parameter - self.lr * (gradient + self.momentum * velocity)
        return parameter - self.lr * velocity

    def sensitivity(self, parameter: Tensor, gradient: Tensor) -> float:
        """The derivative of the stepped parameter with respect to its gradient: one number."""
        fresh = 1.0 if self.buffer is None else 1 - self.dampening
        return -self.lr * (1 + self.momentum * fresh if self.momentum and self.nesterov else fresh)


@dataclass(frozen=True)
class AdamRule:
    """The next step of `torch.optim.Adam` or, with decoupled weight decay, `torch.optim.AdamW` for one parameter."""

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    decoupled: bool
    step: int
    first: Tensor | float
    second: Tensor | float

    def stepped(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        """The parameter after the step, of any shape."""
        _, first, second = self._moments(parameter, gradient)
        touched = second > 0  # elsewhere the root has no derivative, and there is nothing to move
        root = torch.where(touched, second, 1.0).sqrt()
        decayed = parameter * (1 - self.lr * self.weight_decay) if self.decoupled else parameter
        return decayed - torch.where(touched, self.lr * first / (root + self.eps), 0.0)

    def sensitivity(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        """The derivative of the stepped parameter with respect to its gradient, entry by entry.

        Zero where the gradient has always been zero: the network does not depend on such a parameter, and the formula
        would give lr / eps.
        """
        gradient, first, second = self._moments(parameter, gradient)
        root = second.sqrt()
        slope = (1 - self.betas[0]) / (1 - self.betas[0] ** self.step) / (root + self.eps)
        root_slope = (1 - self.betas[1]) / (1 - self.betas[1] ** self.step) * gradient / root
        slope = slope - first * root_slope / (root + self.eps) ** 2
        return torch.where(second > 0, -self.lr * slope, 0.0)

    def _moments(self, parameter: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient with the coupled weight decay, and the two moments after the step without their bias."""
        if not self.decoupled:
            gradient = gradient + self.weight_decay * parameter
        first = self.betas[0] * self.first + (1 - self.betas[0]) * gradient
        second = self.betas[1] * self.second + (1 - self.betas[1]) * gradient**2
        return gradient, first / (1 - self.betas[0] ** self.step), second / (1 - self.betas[1] ** self.step)


def update_rules(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, SGDRule | AdamRule]:
    """Reads from an optimiser what its next step does to each parameter.

    Args:
        network: The module whose parameters are asked for.
        optimizer: SGD, Adam or AdamW of torch itself, not wrapped.

    Returns:
        By parameter name, for the parameters that the optimiser holds.

    Raises:
        TypeError: If the optimiser is another one.
        ValueError: If it maximises or uses AMSGrad.

    >>> network = nn.Linear(1, 1, bias=False)
    >>> update_rules(network, torch.optim.SGD(network.parameters(), lr=0.1))["weight"].lr
    0.1
    """
    if type(optimizer) not in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
        raise TypeError(f"the inner step is known for SGD, Adam and AdamW of torch, not for {type(optimizer).__name__}")
    make = _sgd_rule if type(optimizer) is torch.optim.SGD else _adam_rule
    names = {parameter: name for name, parameter in network.named_parameters()}
    rules: dict[str, SGDRule | AdamRule] = {}
    for group in optimizer.param_groups:
        if group["maximize"] or group.get("amsgrad"):
            raise ValueError("the inner step is not known for an optimiser with maximize or amsgrad")
        for parameter in group["params"]:
            if parameter in names:
                rules[names[parameter]] = make(group, optimizer.state.get(parameter, {}))
    return rules


def stepped_parameters(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    gradients: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Computes where the optimiser's next step leads, as a differentiable function of the gradients.

    Args:
        network: The module that the optimiser trains; not changed.
        optimizer: SGD, Adam or AdamW of torch; neither its state nor its parameters are changed.
        gradients: By parameter name; parameters without one stay where they are.
        parameters: The point to start from, by name; the network's own where not given.

    Returns:
        All parameters by name.

    Raises:
        TypeError: If the optimiser is another one.
        ValueError: If it maximises or uses AMSGrad.

    >>> network = nn.Linear(1, 1, bias=False)
    >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    >>> start = {"weight": torch.tensor([[1.0]])}
    >>> stepped_parameters(network, optimizer, {"weight": torch.tensor([[2.0]])}, start)
    {'weight': tensor([[0.8000]])}
    """
    start = dict(network.named_parameters()) if parameters is None else parameters
    rules = update_rules(network, optimizer)
    moving = rules.keys() & gradients.keys()
    return {name: rules[name].stepped(p, gradients[name]) if name in moving else p for name, p in start.items()}


def through_clipping(
    direction: Mapping[str, Tensor], factor: float | Tensor, clipped: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Applies the derivative of clipping by the norm, a symmetric matrix, to a direction.

    Above the limit the clipped gradient keeps its length and can only turn. So the part of the direction along the
    gradient is removed (all but torch's 1e-6 in the denominator), and the rest is shortened as the gradient was. The
    norm is that of all gradients, so parameters on which the primary loss does not depend get a direction too.

    Args:
        direction: By parameter name; missing ones are zero.
        factor: What clipping multiplied the gradients by.
        clipped: The gradients after clipping, by parameter name.

    Returns:
        By the names of the gradients.

    >>> through_clipping({"a": torch.tensor([1.0, 1.0])}, 0.5, {"a": torch.tensor([0.0, 2.0])})["a"].round(decimals=3)
    tensor([0.5000, 0.0000])
    """
    factor = torch.as_tensor(factor)
    length = global_norm(clipped)
    along = sum((clipped[name] * u).sum() for name, u in direction.items()) / length
    lost = torch.where(factor < 1, along * length / (length + 1e-6 * factor) / length, 0.0)
    return {name: factor * (direction.get(name, 0.0) - lost * g) for name, g in clipped.items()}


def _sgd_rule(group: Mapping[str, Any], state: Mapping[str, Any]) -> SGDRule:
    return SGDRule(
        lr=group["lr"],
        momentum=group["momentum"],
        dampening=group["dampening"],
        nesterov=group["nesterov"],
        weight_decay=group["weight_decay"],
        buffer=state.get("momentum_buffer") if group["momentum"] else None,
    )


def _adam_rule(group: Mapping[str, Any], state: Mapping[str, Any]) -> AdamRule:
    return AdamRule(
        lr=group["lr"],
        betas=group["betas"],
        eps=group["eps"],
        weight_decay=group["weight_decay"],
        decoupled=group["decoupled_weight_decay"],
        step=int(state.get("step", 0)) + 1,
        first=state.get("exp_avg", 0.0),
        second=state.get("exp_avg_sq", 0.0),
    )
