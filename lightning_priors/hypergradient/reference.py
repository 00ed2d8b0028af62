"""The derivative of `InnerStep.label_gradient` by double backward: the reference, at many times the cost."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_priors.hypergradient.forward_mode import call_at, differentiable_kernels
from lightning_priors.hypergradient.gradients import clip_by_norm, named_gradients
from lightning_priors.hypergradient.optimizer_step import stepped_parameters


def unrolled_label_gradient(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: tuple[Any, ...],
    labels: Tensor,
    inner_loss: Callable[[Any, Tensor], Tensor],
    meta_inputs: tuple[Any, ...],
    meta_loss: Callable[[Any], Tensor],
    max_norm: float | None = None,
) -> Tensor:
    """Differentiates the loss after a training step with respect to the labels of that step, through the step.

    Liu et al. 2019, "Self-Supervised Generalisation with Meta Auxiliary Learning", section 3.2, for any optimiser that
    `stepped_parameters` knows. Neither the network nor its buffers nor the optimiser are changed.

    Args:
        network: Any module.
        optimizer: SGD, Adam or AdamW of torch, which would make the step.
        inputs: The arguments of the network in the step.
        labels: (B, A).
        inner_loss: From what the network returns and the labels to the loss that the step lowers.
        meta_inputs: The arguments of the network after the step.
        meta_loss: From what the network returns after the step to the loss that is differentiated.
        max_norm: Greatest norm of the gradients in the step, as `clip_by_norm` holds it; None leaves them alone.

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
    with torch.enable_grad(), differentiable_kernels(point):
        loss = inner_loss(call_at(network, inputs, point), labels)
        gradients = named_gradients(loss, point, create_graph=True)
        if max_norm is not None:
            gradients, _ = clip_by_norm(gradients, max_norm)
        after = stepped_parameters(network, optimizer, gradients, point)
        return torch.autograd.grad(meta_loss(call_at(network, meta_inputs, after)), labels)[0]
