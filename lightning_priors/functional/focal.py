"""The focal loss (Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 4, without class weights)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_priors.functional.precision import at_least_float32


def focal_loss(logits: Tensor, label: Tensor, gamma: float = 2.0, ignore_index: int = -100) -> Tensor:
    """Computes ``-(1 - p)^gamma log p`` of the label's probability p for each image; gamma 0 is cross entropy.

    Args:
        logits: (B, K, ...); -inf for classes that cannot occur.
        label: (B, ...) int64.
        gamma: 0, or 1 and above.
        ignore_index: A label whose loss is 0.

    Returns:
        (B, ...) float32 or float64.

    Raises:
        ValueError: If gamma is another number; below 1 the focal loss has no finite slope at p = 1.

    >>> focal_loss(torch.zeros(1, 2), torch.tensor([0]))
    tensor([0.1733])
    """
    _check(gamma)
    loss = F.cross_entropy(at_least_float32(logits), label, ignore_index=ignore_index, reduction="none")
    return loss if gamma == 0 else (-torch.expm1(-loss)) ** gamma * loss


def per_class_losses(logits: Tensor, gamma: float = 2.0) -> Tensor:
    """Computes the `focal_loss` that each class would cost if it were the label.

    A loss on soft labels is linear in the labels with these as coefficients, which is what makes MAXL's meta-gradient
    cheap.

    Args:
        logits: (B, A).
        gamma: 0 for cross entropy, or 1 and above.

    Returns:
        (B, A) float32 or float64.

    Raises:
        ValueError: As `focal_loss` does.

    >>> per_class_losses(torch.zeros(1, 2), gamma=2.0)
    tensor([[0.1733, 0.1733]])
    """
    _check(gamma)
    log_probability = F.log_softmax(at_least_float32(logits), 1)
    if gamma == 0:
        return -log_probability
    return -((-torch.expm1(log_probability)) ** gamma) * log_probability


def _check(gamma: float) -> None:
    if gamma != 0 and gamma < 1:
        raise ValueError(f"gamma is 0 for cross entropy, or at least 1, not {gamma}")
