"""How the labels of a training step change the loss after it, by one forward-mode pass through the network.

A training step moves the parameters from theta to theta+ along the gradient g of

    L_pri(theta) + (1 / B) sum_ik q_ik l_k(x_i; theta),

with the generated labels q of B images and the loss l_k that class k would cost. As the loss is linear in q, exactly,

    d L_pri(theta+) / d q_ik = (1 / B) D_u l_k(x_i; theta),    u = (d theta+ / d g) v,    v = grad L_pri(theta+),

a derivative of the losses along one direction u in the space of the parameters: one forward-mode pass through the
network, without a second-order graph. `InnerStep` does that. Outside any framework it is used so:

    labels = generator(image, label)                                  # (B, A), with its graph
    primary, auxiliary = network(image)
    loss = cross_entropy(primary, label) + (labels.detach() * auxiliary_losses(auxiliary)).sum(1).mean()
    optimizer.zero_grad()
    loss.backward()
    step = InnerStep(network, optimizer)                              # before the optimiser moves the parameters
    optimizer.step()
    v = named_gradients(cross_entropy(network(next_image)[0], next_label), dict(network.named_parameters()))
    labels.backward(step.label_gradient((image,), lambda outputs: auxiliary_losses(outputs[1]), v))
    generator_optimizer.step()

Forward-over-reverse hypergradients (MixFlow-MG, Kemaev et al. 2025, arXiv 2505.00793) take the forward-mode derivative
of a gradient. Here one of the forward pass is enough, because the loss is linear in what is differentiated by.
"""

import contextlib
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_priors.hypergradient.forward_mode import Losses, finite_difference, forward_mode
from lightning_priors.hypergradient.optimizer_step import through_clipping, update_rules
from lightning_priors.hypergradient.random_state import RandomState

Method = Literal["forward_mode", "finite_difference"]


class InnerStep:
    """One training step, seen as a function of the labels it was made with.

    Made after ``backward`` and before ``optimizer.step``, it keeps a copy of the parameters and, for each, how far it
    moves when its gradient changes. The network may then be trained on.

    Args:
        network: Any module; its parameters outside the optimiser count as constants.
        optimizer: SGD, Adam or AdamW of torch. Its next step is the inner step; it is not changed.
        gradients: The gradients that the optimiser will use, by parameter name; ``.grad`` where not given.
        clip_factor: What `clip_by_norm` multiplied the gradients by; the gradients are those after clipping.
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
        random_state: RandomState | None = None,
    ) -> None:
        if gradients is None:
            gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        self._network, self._random_state = network, random_state
        rules = update_rules(network, optimizer)
        self._sensitivity = {
            name: rules[name].sensitivity(p.detach(), gradients[name])
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
        """Computes the direction ``u = (d theta+ / d g) v`` in the space of the parameters.

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
    ) -> Tensor:
        """Computes the derivative of the primary loss after the step with respect to the labels of the step.

        The pass is made in the precision of the parameters, also under autocast, in the mode (train or eval) that the
        network is in, with the dropout masks of the step if its random state is known; no buffer is changed.
        Where the network has no forward-mode derivative, a warning says so and the finite difference is taken.

        Args:
            inputs: The arguments of the network in the step, batch first.
            losses: From what the network returns to the losses (B, A) that each class would cost each image; the step
                was made with their mean over the batch, weighted by the labels.
            v: The gradient of the primary loss at theta+, by parameter name.
            method: ``forward_mode``, exact; or ``finite_difference``, two forward passes, within some per cent.
            random_state: From before the forward pass of these inputs, where the step was made of several batches.

        Returns:
            (B, A), to be passed to ``labels.backward``.
        """
        direction, scale = self._factored_direction(v)
        state = random_state or self._random_state
        replay = contextlib.nullcontext if state is None else state.replayed
        point = self._network, self._parameters, self._buffers
        if method == "forward_mode":
            try:
                with replay():
                    derivative = forward_mode(*point, inputs, losses, direction)
                return scale / len(derivative) * derivative
            except NotImplementedError as error:
                reason = str(error).split(". ")[0]
                warnings.warn(f"finite differences instead of forward mode, which fails: {reason}", stacklevel=2)
        derivative = finite_difference(*point, inputs, losses, direction, replay)
        return scale / len(derivative) * derivative

    def _factored_direction(self, v: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], float]:
        """The direction up to a factor: under plain SGD that is `v` itself, which saves a copy of all parameters."""
        factors = set(self._sensitivity.values())
        if self._clip is None and len(factors) == 1 and isinstance(factor := factors.pop(), float):
            return {name: v[name] for name in self._sensitivity if name in v}, factor
        return self.direction(v), 1.0
