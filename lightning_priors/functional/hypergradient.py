"""MAXL's meta-gradient: how the labels of an auxiliary task change the primary loss after the next training step.

A training step moves the parameters from theta to theta+ along the gradient g of

    L_pri(theta) + (1 / B) sum_ik q_ik l_k(x_i; theta),

with the generated labels q and the loss l_k that class k would cost. As the loss is linear in q, exactly,

    d L_pri(theta+) / d q_ik = (1 / B) D_u l_k(x_i; theta),    u = (d theta+ / d g) v,    v = grad L_pri(theta+),

a derivative of the losses along one direction u in the space of the parameters: one forward-mode pass through the
network, without a second-order graph. `InnerStep` does that. Outside any framework it is used so:

    labels = generator(image, label)                                  # (B, A), with its graph
    primary, auxiliary = network(image)
    loss = cross_entropy(primary, label) + soft_label_loss(per_class_losses(auxiliary), labels.detach())
    optimizer.zero_grad()
    loss.backward()
    step = InnerStep(network, optimizer)                              # before the optimiser moves the parameters
    optimizer.step()
    v = named_gradients(cross_entropy(network(next_image)[0], next_label), network)
    labels.backward(step.label_gradient((image,), lambda outputs: per_class_losses(outputs[1]), v))
    meta_optimizer.step()

`unrolled_label_gradient` computes the same by differentiating through the step, as Liu et al. 2019
("Self-Supervised Generalisation with Meta Auxiliary Learning", section 3.2) do; it is the reference, at many times
the cost.
"""

import contextlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_priors.functional.directional import (
    Losses,
    call_at,
    differentiable_kernels,
    finite_difference,
    forward_mode,
)
from lightning_priors.functional.kept_convolutions import FULL_PRECISION, KeptConvolutions, rounds_convolutions
from lightning_priors.functional.random_state import RandomState
from lightning_priors.functional.update_rules import global_norm, stepped_parameters, through_clipping, update_rules

Method = Literal["forward_mode", "one_convolution", "finite_difference"]


class InnerStep:
    """One training step, seen as a function of the labels it was made with.

    Made after ``backward`` and before ``optimizer.step``, it keeps a copy of the parameters, and how much each would
    move for a change of its gradient. The network may then be trained on.

    Args:
        network: Any module; its parameters outside the optimiser count as constants.
        optimizer: SGD, Adam or AdamW of torch. Its next step is the inner step; it is not changed.
        gradients: The gradients that the optimiser will use, by parameter name; ``.grad`` where not given.
        clip_factor: What clipping multiplied the gradients' norm by, ``min(1, max_norm / (norm + 1e-6))`` for torch's;
            the gradients are those after clipping.
        frozen_preconditioner: Whether Adam's second moment counts as a constant: a little cheaper, and not exact.
        random_state: From before the forward pass of the step; needed where the network draws random numbers.

    Raises:
        TypeError: If the optimiser is another one.
        ValueError: If it maximises or uses AMSGrad.

    >>> network = nn.Linear(1, 2, bias=False)
    >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    >>> step = InnerStep(network, optimizer, gradients={"weight": torch.zeros(2, 1)})
    >>> step.label_gradient((torch.tensor([[3.0]]),), lambda logits: logits, {"weight": torch.tensor([[1.0], [2.0]])})
    tensor([[-0.3000, -0.6000]])
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        gradients: Mapping[str, Tensor] | None = None,
        clip_factor: float | Tensor | None = None,
        frozen_preconditioner: bool = False,
        random_state: RandomState | None = None,
    ) -> None:
        if gradients is None:
            gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        self._network, self._random_state = network, random_state
        rules = update_rules(network, optimizer)
        self._sensitivity = {
            name: rules[name].sensitivity(p.detach(), gradients[name], frozen_preconditioner)
            for name, p in network.named_parameters()
            if name in rules and name in gradients
        }
        moving = self._sensitivity
        self._parameters = {n: p.detach().clone() if n in moving else p.detach() for n, p in network.named_parameters()}
        self._buffers = {name: b.clone() for name, b in network.named_buffers()}
        self._clip = None
        if clip_factor is not None:
            self._clip = clip_factor, {name: g.detach().clone() for name, g in gradients.items()}

    def direction(self, v: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The direction ``u = (d theta+ / d g) v`` in the space of the parameters.

        Args:
            v: The gradient of the primary loss at theta+, by parameter name; parameters without one may be missing.

        Returns:
            By parameter name, for those that have a `v` and that the step moves.
        """
        u = {name: factor * v[name] for name, factor in self._sensitivity.items() if name in v}
        return u if self._clip is None else through_clipping(u, *self._clip)

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """All parameters by name, as they were before the step."""
        return self._parameters

    def label_gradient(
        self,
        inputs: tuple[Any, ...],
        losses: Losses,
        v: Mapping[str, Tensor],
        method: Method = "forward_mode",
        random_state: RandomState | None = None,
        kept: KeptConvolutions | None = None,
    ) -> Tensor:
        """The derivative of the primary loss after the step with respect to the labels of the step.

        The pass is made in the precision of the parameters, also under autocast, in the mode (train or eval) that the
        network is in, with the dropout masks of the step if its random state is known; no buffer is changed.
        Where the network has no forward-mode derivative, a warning says so and the finite difference is taken.

        Args:
            inputs: The arguments of the network in the step, batch first.
            losses: From what the network returns to the losses (B, A) that each class would cost each image; the step
                was made with their mean over the batch, weighted by the labels.
            v: The gradient of the primary loss at theta+, by parameter name.
            method: ``forward_mode``, exact; ``one_convolution``, forward mode with half of its convolutions and an
                error of about 1e-3 in float32, which needs `kept`; or ``finite_difference``, two forward passes.
            random_state: From before the forward pass of these inputs, where the step was made of several batches.
            kept: Of the forward pass of these inputs in the step: forward mode then saves a third of its convolutions.

        Returns:
            (B, A), to be passed to ``labels.backward``.

        Raises:
            ValueError: If ``one_convolution`` is given no convolutions, or they are rounded.
        """
        if method == "one_convolution" and kept is None:
            raise ValueError("the method one_convolution needs the convolutions that were kept")
        if method == "one_convolution" and rounds_convolutions(next(iter(self._parameters.values())).device.type):
            raise ValueError(f"the method one_convolution needs {FULL_PRECISION}")
        direction, scale = self._factored_direction(v)
        state = random_state or self._random_state
        replay = contextlib.nullcontext if state is None else state.replayed
        point = self._network, self._parameters, self._buffers
        if method != "finite_difference":
            try:
                with replay():
                    derivative = forward_mode(*point, inputs, losses, direction, kept, method == "one_convolution")
                return scale / len(derivative) * derivative
            except NotImplementedError as error:
                reason = str(error).split(". ")[0]
                warnings.warn(f"finite differences instead of forward mode, which fails: {reason}", stacklevel=2)
        derivative = finite_difference(*point, inputs, losses, direction, replay)
        return scale / len(derivative) * derivative

    def _factored_direction(self, v: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], float]:
        """The direction up to a number: under plain SGD that is `v` itself, which saves a copy of all parameters."""
        factors = set(self._sensitivity.values())
        if self._clip is None and len(factors) == 1 and isinstance(factor := factors.pop(), float):
            return {name: v[name] for name in self._sensitivity if name in v}, factor
        return self.direction(v), 1.0


