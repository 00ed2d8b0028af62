"""Finding parts on a feature map, learned from the boxes of some images."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_priors.functional.precision import at_least_float32
from lightning_priors.nn.cells import HIDDEN_CHANNELS, hidden_layers


class PartLocator(nn.Module):
    """One box for each part, by a small convolutional head on a feature map.

    For each part a cell says how likely the part's centre lies in it (a softmax over the cells), and where the box is
    if so: the centre's offset from the cell's centre and the logarithm of the sides, in cells. This is an anchor-free
    detector (Zhou, Wang and Krähenbühl 2019, "Objects as Points", section 3) for parts that an image has once. As
    there, a 3x3 convolution comes before the linear map of each cell.

    Args:
        num_features: Channels C of the feature map; one with cells finer than the parts serves best.
        num_parts: Number of parts K.

    >>> locator = PartLocator(num_features=8, num_parts=1)
    >>> locator(torch.rand(2, 8, 4, 4), image_size=(64, 64)).shape
    torch.Size([2, 1, 4])
    """

    def __init__(self, num_features: int, num_parts: int) -> None:
        super().__init__()
        self.predict = nn.Sequential(*hidden_layers(num_features), nn.Conv2d(HIDDEN_CHANNELS, 5 * num_parts, 1))

    def forward(self, features: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Finds the parts.

        Args:
            features: (B, C, h, w).
            image_size: Height H and width W in pixels.

        Returns:
            (B, K, 4) xyxy in pixels.
        """
        heat, place = self._predictions(features)
        cell = heat.argmax(2)
        return self._to_boxes(self._at(place, cell), cell, features.shape[2:], image_size)

    def loss(self, features: Tensor, boxes: Tensor, valid: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Cross entropy of the centre's cell plus the smooth L1 distance of the box, over the annotated parts.

        Args:
            features: (B, C, h, w).
            boxes: (B, K, 4) xyxy in pixels.
            valid: (B, K) bool; the other boxes may hold anything finite.
            image_size: Height H and width W in pixels.

        Returns:
            (); zero, still part of the graph, when no part is annotated.
        """
        heat, place = self._predictions(features)
        cell, target = self._to_places(boxes, features.shape[2:], image_size)
        where = F.cross_entropy(heat.flatten(0, 1), cell.flatten(), reduction="none").view_as(cell)
        what = F.smooth_l1_loss(self._at(place, cell), target, reduction="none").sum(2)
        return torch.where(valid, where + what, 0.0).sum() / valid.sum().clamp(min=1)

    def _predictions(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of the cells (B, K, h * w), and the places (B, K, 4, h * w) that they would give."""
        cells = features.shape[2] * features.shape[3]
        predicted = at_least_float32(self.predict(features)).reshape(len(features), -1, 5, cells)
        return predicted[:, :, 0], predicted[:, :, 1:]

    @staticmethod
    def _at(place: Tensor, cell: Tensor) -> Tensor:
        """The places (B, K, 4) that cells (B, K) give."""
        return place.gather(3, cell[..., None, None].expand(-1, -1, 4, 1)).squeeze(3)

    @staticmethod
    def _to_boxes(place: Tensor, cell: Tensor, grid: torch.Size, image_size: tuple[int, int]) -> Tensor:
        """Boxes (B, K, 4) in pixels from places (B, K, 4) in cells."""
        stride = place.new_tensor([image_size[1] / grid[1], image_size[0] / grid[0]])
        centre = torch.stack([cell % grid[1], cell // grid[1]], 2) + 0.5 + place[..., :2]
        half = place[..., 2:].clamp(max=8).exp() / 2  # no box is thousands of cells wide
        return torch.cat([(centre - half) * stride, (centre + half) * stride], 2)

    @staticmethod
    def _to_places(boxes: Tensor, grid: torch.Size, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The cells (B, K) of the boxes' centres, and the places (B, K, 4) that would give the boxes."""
        stride = boxes.new_tensor([image_size[1] / grid[1], image_size[0] / grid[0]])
        centre = (boxes[..., :2] + boxes[..., 2:]) / 2 / stride
        sides = ((boxes[..., 2:] - boxes[..., :2]) / stride).clamp(min=1e-2)
        column, row = (centre[..., axis].floor().long().clamp(0, grid[1 - axis] - 1) for axis in (0, 1))
        offset = centre - torch.stack([column, row], -1) - 0.5
        return row * grid[1] + column, torch.cat([offset, sides.log()], -1)
