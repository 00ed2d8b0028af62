"""Which images are most typical of each generated class."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric


class Typical(NamedTuple):
    """The images of one generated class, most typical first; n of them, as many as there are up to the limit."""

    probabilities: list[float]
    """n numbers, how sure the generator is."""
    indices: list[int]
    """n rows in the source."""
    image: Tensor
    """(n, 3, S, S) float32, normalised as they came."""


class TypicalImages(Metric):
    """Collects for each generated class the images that the generator is surest of, over all ranks.

    An image counts for its most probable class. Of equally sure ones the lower index comes first, so that the choice
    does not depend on the number of ranks.

    Args:
        classes: Number of generated classes A.
        images: How many images of each.
        size: Side S of the reduced images in pixels.

    >>> typical = TypicalImages(classes=2, images=1, size=4)
    >>> soft_labels = torch.tensor([[0.9, 0.1], [0.6, 0.4]])
    >>> typical.update(soft_labels, torch.tensor([7, 8]), torch.zeros(2, 3, 8, 8))
    >>> [of_class.indices for of_class in typical.compute()]
    [[7], []]
    """

    full_state_update = False
    is_differentiable = False
    confidence: Tensor
    index: Tensor
    image: Tensor

    def __init__(self, classes: int, images: int, size: int) -> None:
        super().__init__()
        self.images, self.size = images, size
        # one row for each class, filled from the left; what is not filled has confidence -1
        self.add_state("confidence", torch.full((classes, images), -1.0), dist_reduce_fx=None)
        self.add_state("index", torch.full((classes, images), -1), dist_reduce_fx=None)
        self.add_state("image", torch.zeros(classes, images, 3, size, size, dtype=torch.float16), dist_reduce_fx=None)

    def update(self, soft_labels: Tensor, index: Tensor, image: Tensor) -> None:
        """Adds a batch.

        Args:
            soft_labels: (B, A) generated distributions.
            index: (B,) int64 rows in the source.
            image: (B, 3, H, W).
        """
        confidence, choice = soft_labels.float().max(1)
        small = F.interpolate(image.float(), (self.size, self.size), mode="bilinear", antialias=True).half()
        self.confidence, self.index, self.image = self.confidence.clone(), self.index.clone(), self.image.clone()
        for chosen in sorted(set(choice.tolist())):
            rows = (choice == chosen) & ~torch.isin(index, self.index[chosen])  # samplers fill up with repetitions
            confidences = torch.cat([self.confidence[chosen], confidence[rows]])
            indices = torch.cat([self.index[chosen], index[rows]])
            images = torch.cat([self.image[chosen], small[rows]])
            first = _surest_first(confidences, indices)[: self.images]
            self.confidence[chosen], self.index[chosen] = confidences[first], indices[first]
            self.image[chosen] = images[first]

    def compute(self) -> list[Typical]:
        """The images of each of the A classes, on the CPU."""
        classes = self.index.shape[-2]
        ranks = zip(
            self.confidence.cpu().view(-1, classes, self.images).unbind(1),
            self.index.cpu().view(-1, classes, self.images).unbind(1),
            self.image.cpu().view(-1, classes, self.images, 3, self.size, self.size).unbind(1),
            strict=True,
        )
        return [self._merged(c.flatten(), i.flatten(), image.flatten(0, 1)) for c, i, image in ranks]

    def _merged(self, confidence: Tensor, index: Tensor, image: Tensor) -> Typical:
        """What is left of the selections of all ranks; an image may be in several."""
        rows: dict[int, int] = {}
        for row in _surest_first(confidence, index).tolist():
            if index[row] >= 0:
                rows.setdefault(int(index[row]), row)
        once = list(rows.values())[: self.images]
        return Typical(confidence[once].tolist(), index[once].tolist(), image[once].float())


def _surest_first(confidence: Tensor, index: Tensor) -> Tensor:
    """The order from sure to unsure, by index where equally sure."""
    by_index = index.argsort(stable=True)
    return by_index[confidence[by_index].argsort(descending=True, stable=True)]
