"""Labels that are fixed from the start: clusters of what the images look like, and draws by the image's number."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_priors.batch import PriorBatch

STEP = 0x9E3779B97F4A7C15
STREAM = 0x2545F4914F6CDD1D  # an odd multiplier keeps the streams of different seeds apart


def hashed_uniform(index: Tensor, seed: int) -> Tensor:
    """A number between 0 and 1 for each image, the same whenever it is asked for.

    SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").

    Args:
        index: (B,) int64 rows of the data.
        seed: Another seed gives other numbers.

    Returns:
        (B,) float64 in [0, 1).

    >>> hashed_uniform(torch.arange(3), seed=0)
    tensor([0.8833, 0.4315, 0.0264], dtype=torch.float64)
    """
    bits = (index + 1) * _signed(STEP) + _signed(seed * STREAM)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ _shifted(bits, shift)) * _signed(factor)
    return _shifted(bits ^ _shifted(bits, 31), 11).double() / 2**53


def thumbnails(image: Tensor, cells: int = 8) -> Tensor:
    """Images averaged to a few cells, which is what k-means sees of them.

    Args:
        image: (B, 3, H, W).
        cells: Number of cells along each side.

    Returns:
        (B, 3 * cells * cells) float32.

    >>> thumbnails(torch.ones(2, 3, 16, 16)).shape
    torch.Size([2, 192])
    """
    return F.adaptive_avg_pool2d(image.float(), cells).flatten(1)


def k_means(points: Tensor, clusters: int, seed: int = 0, iterations: int = 25) -> Tensor:
    """Cluster centres (Lloyd 1982), from starting points far apart (k-means++, Arthur and Vassilvitskii 2007).

    Args:
        points: (N, D), at least one.
        clusters: Number of clusters; with fewer points some stay where others are, and empty.
        seed: Of the starting points; the state of torch's generators does not change.
        iterations: Greatest number of rounds; it ends when no point changes its cluster.

    Returns:
        (clusters, D); a point belongs to the first of those nearest to it.

    >>> k_means(torch.tensor([[0.0], [10.0], [1.0], [11.0]]), clusters=2).sort(0).values
    tensor([[ 0.5000],
            [10.5000]])
    """
    generator = torch.Generator().manual_seed(seed)
    centres = _starting_points(points, clusters, generator)
    nearest = nearest_centre(points, centres)
    for _ in range(iterations):
        counts = nearest.bincount(minlength=clusters)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
        before, nearest = nearest, nearest_centre(points, centres)
        if torch.equal(before, nearest):
            break
    return centres


def nearest_centre(points: Tensor, centres: Tensor) -> Tensor:
    """The number (N,) of the first of the centres (K, D) that are nearest to each of the points (N, D).

    >>> nearest_centre(torch.tensor([[4.0], [6.0]]), torch.tensor([[0.0], [9.0]]))
    tensor([0, 1])
    """
    return torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)


def cluster_classes(points: Tensor, label: Tensor, sub_classes: Sequence[int], seed: int = 0) -> Tensor:
    """The centres of clusters inside of each primary class.

    Args:
        points: (N, D).
        label: (N,) int64 primary classes.
        sub_classes: Number of sub-classes of each primary class, A in all.
        seed: Of the starting points.

    Returns:
        (A, D), those of primary class 0 first; zero for a class without points.

    >>> cluster_classes(torch.tensor([[0.0], [9.0], [5.0]]), torch.tensor([1, 1, 0]), [1, 2]).flatten()
    tensor([5., 0., 9.])
    """
    centres = points.new_zeros(sum(sub_classes), points.shape[1])
    for number, part in enumerate(torch.split(centres, list(sub_classes))):
        if (own := label == number).any():
            part.copy_(k_means(points[own], len(part), seed))
    return centres


def clusters_in_classes(points: Tensor, label: Tensor, centres: Tensor, sub_classes: Sequence[int]) -> Tensor:
    """The nearest sub-class inside of each primary class.

    Args:
        points: (N, D).
        label: (N,) int64 primary classes.
        centres: (A, D), see `cluster_classes`.
        sub_classes: Number of sub-classes of each primary class, A in all.

    Returns:
        (N,) int64 from 0 to A - 1.

    >>> clusters_in_classes(torch.tensor([[8.0]]), torch.tensor([1]), torch.tensor([[8.0], [9.0], [0.0]]), [1, 2])
    tensor([1])
    """
    clusters, first = torch.zeros_like(label), 0
    for number, part in enumerate(torch.split(centres, list(sub_classes))):
        if (own := label == number).any():
            clusters[own] = first + nearest_centre(points[own], part)
        first += len(part)
    return clusters


class Clusters(NamedTuple):
    """The clusters of the training images, which keep theirs in every view."""

    rows: Tensor
    """(N,) int64 rows of the data, in rising order."""
    number: Tensor
    """(N,) int64, their clusters."""
    centres: Tensor
    """(A, D) of their thumbnails."""

    def of(self, index: Tensor, label: Tensor, image: Tensor, sub_classes: Sequence[int]) -> Tensor:
        """The cluster (B,) of each image; for images that are not of the training, the nearest of their class."""
        place = torch.searchsorted(self.rows, index).clamp(max=len(self.rows) - 1)
        nearest = clusters_in_classes(thumbnails(image), label, self.centres, sub_classes)
        return torch.where(self.rows[place] == index, self.number[place], nearest)


def find_clusters(batches: Iterable[PriorBatch], sub_classes: Sequence[int], seed: int) -> Clusters:
    """Clusters images inside of their primary classes.

    Args:
        batches: All images, once.
        sub_classes: Number of sub-classes of each primary class.
        seed: Of the starting points.

    >>> batch = {"image": torch.rand(2, 3, 8, 8), "label": torch.tensor([1, 0]), "index": torch.tensor([9, 4])}
    >>> find_clusters([batch], [1, 2], seed=0).rows
    tensor([4, 9])
    """
    seen = [(batch["index"], batch["label"], thumbnails(batch["image"])) for batch in batches]
    index, label, points = (torch.cat(parts) for parts in zip(*seen, strict=True))
    centres = cluster_classes(points, label, sub_classes, seed)
    order = index.argsort()
    return Clusters(index[order], clusters_in_classes(points, label, centres, sub_classes)[order], centres)


def random_sub_classes(index: Tensor, label: Tensor, sub_classes: Sequence[int], seed: int) -> Tensor:
    """A sub-class (B,) drawn evenly for each image, the same whenever it is asked for.

    Args:
        index: (B,) int64 rows of the data.
        label: (B,) int64 primary classes.
        sub_classes: Number of sub-classes of each primary class.
        seed: Another seed draws anew.

    >>> random_sub_classes(torch.arange(4), torch.tensor([0, 0, 1, 1]), [1, 3], seed=0)
    tensor([0, 0, 1, 3])
    """
    counts = torch.tensor(list(sub_classes), device=label.device)
    first = counts.cumsum(0) - counts
    return first[label] + (hashed_uniform(index, seed) * counts[label]).long()


def _starting_points(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Points drawn in turn, with the square of the distance to those already drawn as their weight."""
    chosen = [int(torch.randint(len(points), (), generator=generator))]
    distance = points.new_full((len(points),), torch.inf)
    for _ in range(count - 1):
        distance = distance.minimum((points - points[chosen[-1]]).square().sum(1))
        weights = distance if distance.sum() > 0 else torch.ones_like(distance)
        chosen.append(int(weights.multinomial(1, generator=generator)))
    return points[chosen]


def _signed(number: int) -> int:
    """The same 64 bits as torch's int64."""
    return (number + 2**63) % 2**64 - 2**63


def _shifted(bits: Tensor, places: int) -> Tensor:
    """Bits to the right, with zeros coming in; torch would copy the sign."""
    shifted: Tensor = (bits >> places) & (2 ** (64 - places) - 1)
    return shifted
