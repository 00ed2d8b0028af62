"""Class activation maps: where in the picture the evidence for a class lies.

For a head that is linear on each cell and then takes the mean, the map of a class adds up to its logit exactly:
``cam.mean((2, 3)) + bias == logits``. All other functions here keep that identity.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_priors.functional.precision import at_least_float32


def class_activation_map(features: Tensor, weight: Tensor) -> Tensor:
    """Computes the evidence for each class in each cell (Zhou et al. 2016, "Learning Deep Features", equation 2).

    Args:
        features: (B, C, h, w) feature map before the mean.
        weight: (K, C) of the linear head.

    Returns:
        (B, K, h, w), differentiable in both.

    >>> class_activation_map(torch.ones(1, 2, 1, 3), torch.tensor([[1.0, 2.0]]))
    tensor([[[[3., 3., 3.]]]])
    """
    return torch.einsum("bchw,kc->bkhw", features, weight)


def logits_from_cam(cam: Tensor, bias: Tensor) -> Tensor:
    """Computes the logits that belong to class activation maps.

    Args:
        cam: (B, K, h, w).
        bias: (K,) of the linear head.

    Returns:
        (B, K).

    >>> logits_from_cam(torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([0.5]))
    tensor([[2.5000]])
    """
    return cam.mean((2, 3)) + bias


def signed_cam(cam: Tensor) -> Tensor:
    """Makes one map of two classes: negative where the evidence is for class 0, positive where it is for class 1.

    Its mean plus ``bias[1] - bias[0]`` is the log-odds of class 1.

    Args:
        cam: (B, 2, h, w).

    Returns:
        (B, h, w), the map of class 1 minus that of class 0.

    Raises:
        ValueError: If there are not two classes.

    >>> signed_cam(torch.tensor([[[[1.0, 0.0]], [[0.0, 4.0]]]]))
    tensor([[[-1.,  4.]]])
    """
    if cam.shape[1] != 2:
        raise ValueError(f"the signed map is defined for two classes, not {cam.shape[1]}")
    return cam[:, 1] - cam[:, 0]


def evidence_map(cam: Tensor, label: Tensor) -> Tensor:
    """Computes the evidence for a class against the others: its map minus the mean of their maps.

    A map that is added to all classes changes no probability, and it changes nothing here either. With two classes
    this is the signed map, turned so that evidence for the label is positive.

    Args:
        cam: (B, K, h, w) with K at least 2.
        label: (B,) int64, the class asked about.

    Returns:
        (B, h, w), positive where the picture speaks for the label.

    Raises:
        ValueError: If there is only one class.

    >>> evidence_map(torch.tensor([[[[1.0, 0.0]], [[0.0, 4.0]]]]), torch.tensor([0]))
    tensor([[[ 1., -4.]]])
    """
    classes = cam.shape[1]
    if classes < 2:
        raise ValueError("evidence for one class against the others needs at least two classes")
    chosen = cam.gather(1, label[:, None, None, None].expand(-1, 1, *cam.shape[2:])).squeeze(1)
    return chosen - (cam.sum(1) - chosen) / (classes - 1)


def upsample(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolates maps bilinearly to the size of a picture; each cell's value stands at the cell's centre.

    Args:
        maps: (B, h, w).
        size: Height H and width W in pixels.

    Returns:
        (B, H, W).

    >>> upsample(torch.tensor([[[0.0, 4.0]]]), (1, 4))
    tensor([[[0., 1., 3., 4.]]])
    """
    return F.interpolate(
        at_least_float32(maps).unsqueeze(1), tuple(size), mode="bilinear", align_corners=False
    ).squeeze(1)
