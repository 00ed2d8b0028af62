"""Labels that are fixed from the start: clusters of what the images look like, and draws by the image's number."""

import torch
import torch.nn.functional as F
from torch import Tensor

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
    """Clusters of points (Lloyd 1982), from starting points far apart (k-means++, Arthur and Vassilvitskii 2007).

    Args:
        points: (N, D).
        clusters: Their greatest number; with fewer points each has its own.
        seed: Of the starting points; the state of torch's generators does not change.
        iterations: Greatest number of rounds; it ends when nothing moves.

    Returns:
        (N,) int64, the cluster of each point.

    >>> k_means(torch.tensor([[0.0], [10.0], [0.1], [10.1]]), clusters=2).bincount()
    tensor([2, 2])
    """
    generator = torch.Generator().manual_seed(seed)
    centres = _starting_points(points, min(clusters, len(points)), generator)
    nearest = torch.cdist(points, centres).argmin(1)
    for _ in range(iterations):
        counts = nearest.bincount(minlength=len(centres))
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
        before, nearest = nearest, torch.cdist(points, centres).argmin(1)
        if torch.equal(before, nearest):
            break
    return nearest


def clusters_in_classes(points: Tensor, label: Tensor, sub_classes: list[int], seed: int = 0) -> Tensor:
    """k-means inside of each primary class: a sub-class for every image.

    Args:
        points: (N, D).
        label: (N,) int64 primary classes.
        sub_classes: Number of sub-classes of each primary class, A in all.
        seed: Of the starting points.

    Returns:
        (N,) int64 from 0 to A - 1; the sub-classes of primary class 0 come first.

    >>> clusters_in_classes(torch.tensor([[0.0], [9.0], [5.0]]), torch.tensor([1, 1, 0]), [3, 2]).sort().values
    tensor([0, 3, 4])
    """
    clusters, first = torch.zeros_like(label), 0
    for number, count in enumerate(sub_classes):
        own = label == number
        if own.any():
            clusters[own] = first + k_means(points[own], count, seed)
        first += count
    return clusters


def _starting_points(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Points drawn in turn, with the square of the distance to those already drawn as their weight."""
    chosen = [int(torch.randint(len(points), (), generator=generator))]
    distance = torch.full((len(points),), torch.inf, dtype=points.dtype)
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
    return (bits >> places) & (2 ** (64 - places) - 1)
