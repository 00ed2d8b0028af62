"""The layers that small heads on a feature map have in common."""

from torch import nn

HIDDEN_CHANNELS = 128
"""Channels of the features that a head makes for itself."""


def hidden_layers(num_features: int) -> list[nn.Module]:
    """Makes a 3x3 convolution, batch normalisation, as features of an early stage have any scale, and ReLU.

    Args:
        num_features: Channels C of the feature map.

    Returns:
        Layers from (B, C, h, w) to (B, `HIDDEN_CHANNELS`, h, w).

    >>> import torch
    >>> nn.Sequential(*hidden_layers(8))(torch.rand(2, 8, 4, 5)).shape
    torch.Size([2, 128, 4, 5])
    """
    convolution = nn.Conv2d(num_features, HIDDEN_CHANNELS, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(HIDDEN_CHANNELS), nn.ReLU()]