def unrolled_label_gradient(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: tuple[Any, ...],
    labels: Tensor,
    inner_loss: Callable[[Any, Tensor], Tensor],
    meta_inputs: tuple[Any, ...],
    meta_loss: Callable[[Any], Tensor],
    clip_norm: float | None = None,
) -> Tensor:
    """The derivative of `InnerStep.label_gradient` by differentiating through the step: double backward.

    Args:
        network: Any module; neither it nor its buffers are changed.
        optimizer: SGD, Adam or AdamW of torch, which would make the step; it is not changed.
        inputs: The arguments of the network in the step.
        labels: (B, A).
        inner_loss: From what the network returns and the labels to the loss that the step lowers.
        meta_inputs: The arguments of the network after the step.
        meta_loss: From what the network returns after the step to the primary loss.
        clip_norm: Greatest norm of the gradients in the step, as ``clip_grad_norm_`` holds it; none without.

    Returns:
        (B, A).

    Raises:
        TypeError: If the optimiser is another one.
        ValueError: If it maximises or uses AMSGrad.

    >>> network = nn.Linear(1, 2, bias=False)
    >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    >>> x, labels = torch.tensor([[3.0]]), torch.tensor([[0.5, 0.5]])
    >>> unrolled_label_gradient(
    ...     network, optimizer, (x,), labels, lambda y, q: (q * y).sum(), (x / 3,), lambda y: y[0, 0] + 2 * y[0, 1]
    ... )
    tensor([[-0.3000, -0.6000]])
    """
    labels = labels.detach().requires_grad_()
    point = {name: p.detach().requires_grad_() for name, p in network.named_parameters()}
    buffers = dict(network.named_buffers())
    with torch.enable_grad(), differentiable_kernels(point):
        loss = inner_loss(call_at(network, point, buffers, inputs), labels)
        found = torch.autograd.grad(loss, list(point.values()), create_graph=True, allow_unused=True)
        gradients = {name: g for name, g in zip(point, found, strict=True) if g is not None}
        if clip_norm is not None:
            factor = (clip_norm / (global_norm(gradients) + 1e-6)).clamp(max=1)
            gradients = {name: factor * g for name, g in gradients.items()}
        after = stepped_parameters(network, optimizer, gradients, point)
        return torch.autograd.grad(meta_loss(call_at(network, after, buffers, meta_inputs)), labels)[0]


def named_gradients(loss: Tensor, network: nn.Module, retain_graph: bool = False) -> dict[str, Tensor]:
    """The gradient of a loss by parameter name; ``.grad`` stays as it is.

    Args:
        loss: ().
        network: Its parameters that require gradients are asked for.
        retain_graph: Whether another loss will be differentiated through the same forward pass.

    Returns:
        For the parameters that the loss depends on.

    >>> network = nn.Linear(1, 1)
    >>> named_gradients(3 * network.bias.sum(), network)
    {'bias': tensor([3.])}
    """
    wanted = {name: p for name, p in network.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(wanted.values()), retain_graph=retain_graph, allow_unused=True)
    return {name: g for name, g in zip(wanted, found, strict=True) if g is not None}
