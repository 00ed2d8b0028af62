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
    v = gradients(cross_entropy(network(next_image)[0], next_label), network)
    labels.backward(step.label_gradient((image,), lambda outputs: per_class_losses(outputs[1]), v))
    meta_optimizer.step()

`unrolled_label_gradient` computes the same by differentiating through the step, as Liu et al. 2019
("Self-Supervised Generalisation with Meta Auxiliary Learning", section 3.2) do; it is the reference, at many times
the cost.
"""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_priors.functional.batch_norm import LeanBatchNorm
from lightning_priors.functional.kept_convolutions import KeptConvolutions, ReplayedConvolutions
from lightning_priors.functional.update_rules import global_norm, stepped_parameters, through_clipping, update_rules

Method = Literal["forward_mode", "finite_difference"]
Losses = Callable[[Any], Tensor]
"""From what the network returns to the losses (B, A) that each class would cost each image."""


class RandomState:
    """The state of the random generators at one moment, so that a later pass draws the same dropout masks.

    Args:
        device: The device that the network runs on.

    >>> state = RandomState(torch.device("cpu"))
    >>> first = torch.rand(3)
    >>> with state.replayed():
    ...     again = torch.rand(3)
    >>> torch.equal(first, again)
    True
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._host = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    @contextlib.contextmanager
    def replayed(self) -> Iterator[None]:
        """A context that starts from this state; afterwards the generators go on as if it had not been."""
        with torch.random.fork_rng([self._device] if self._cuda is not None else []):
            torch.set_rng_state(self._host)
            if self._cuda is not None:
                torch.cuda.set_rng_state(self._cuda, self._device)
            yield


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
            method: ``forward_mode``, exact, or ``finite_difference``, two forward passes.
            random_state: From before the forward pass of these inputs, where the step was made of several batches.
            kept: Of the forward pass of these inputs in the step: forward mode then saves a third of its convolutions.

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
                    derivative = forward_mode(*point, inputs, losses, direction, kept)
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


def forward_mode(
    network: nn.Module,
    parameters: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    inputs: tuple[Any, ...],
    losses: Losses,
    direction: Mapping[str, Tensor],
    kept: KeptConvolutions | None = None,
) -> Tensor:
    """The derivative of each image's losses along a direction, exact, at about the cost of two forward passes.

    Args:
        network: Any module whose operations have forward-mode derivatives.
        parameters: The point, by parameter name.
        buffers: By name; not changed.
        inputs: The arguments of the network.
        losses: From what the network returns to losses (B, A).
        direction: By parameter name; parameters without one stay where they are.
        kept: Convolutions of a forward pass at this point with these inputs, which need not be made again.

    Returns:
        (B, A).

    Raises:
        NotImplementedError: If an operation of the network has no forward-mode derivative.

    >>> network, point = nn.Linear(1, 1), {"weight": torch.tensor([[2.0]]), "bias": torch.tensor([0.0])}
    >>> x, along = torch.tensor([[3.0]]), {"weight": torch.tensor([[1.0]])}
    >>> forward_mode(network, point, {}, (x,), lambda y: y**2, along)  # 2 * (2 * 3) * 3
    tensor([[36.]])
    """
    _load_forward_rules()
    replay = contextlib.nullcontext() if kept is None else ReplayedConvolutions(kept)
    with torch.no_grad(), _differentiable_kernels(parameters), forward_ad.dual_level(), LeanBatchNorm(), replay:
        point = {name: _dual(p, direction[name]) if name in direction else p for name, p in parameters.items()}
        value, derivative = forward_ad.unpack_dual(losses(_call(network, point, buffers, inputs)))  # type: ignore[no-untyped-call]
        return torch.zeros_like(value) if derivative is None else derivative


