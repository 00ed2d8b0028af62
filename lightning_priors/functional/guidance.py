"""Losses between where the evidence lies and where the target is.

A guidance loss takes a saliency map of either sign, positive where the picture speaks for the label, such as a class
activation map. The five of Rao et al. 2023, "Studying How to Efficiently and Effectively Guide Models with
Explanations", do not change when the map is multiplied by a positive number. An attention loss takes the logits of an
attention map in [0, 1].

All of them work in float32 at least, also under autocast, and give one number per image, to be averaged over the
annotated images by `masked_mean`. Maps that hold no evidence give a constant with zero gradient, never a NaN.
"""

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_priors.functional.distributed import share_of_count
from lightning_priors.functional.precision import at_least_float32

MapLoss = str | Callable[[Tensor, Tensor], Tensor]
"""A loss by its name, by the dotted name of a user's function, or as a function; see `GUIDANCE_LOSSES`."""

PPCE_FLOOR = 1e-3
"""Added to the normalised map in `ppce_loss`: a cell without evidence costs 6.9 and its gradient is at most 1000."""


def energy_inside(saliency: Tensor, prior: Tensor) -> Tensor:
    """Computes the share of the positive evidence inside the prior, the energy pointing game (equation 2).

    Args:
        saliency: (B, h, w).
        prior: (B, h, w) in [0, 1].

    Returns:
        (B,) in [0, 1]; 0, with zero gradient, for a map without positive evidence.

    >>> energy_inside(torch.tensor([[[3.0, 1.0, -5.0]]]), torch.tensor([[[1.0, 0.0, 0.0]]]))
    tensor([0.7500])
    """
    positive = at_least_float32(saliency).clamp(min=0)
    return _divide((positive * prior).sum((1, 2)), positive.sum((1, 2))).clamp(max=1)


def energy_loss(saliency: Tensor, prior: Tensor) -> Tensor:
    """Computes the share of the positive evidence that lies outside the prior (equation 6, moved to [0, 1]).

    Args:
        saliency: (B, h, w).
        prior: (B, h, w) in [0, 1].

    Returns:
        (B,) in [0, 1]; 1, with zero gradient, for a map without positive evidence.

    >>> energy_loss(torch.tensor([[[3.0, 1.0, -5.0]]]), torch.tensor([[[1.0, 0.0, 0.0]]]))
    tensor([0.2500])
    """
    return 1 - energy_inside(saliency, prior)


def energy_both_signs_loss(saliency: Tensor, prior: Tensor) -> Tensor:
    """Averages two shares that lie outside the prior: of the evidence for the label and of that against it.

    A network can also decide by what the background speaks against; `energy_loss` does not see that. Where a map has
    one sign only, that sign counts alone.

    Args:
        saliency: (B, h, w).
        prior: (B, h, w) in [0, 1].

    Returns:
        (B,) in [0, 1]; 1, with zero gradient, for a map of zeros.

    >>> energy_both_signs_loss(torch.tensor([[[3.0, 1.0, -5.0]]]), torch.tensor([[[1.0, 0.0, 0.0]]]))
    tensor([0.6250])
    """
    saliency = at_least_float32(saliency)
    signs = torch.stack([saliency, -saliency])
    present = (signs > 0).any(3).any(2).to(saliency.dtype)
    losses = torch.stack([energy_loss(sign, prior) for sign in signs])
    return torch.where(present.sum(0) > 0, (losses * present).sum(0) / present.sum(0).clamp(min=1), 1.0)


def l1_loss(saliency: Tensor, prior: Tensor) -> Tensor:
    """Compares the positive evidence, divided by its maximum, with the prior: the mean distance (equation 3).

    Args:
        saliency: (B, h, w).
        prior: (B, h, w) in [0, 1].

    Returns:
        (B,) in [0, 1]; the prior's mean, with zero gradient, for a map without positive evidence.

    >>> l1_loss(torch.tensor([[[2.0, 1.0, -5.0]]]), torch.tensor([[[1.0, 0.0, 0.0]]]))
    tensor([0.1667])
    """
    return (_relative_evidence(saliency) - prior).abs().mean((1, 2))


def ppce_loss(saliency: Tensor, prior: Tensor) -> Tensor:
    """Computes the pixel-wise cross entropy inside the prior: evidence is to be everywhere on the target (equation 4).

    What lies outside costs nothing. The logarithm is that of the positive evidence, divided by its maximum, plus
    `PPCE_FLOOR`, and shifted so that a target full of evidence has loss 0.

    Args:
        saliency: (B, h, w).
        prior: (B, h, w) in [0, 1].

    Returns:
        (B,), from 0 to 6.9; 0 for an empty prior.

    >>> ppce_loss(torch.tensor([[[2.0, 1.0, -5.0]]]), torch.tensor([[[1.0, 1.0, 0.0]]]))
    tensor([0.3461])
    """
    surprise = math.log1p(PPCE_FLOOR) - torch.log(_relative_evidence(saliency) + PPCE_FLOOR)
    return _divide((prior * surprise).sum((1, 2)), prior.sum((1, 2)))


