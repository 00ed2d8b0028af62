"""Several tasks on shared layers: their losses with absent labels, and the weights of the auxiliary ones.

T tasks are the primary one, which comes first, and A = T - 1 auxiliary ones.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_priors.functional.distributed import mean_over_ranks, share_of_count
from lightning_priors.functional.focal import focal_loss

NONE = -1
"""The label of an image that has none in a task."""

GRADIENT_SCALE = 2.0**10  # half precision would lose the small gradients of a mean; a power of two changes nothing else


def task_losses(logits: Tensor, labels: Tensor, gamma: float = 0.0) -> tuple[Tensor, Tensor]:
    """Computes the mean loss of each task over the images that have a label in it; the others change nothing.

    Args:
        logits: (B, A, K), where K is the greatest number of classes; -inf for classes that a task does not have.
        labels: (B, A) int64, -1 = no label.
        gamma: Of the focal loss; 0 is cross entropy.

    Returns:
        The losses (A,), zero and without gradient for a task without any label; and which tasks have a label (A,).

    >>> logits, labels = torch.zeros(2, 2, 2), torch.tensor([[1, -1], [-1, -1]])
    >>> task_losses(logits, labels)
    (tensor([0.6931, 0.0000]), tensor([ True, False]))
    """
    loss = focal_loss(logits.transpose(1, 2), labels, gamma, ignore_index=NONE)
    labelled = labels != NONE
    return loss.sum(0) / share_of_count(labelled, 0), mean_over_ranks(labelled.sum(0)) > 0


def without_target(aux_labels: Tensor, label: Tensor, target_class: int) -> Tensor:
    """Takes the images of one primary class out of all auxiliary tasks.

    Args:
        aux_labels: (B, A) int64, -1 = no label.
        label: (B,) int64 of the primary task.
        target_class: The class that is taken out.

    Returns:
        (B, A) with -1 for those images.

    >>> without_target(torch.tensor([[4], [7]]), label=torch.tensor([0, 1]), target_class=0)
    tensor([[-1],
            [ 7]])
    """
    return aux_labels.masked_fill((label == target_class).unsqueeze(1), NONE)


def uncertainty_weighted(losses: Tensor, log_variances: Tensor, present: Tensor) -> Tensor:
    """Weighs losses by learned uncertainties: ``exp(-s) L + s / 2``, where s is the logarithm of a variance.

    Kendall, Gal and Cipolla 2018, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and
    Semantics", equation 10, for classification. For a constant loss L the optimum is exp(-s) = 1 / (2 L).

    Args:
        losses: (T,).
        log_variances: (T,), learned.
        present: (T,) bool, which tasks have a label; the others neither cost nor learn anything.

    Returns:
        (T,), to be added up.

    >>> uncertainty_weighted(torch.tensor([2.0, 0.0]), torch.zeros(2), torch.tensor([True, False]))
    tensor([2., 0.])
    """
    return torch.where(present, (-log_variances).exp() * losses + log_variances / 2, 0.0)


def dynamic_average_weights(last: Tensor, before: Tensor, temperature: float = 2.0) -> Tensor:
    """Computes the weights of dynamic weight average: tasks whose loss falls slowly get more.

    Liu, Johns and Davison 2019, "End-to-End Multi-Task Learning with Attention", equation 7. A task whose losses are
    not known, as in the first two epochs, counts as one whose loss stays.

    Args:
        last: (T,) mean losses of the last epoch, nan where not known.
        before: (T,) of the epoch before it.
        temperature: The greater, the more even the weights.

    Returns:
        (T,) that add up to T.

    >>> dynamic_average_weights(torch.tensor([1.0, 0.5]), torch.tensor([1.0, 1.0]), temperature=0.5)
    tensor([1.4621, 0.5379])
    >>> dynamic_average_weights(torch.tensor([1.0, 0.5]), torch.full((2,), torch.nan))
    tensor([1., 1.])
    """
    rate = (last / before).nan_to_num(nan=1.0, posinf=1.0)
    return len(rate) * (rate / temperature).softmax(0)


def task_gradients(losses: Sequence[Tensor] | Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Computes the gradient of each loss on shared parameters; the graph is kept.

    Args:
        losses: T scalars.
        parameters: Shared tensors of any shape, n numbers in all.

    Returns:
        (T, n) float32 or float64, zero where a loss does not depend on a parameter.

    >>> weight = torch.tensor([2.0], requires_grad=True)
    >>> task_gradients([weight.square().sum(), -weight.sum()], [weight])
    tensor([[ 4.],
            [-1.]])
    """
    ends = list(itertools.accumulate(parameter.numel() for parameter in parameters))
    dtype = torch.promote_types(parameters[0].dtype, torch.float32)
    rows = torch.zeros(len(losses), ends[-1], dtype=dtype, device=parameters[0].device)
    for loss, row in zip(losses, rows, strict=True):
        found = torch.autograd.grad(loss * GRADIENT_SCALE, list(parameters), retain_graph=True, allow_unused=True)
        for gradient, end in zip(found, ends, strict=True):
            if gradient is not None:
                row[end - gradient.numel() : end] = gradient.flatten()
    return rows.div_(GRADIENT_SCALE)


