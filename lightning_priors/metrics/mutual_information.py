"""How much two groupings of the same images have in common, corrected for chance."""

import torch
from torch import Tensor


def adjusted_mutual_information(counts: Tensor) -> Tensor:
    """The adjusted mutual information of two groupings (Vinh et al. 2010, AMI with the arithmetic mean).

    The mutual information, less what groupings of these sizes have in common by chance, as a share of the most that it
    could be: 1 for the same grouping, 0 on average for unrelated ones, so that it may be a little below 0.

    Args:
        counts: (R, K), how many images are in group r of the one and in group k of the other grouping.

    Returns:
        () float64, on the CPU; nan where there is nothing to compare, as when both have a single group.

    >>> adjusted_mutual_information(torch.tensor([[4, 0], [0, 6]]))
    tensor(1., dtype=torch.float64)
    """
    counts = counts.detach().cpu().double()
    counts = counts[counts.sum(1) > 0][:, counts.sum(0) > 0]
    if not counts.numel():
        return counts.new_tensor(torch.nan)
    total, rows, columns = counts.sum(), counts.sum(1), counts.sum(0)
    shared = torch.xlogy(counts, counts * total / (rows[:, None] * columns)).sum() / total
    by_chance = torch.stack([_expected_of_row(size, columns, total) for size in rows]).sum()
    most = (_entropy(rows / total) + _entropy(columns / total)) / 2
    if most - by_chance < 1e-9:
        return counts.new_tensor(torch.nan)
    return (shared - by_chance) / (most - by_chance)


def _expected_of_row(size: Tensor, columns: Tensor, total: Tensor) -> Tensor:
    """What a group adds to the mutual information when its images are drawn at random (Vinh et al. 2010, eq. 24a).

    The number that it shares with a group of the other grouping then has a hypergeometric distribution.
    """
    most = int(torch.minimum(size, columns.max()))
    overlap = torch.arange(1, most + 1, dtype=torch.float64)
    columns = columns[:, None]
    possible = (overlap <= columns) & (overlap >= size + columns - total)
    log_probability = (
        _log_binomial(columns, overlap)
        + _log_binomial(total - columns, size - overlap)
        - _log_binomial(total, size).expand_as(possible)
    )
    terms = overlap / total * (total * overlap / (size * columns)).log() * log_probability.exp()
    return torch.where(possible, terms, 0.0).sum()


def _log_binomial(of: Tensor, chosen: Tensor) -> Tensor:
    """Logarithm of the binomial coefficient; any finite number where nothing can be chosen."""
    left = (of - chosen).clamp(min=0)
    return torch.lgamma(of + 1) - torch.lgamma(chosen + 1) - torch.lgamma(left + 1)


def _entropy(distribution: Tensor) -> Tensor:
    return -torch.xlogy(distribution, distribution).sum()
