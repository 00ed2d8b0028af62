"""Finding targets and their parts on a feature map, learned from the annotation of some images."""

from torch import Tensor, nn

from lightning_priors.functional.precision import at_least_float32
from lightning_priors.nn.map_layers import HIDDEN_CHANNELS, hidden_layers


class RegionFinder(nn.Module):
    """Regions of each image, by a small convolutional head on a feature map.

    A segmentation head (Long, Shelhamer and Darrell 2015, "Fully Convolutional Networks for Semantic Segmentation") at
    the resolution of the map: each cell says how much of it is covered. For parts whose boxes are known, see
    `lightning_priors.techniques.global_local.parts.covered_boxes`.

    Args:
        num_features: Channels C of the feature map; one with cells finer than the regions serves best.
        num_regions: Number of regions K, such as the parts of a target.

    >>> import torch
    >>> finder = RegionFinder(num_features=8, num_regions=1)
    >>> finder(torch.rand(2, 8, 4, 4)).shape
    torch.Size([2, 1, 4, 4])
    """

    def __init__(self, num_features: int, num_regions: int) -> None:
        super().__init__()
        self.predict = nn.Sequential(*hidden_layers(num_features), nn.Conv2d(HIDDEN_CHANNELS, num_regions, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Finds the regions.

        Args:
            features: (B, C, h, w).

        Returns:
            (B, K, h, w) logits, whose sigmoid is how much of a cell is covered.
        """
        return at_least_float32(self.predict(features))