def gradient_cosines(gradients: Tensor) -> Tensor:
    """Computes the cosine of the primary gradient with that of each auxiliary task.

    Args:
        gradients: (T, n), the primary one first.

    Returns:
        (A,) in [-1, 1]; zero where a gradient is zero, or has overflowed in half precision.

    >>> gradient_cosines(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [-3.0, 0.0]]))
    tensor([ 1.,  0., -1.])
    """
    lengths = gradients.norm(dim=1)
    cosines: Tensor = gradients[1:] @ gradients[0] / lengths[1:] / lengths[0]
    return cosines.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).clamp(-1, 1)


def similarity_weights(cosines: Tensor, weighted: bool = True) -> Tensor:
    """Weighs auxiliary tasks by how far their gradient agrees with that of the primary task.

    Du et al. 2018, "Adapting Auxiliary Losses Using Gradient Similarity", algorithm 1 (weighted) and algorithm 2
    (unweighted).

    Args:
        cosines: (A,) from `gradient_cosines`.
        weighted: Whether the weight is the cosine, where it is positive; otherwise 1 unless the cosine is negative.

    Returns:
        (A,) in [0, 1].

    >>> similarity_weights(torch.tensor([0.5, 0.0, -0.5]))
    tensor([0.5000, 0.0000, 0.0000])
    >>> similarity_weights(torch.tensor([0.5, 0.0, -0.5]), weighted=False)
    tensor([1., 1., 0.])
    """
    return cosines.clamp(min=0) if weighted else (cosines >= 0).to(cosines.dtype)


def look_ahead_derivative(sensitivity: Tensor, primary_gradient: Tensor, auxiliary_gradients: Tensor) -> Tensor:
    """Computes how the primary loss after a training step depends on the weights of the auxiliary losses in that step.

    The step moves the parameters from theta to theta+ along ``grad L_pri + sum_k w_k grad L_k``. Entry by entry the
    optimiser answers a change of that gradient by ``d theta+ / d g``, so that exactly

        d L_pri(theta+) / d w_k = < (d theta+ / d g) * grad L_pri(theta+), grad L_k(theta) >,

    two gradients that training has anyway; no second-order graph.

    Args:
        sensitivity: (n,) the derivative of each stepped parameter with respect to its gradient, such as minus the
            learning rate for SGD; see `lightning_priors.hypergradient.optimizer_step.update_rules`.
        primary_gradient: (n,) of the primary loss at theta+.
        auxiliary_gradients: (A, n) of the auxiliary losses at theta.

    Returns:
        (A,).

    >>> look_ahead_derivative(torch.tensor([-0.1]), torch.tensor([2.0]), torch.tensor([[3.0], [-1.0]]))
    tensor([-0.6000,  0.2000])
    """
    return auxiliary_gradients @ (sensitivity * primary_gradient)


def scale_gradient(values: Tensor, factor: Tensor) -> Tensor:
    """Gives back the same values; their gradient is multiplied by a factor on its way back.

    Args:
        values: Any shape.
        factor: Finite, of a shape that broadcasts to that of the values.

    Returns:
        The values, to the bit.

    >>> x = torch.tensor(3.0, requires_grad=True)
    >>> scale_gradient(x, torch.tensor(0.5)).backward()
    >>> x.grad
    tensor(0.5000)
    """
    return values.detach() + factor * (values - values.detach())