def finite_difference(
    network: nn.Module,
    parameters: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    inputs: tuple[Any, ...],
    losses: Losses,
    direction: Mapping[str, Tensor],
    replay: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> Tensor:
    """The derivative of `forward_mode` from the losses at two points, about the present one.

    The points lie 1e-4 away in float32, 1e-6 in float64: further away the kinks of ReLU spoil the difference (12 to
    25 % at the 1e-2 of Liu et al. 2019), nearer the rounding.

    Args:
        network: Any module.
        parameters: The point, by parameter name.
        buffers: By name; not changed.
        inputs: The arguments of the network.
        losses: From what the network returns to losses (B, A).
        direction: By parameter name; parameters without one stay where they are.
        replay: Makes the context of each of the two passes, which have to draw the same random numbers.

    Returns:
        (B, A).

    >>> network, point = nn.Linear(1, 1), {"weight": torch.tensor([[2.0]]), "bias": torch.tensor([0.0])}
    >>> x, along = torch.tensor([[3.0]]), {"weight": torch.tensor([[1.0]])}
    >>> finite_difference(network, point, {}, (x,), lambda y: y**2, along).round()
    tensor([[36.]])
    """
    length = global_norm(direction)
    distance = 1e-6 if length.dtype == torch.float64 else 1e-4
    scale = torch.where(length > 0, distance / length, 0.0)

    def losses_at(sign: int) -> Tensor:
        point = {name: p + sign * scale * direction[name] if name in direction else p for name, p in parameters.items()}
        with torch.no_grad(), torch.autocast(length.device.type, enabled=False), replay():
            return losses(_call(network, point, buffers, inputs))

    return (losses_at(1) - losses_at(-1)) * (length / (2 * distance))


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
    with torch.enable_grad(), _differentiable_kernels(point):
        loss = inner_loss(_call(network, point, buffers, inputs), labels)
        found = torch.autograd.grad(loss, list(point.values()), create_graph=True, allow_unused=True)
        gradients = {name: g for name, g in zip(point, found, strict=True) if g is not None}
        if clip_norm is not None:
            factor = (clip_norm / (global_norm(gradients) + 1e-6)).clamp(max=1)
            gradients = {name: factor * g for name, g in gradients.items()}
        after = stepped_parameters(network, optimizer, gradients, point)
        return torch.autograd.grad(meta_loss(_call(network, after, buffers, meta_inputs)), labels)[0]


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


def supports_forward_mode(network: nn.Module, inputs: tuple[Any, ...]) -> bool:
    """Whether all operations of a network have forward-mode derivatives; costs one forward-mode pass.

    Args:
        network: Any module that returns a tensor, or tensors in a tuple, list or dict; not changed.
        inputs: The arguments of the network, such as one batch.

    Returns:
        False where `InnerStep.label_gradient` would fall back to finite differences.

    >>> supports_forward_mode(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), (torch.ones(1, 2),))
    True
    """
    point = {name: p.detach() for name, p in network.named_parameters()}
    direction = {name: torch.zeros_like(p) for name, p in point.items()}
    try:
        forward_mode(network, point, dict(network.named_buffers()), inputs, lambda _: torch.zeros(()), direction)
    except NotImplementedError:
        return False
    return True


def _dual(value: Tensor, derivative: Tensor) -> Tensor:
    dual: Tensor = forward_ad.make_dual(value, derivative.to(value.dtype))  # type: ignore[no-untyped-call]
    return dual


@functools.cache
def _load_forward_rules() -> None:
    """Has torch load its forward-mode rules, which it does on first use and with a warning about code of its own."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
        _dual(torch.zeros(()), torch.zeros(()))


def _call(
    network: nn.Module, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], inputs: tuple[Any, ...]
) -> Any:
    """The network at a point; copies of the buffers take the updates, and images come in the parameters' precision."""
    dtype = next(p.dtype for p in parameters.values() if p.is_floating_point())
    inputs = tuple(x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)
    state = dict(parameters) | {name: buffer.clone() for name, buffer in buffers.items()}
    return functional_call(network, state, inputs)


@contextlib.contextmanager
def _differentiable_kernels(parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """No autocast, and attention by kernels that have forward-mode and second derivatives; the fused ones have not."""
    device = next(iter(parameters.values())).device.type
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.autocast(device, enabled=False), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
