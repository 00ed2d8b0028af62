"""Generated auxiliary labels: which sub-classes they may use, what they cost, and how they are kept from collapsing.

The sub-classes of primary class 0 come first, then those of class 1, and so on: A in all (Liu et al. 2019,
"Self-Supervised Generalisation with Meta Auxiliary Learning", MAXL).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_priors.errors import PriorError
from lightning_priors.functional.precision import at_least_float32

MOST_SUB_CLASSES = 100_000
"""Of all primary classes; each is a row of weights and a column of every batch's labels."""


def hierarchy(psi: int | Sequence[int], num_classes: int) -> list[int]:
    """Lists the number of sub-classes of each primary class.

    Args:
        psi: One number for all primary classes, or one for each.
        num_classes: Number of primary classes C.

    Returns:
        C numbers.

    Raises:
        PriorError: If there are not C numbers, or one is below 1.

    >>> hierarchy(5, num_classes=3), hierarchy([1, 7], num_classes=2)
    ([5, 5, 5], [1, 7])
    """
    counts = [psi] * num_classes if isinstance(psi, int) else list(psi)
    if len(counts) != num_classes:
        raise PriorError(f"subclasses gives {len(counts)} numbers, but there are {num_classes} primary classes")
    if min(counts) < 1:
        raise PriorError(f"subclasses: each primary class needs at least one sub-class, not {psi}")
    if sum(counts) > MOST_SUB_CLASSES:
        raise PriorError(f"subclasses: {sum(counts):,} sub-classes are more than {MOST_SUB_CLASSES:,}")
    return counts


def hierarchy_mask(sub_classes: Sequence[int]) -> Tensor:
    """Marks which sub-classes belong to which primary class.

    Args:
        sub_classes: C numbers of sub-classes, see `hierarchy`.

    Returns:
        (C, A) bool; row y is the mask of an image of primary class y.

    >>> hierarchy_mask([1, 2])
    tensor([[ True, False, False],
            [False,  True,  True]])
    """
    owner = torch.repeat_interleave(torch.arange(len(sub_classes)), torch.tensor(list(sub_classes)))
    return owner == torch.arange(len(sub_classes))[:, None]


def masked_softmax(logits: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """Computes the softmax over the sub-classes of each image's primary class (MAXL, section 3.3).

    Args:
        logits: (B, A).
        mask: (B, A) bool with at least one true entry in each row: ``hierarchy_mask(...)[label]``.
        temperature: Above 0; below 1 the labels are harder, above 1 softer.

    Returns:
        (B, A) float32 or float64; rows add up to 1 and are exactly zero outside the mask.

    Raises:
        ValueError: If the temperature is not positive.

    >>> masked_softmax(torch.tensor([[5.0, 1000.0, 1000.0]]), torch.tensor([[False, True, True]]))
    tensor([[0.0000, 0.5000, 0.5000]])
    """
    return _scaled(logits, mask, temperature).softmax(1)


def sinkhorn(logits: Tensor, mask: Tensor, temperature: float = 1.0, iterations: int = 3) -> Tensor:
    """Balances labels: each sub-class gets an equal share of its primary class's images (Cuturi 2013, algorithm 1).

    Columns are scaled to their share and rows to 1 in turn, in logarithms, the rows last. Once this has converged, the
    labels cannot all use the same sub-class. Differentiable through its iterations.

    Args:
        logits: (B, A) of the whole batch, of all ranks: shares are counted over it.
        mask: (B, A) bool with at least one true entry in each row.
        temperature: Above 0.
        iterations: Number of rounds.

    Returns:
        (B, A) float32 or float64; rows add up to 1 and are exactly zero outside the mask.

    Raises:
        ValueError: If the temperature is not positive.

    >>> logits = torch.tensor([[2.0, 0.0], [1.0, 0.0]])
    >>> sinkhorn(logits, torch.ones(2, 2, dtype=torch.bool), iterations=50).sum(0).round(decimals=4)
    tensor([1., 1.])
    """
    log_labels = _scaled(logits, mask, temperature)
    present = mask.any(0)  # sub-classes whose primary class occurs in the batch
    share = (mask / mask.sum(1, keepdim=True)).sum(0).to(log_labels.dtype)
    log_share = torch.where(present, share, 1.0).log()
    for _ in range(iterations):
        column = torch.where(present, log_labels, 0.0).logsumexp(0)
        log_labels = log_labels + torch.where(present, log_share - column, 0.0)
        log_labels = log_labels - log_labels.logsumexp(1, keepdim=True)
    return log_labels.softmax(1)


def soft_label_loss(losses: Tensor, labels: Tensor) -> Tensor:
    """Computes the mean loss of a batch with soft labels (MAXL, section 3.2).

    Args:
        losses: (B, A), see `lightning_priors.functional.focal.per_class_losses`.
        labels: (B, A) distributions.

    Returns:
        ().

    >>> soft_label_loss(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.5, 0.5]]))
    tensor(2.)
    """
    return (labels * losses).sum(1).mean()


def label_entropy(mean_label: Tensor) -> Tensor:
    """Computes ``sum_k q_k log q_k`` of the mean label, which guards against collapse (MAXL, section 3.4).

    It is the negative entropy, so adding it to a loss spreads the labels over the sub-classes.

    Args:
        mean_label: (A,) mean of the labels over the batch, of all ranks.

    Returns:
        (), at least -log A; sub-classes that no image may use count nothing.

    >>> label_entropy(torch.tensor([0.5, 0.5, 0.0]))
    tensor(-0.6931)
    """
    used = mean_label > 0
    return torch.where(used, mean_label * torch.where(used, mean_label, 1.0).log(), 0.0).sum()


def _scaled(logits: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Logits over temperature, minus infinity outside the mask."""
    if temperature <= 0:
        raise ValueError(f"the temperature is a positive number, not {temperature}")
    return (at_least_float32(logits) / temperature).masked_fill(~mask, -torch.inf)
