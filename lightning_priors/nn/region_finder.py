"""Finding a target's region on a feature map, learned from the annotation of some images."""

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_priors.functional.guidance import masked_mean
from lightning_priors.functional.precision import at_least_float32
from lightning_priors.nn.cells import HIDDEN_CHANNELS, hidden_layers


class RegionFinder(nn.Module):
    """A region for each image, by a small convolutional head on a feature map.

    A segmentation head (Long, Shelhamer and Darrell 2015, "Fully Convolutional Networks for Semantic Segmentation") at
    the resolution of the map: each cell says how much of it the target covers.

    Args:
        num_features: Channels C of the feature map; one with cells finer than the target serves best.

    >>> import torch
    >>> finder = RegionFinder(num_features=8)
    >>> finder(torch.rand(2, 8, 4, 4)).shape
    torch.Size([2, 4, 4])
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.predict = nn.Sequential(*hidden_layers(num_features), nn.Conv2d(HIDDEN_CHANNELS, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Finds the regions.

        Args:
            features: (B, C, h, w).

        Returns:
            (B, h, w) logits, whose sigmoid is the region.
        """
        return at_least_float32(self.predict(features)).squeeze(1)


def region_loss(logits: Tensor, prior: Tensor, valid: Tensor) -> Tensor:
    """The binary cross entropy of the cells, the mean over the annotated images.

    Args:
        logits: (B, h, w) of the regions.
        prior: (B, h, w) in [0, 1].
        valid: (B,) bool; the priors of other images may hold anything finite.

    Returns:
        (); zero, still part of the graph, when no image is annotated.

    >>> import torch
    >>> region_loss(torch.zeros(2, 1, 1), torch.tensor([[[1.0]], [[0.3]]]), torch.tensor([True, False]))
    tensor(0.6931)
    """
    cells = F.binary_cross_entropy_with_logits(logits, prior, reduction="none")
    return masked_mean(cells.mean((1, 2)), valid)