def rrr_loss(saliency: Tensor, prior: Tensor) -> Tensor:
    """Sums squared evidence outside the prior, of a map divided by its greatest magnitude (equation 5).

    Args:
        saliency: (B, h, w).
        prior: (B, h, w) in [0, 1].

    Returns:
        (B,), from 0 to h * w; 0, with zero gradient, for a map of zeros.

    >>> rrr_loss(torch.tensor([[[2.0, 1.0, -1.0]]]), torch.tensor([[[1.0, 0.0, 0.0]]]))
    tensor([0.5000])
    """
    saliency = at_least_float32(saliency)
    relative = _divide(saliency, saliency.abs().amax((1, 2), keepdim=True))
    return ((1 - prior) * relative**2).sum((1, 2))


def attention_bce_loss(logits: Tensor, prior: Tensor) -> Tensor:
    """Computes the binary cross entropy between attention and prior, cell by cell.

    Args:
        logits: (B, h, w), whose sigmoid is the attention.
        prior: (B, h, w) in [0, 1].

    Returns:
        (B,).

    >>> attention_bce_loss(torch.zeros(1, 2, 2), torch.ones(1, 2, 2))
    tensor([0.6931])
    """
    logits = at_least_float32(logits)
    return F.binary_cross_entropy_with_logits(logits, prior.to(logits.dtype), reduction="none").mean((1, 2))


def attention_l1_loss(logits: Tensor, prior: Tensor) -> Tensor:
    """Computes the mean distance between attention and prior.

    Args:
        logits: (B, h, w), whose sigmoid is the attention.
        prior: (B, h, w) in [0, 1].

    Returns:
        (B,) in [0, 1].

    >>> attention_l1_loss(torch.zeros(1, 2, 2), torch.ones(1, 2, 2))
    tensor([0.5000])
    """
    return (at_least_float32(logits).sigmoid() - prior).abs().mean((1, 2))


def attention_energy_loss(logits: Tensor, prior: Tensor) -> Tensor:
    """Computes the share of the attention that lies outside the prior.

    Args:
        logits: (B, h, w), whose sigmoid is the attention.
        prior: (B, h, w) in [0, 1].

    Returns:
        (B,) in [0, 1].

    >>> attention_energy_loss(torch.zeros(1, 1, 4), torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]))
    tensor([0.7500])
    """
    return energy_loss(at_least_float32(logits).sigmoid(), prior)


def attention_ppce_loss(logits: Tensor, prior: Tensor) -> Tensor:
    """Computes the binary cross entropy inside the prior alone: attention is to be everywhere on the target.

    Args:
        logits: (B, h, w), whose sigmoid is the attention.
        prior: (B, h, w) in [0, 1].

    Returns:
        (B,); 0 for an empty prior.

    >>> attention_ppce_loss(torch.zeros(1, 1, 2), torch.tensor([[[1.0, 0.0]]]))
    tensor([0.6931])
    """
    return _divide(-(prior * F.logsigmoid(at_least_float32(logits))).sum((1, 2)), prior.sum((1, 2)))


def attention_kl_loss(logits: Tensor, prior: Tensor) -> Tensor:
    """Computes the Kullback-Leibler divergence of the attention from the prior, both distributions over the cells.

    Args:
        logits: (B, h, w), whose softmax over all cells is the attention; the logarithm of an attention that is a
            distribution already, such as a class token's, is its own logit.
        prior: (B, h, w) in [0, 1], divided by its sum here.

    Returns:
        (B,), 0 or more; 0 for an empty prior.

    >>> attention_kl_loss(torch.zeros(1, 1, 2), torch.tensor([[[1.0, 0.0]]]))
    tensor([0.6931])
    """
    attention = F.log_softmax(at_least_float32(logits).flatten(1), 1)
    target = prior.to(attention.dtype).flatten(1)
    target = _divide(target, target.sum(1, keepdim=True))
    return (torch.xlogy(target, target) - target * attention).sum(1)


GUIDANCE_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "energy": energy_loss,
    "energy_both_signs": energy_both_signs_loss,
    "l1": l1_loss,
    "ppce": ppce_loss,
    "rrr": rrr_loss,
}
"""By name; each takes a saliency map (B, h, w) and a prior (B, h, w) and gives (B,)."""
ATTENTION_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bce": attention_bce_loss,
    "l1": attention_l1_loss,
    "energy": attention_energy_loss,
    "ppce": attention_ppce_loss,
    "kl": attention_kl_loss,
}
"""By name; each takes the logits of an attention (B, h, w) and a prior (B, h, w) and gives (B,)."""


def masked_mean(loss: Tensor, valid: Tensor) -> Tensor:
    """Computes the mean over the annotated images; the others change neither it nor its gradient.

    Args:
        loss: (B,), which may be anything, also NaN, where not valid.
        valid: (B,) bool.

    Returns:
        (); zero, still part of the graph, when no image is annotated. Its mean over the ranks of a data-parallel
        training is the mean over the annotated images of all of them.

    >>> masked_mean(torch.tensor([1.0, 3.0, 100.0]), torch.tensor([True, True, False]))
    tensor(2.)
    """
    return torch.where(valid, loss, 0.0).sum() / share_of_count(valid)


def _relative_evidence(saliency: Tensor) -> Tensor:
    """The positive part divided by its maximum (B, h, w), in [0, 1]."""
    positive = at_least_float32(saliency).clamp(min=0)
    return _divide(positive, positive.amax((1, 2), keepdim=True))


def _divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient; where the denominator is 0 the result is 0 and no gradient passes."""
    empty = denominator == 0
    return torch.where(empty, 0.0, numerator / torch.where(empty, 1.0, denominator))
