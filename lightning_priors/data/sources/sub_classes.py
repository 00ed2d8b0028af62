"""Auxiliary labels without annotation: each primary class is divided into sub-classes, at random or by similarity."""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import ClusterError, kmeans2
from torch.nn.functional import adaptive_avg_pool2d

from lightning_priors.data.sources.base import RawSample, Source
from lightning_priors.data.sources.wrapper import AddedTasks, read_each
from lightning_priors.errors import PriorError

CELLS = 8  # along each side of a thumbnail
ITERATIONS = 50  # of k-means, which converges earlier on a few thousand thumbnails
STARTS = 10  # tries of k-means, which is started anew after a cluster has become empty


class SubClasses(AddedTasks):
    """Adds one auxiliary task whose classes are sub-classes of the primary ones, such as "kakapo 1".

    A subclass names the task and divides the images of one primary class in `divide`.

    Args:
        source: The wrapped source.
        sub_classes: Number of sub-classes: one number for all primary classes, or one for each.
        seed: Seed of the division.

    Raises:
        PriorError: In `setup` and `aux_classes`, if the numbers of sub-classes do not fit the primary classes.

    Example:
        >>> from lightning_priors.data.sources import Kakapo
        >>> class Halves(SubClasses):
        ...     task = "half"
        ...     def divide(self, label, count, images, generator):
        ...         return {index: 2 * place // len(images) for place, index in enumerate(images)}
        >>> Halves(Kakapo(), sub_classes=2).aux_classes["half"]
        ['kakapo 1', 'kakapo 2', 'other bird 1', 'other bird 2']
    """

    task: str
    """The name of the auxiliary task."""

    def __init__(self, source: Source, sub_classes: int | Sequence[int] = 5, seed: int = 0) -> None:
        super().__init__(source, seed)
        self.sub_classes = sub_classes

    @abstractmethod
    def divide(self, label: int, count: int, images: Sequence[int], generator: np.random.Generator) -> dict[int, int]:
        """Divides the training images of one primary class.

        Args:
            label: The primary class.
            count: Number of sub-classes.
            images: The indices of its training images.
            generator: Source of all randomness.

        Returns:
            The sub-class of each image by its index, counted from 0 within the primary class.
        """

    @property
    def added_classes(self) -> dict[str, list[str]]:
        """The names of the sub-classes, those of the first primary class first.

        Raises:
            PriorError: If the numbers of sub-classes do not fit the primary classes.
        """
        counts = numbers_of_sub_classes(self.sub_classes, len(self.classes))
        sizes = zip(self.classes, counts, strict=True)
        return {self.task: [f"{name} {number}" for name, count in sizes for number in range(1, count + 1)]}

    def added_labels(self) -> dict[int, list[int]]:
        """Divides the training images of each primary class."""
        images: dict[int, list[int]] = {}
        for index in self.source.indices("train"):
            images.setdefault(self.source.label(index), []).append(index)
        labels, first = {}, 0
        for label, count in enumerate(numbers_of_sub_classes(self.sub_classes, len(self.classes))):
            if label in images:
                generator = np.random.default_rng((self.seed, label))
                divided = self.divide(label, count, images[label], generator)
                labels.update({index: [first + number] for index, number in divided.items()})
            first += count
        return labels


class RandomSubClasses(SubClasses):
    """Adds the auxiliary task ``random``: divides each primary class at random into sub-classes of equal size.

    These labels carry no information beyond the primary class. They are the control for sub-classes that a network or
    a clustering makes (the baseline "random" of Liu et al. 2019, "Self-Supervised Generalisation with Meta Auxiliary
    Learning"). The draw depends on the seed and on the source's training split alone. Images outside of the training
    split have no label.

    Args:
        source: Any source.
        sub_classes: Number of sub-classes: one number for all primary classes, or one for each.
        seed: Seed of the draw.

    Raises:
        PriorError: In `setup` and `aux_classes`, if the numbers of sub-classes do not fit the primary classes.

    Example:
        >>> from lightning_priors.data.sources import Kakapo
        >>> source = RandomSubClasses(Kakapo(size=32), sub_classes=[1, 2])
        >>> source.setup()
        >>> source.aux_classes["random"], source.load(0)["label"], source.load(0)["aux_labels"]
        (['kakapo 1', 'other bird 1', 'other bird 2'], 1, [3, 1])
    """

    task = "random"

    def divide(self, label: int, count: int, images: Sequence[int], generator: np.random.Generator) -> dict[int, int]:
        """Deals the images out in a random order."""
        order = generator.permutation(images).tolist()
        return {index: place % count for place, index in enumerate(order)}


class ClusteredLabels(SubClasses):
    """Adds the auxiliary task ``clusters``: divides each primary class into clusters of images that look alike.

    k-means (Lloyd 1982; started by k-means++, Arthur and Vassilvitskii 2007) compares thumbnails of 8 x 8 cells, which
    have the mean colour of each part of an image. It sees all images of the source's training split, including those
    that the data module sets aside for validation or leaves out of a subset. Images outside of the training split
    have no label.

    `setup` reads every training image once.

    Args:
        source: Any source.
        sub_classes: Number of clusters: one number for all primary classes, or one for each.
        seed: Seed of the starting points.

    Raises:
        PriorError: In `setup`, if a primary class has fewer different images than clusters; in `setup` and
            `aux_classes`, if the numbers of clusters do not fit the primary classes.

    Example:
        >>> from lightning_priors.data.sources import Kakapo
        >>> source = ClusteredLabels(Kakapo(train_size=20, size=32), sub_classes=[1, 2])
        >>> source.setup()
        >>> source.load(0)["label"], source.load(0)["aux_labels"][1] in (1, 2)
        (1, True)
    """

    task = "clusters"

    def divide(self, label: int, count: int, images: Sequence[int], generator: np.random.Generator) -> dict[int, int]:
        """Clusters the thumbnails of the images.

        Raises:
            PriorError: If there are fewer different thumbnails than clusters.
        """
        thumbnails = read_each(self.source, images, thumbnail)
        if not thumbnails:
            return {}
        points = np.stack(list(thumbnails.values()))
        different = len(np.unique(points, axis=0))
        if different < count:
            raise PriorError(
                f"sub_classes is {count}, but the class {self.classes[label]!r} has {different} different training "
                "images"
            )
        return dict(zip(thumbnails, clusters(points, count, generator).tolist(), strict=True))


def numbers_of_sub_classes(sub_classes: int | Sequence[int], num_classes: int) -> list[int]:
    """Returns the number of sub-classes of each primary class.

    Args:
        sub_classes: One number for all primary classes, or one for each.
        num_classes: Number C of primary classes.

    Returns:
        C numbers.

    Raises:
        PriorError: If there are not C numbers, or one is below 1.

    >>> numbers_of_sub_classes(5, num_classes=2), numbers_of_sub_classes([1, 9], num_classes=2)
    ([5, 5], [1, 9])
    """
    counts = [sub_classes] * num_classes if isinstance(sub_classes, int) else list(sub_classes)
    if len(counts) != num_classes:
        raise PriorError(f"sub_classes gives {len(counts)} numbers for {num_classes} classes")
    if min(counts) < 1:
        raise PriorError(f"sub_classes is at least 1, not {min(counts)}")
    return counts


def thumbnail(sample: RawSample) -> NDArray[np.float64]:
    """Shrinks an image to 8 x 8 cells.

    Args:
        sample: An image (3, H, W) as its source gives it.

    Returns:
        (192,), the mean of each channel in each cell, in [0, 255].

    >>> from lightning_priors.data.sources import Kakapo
    >>> thumbnail(Kakapo(size=32).load(0)).shape
    (192,)
    """
    cells: NDArray[np.float64] = adaptive_avg_pool2d(sample["image"].double(), CELLS).flatten().numpy()
    return cells


def clusters(points: NDArray[np.float64], count: int, generator: np.random.Generator) -> NDArray[np.int32]:
    """Divides points into clusters with k-means.

    Args:
        points: (N, D), with at least `count` different ones.
        count: Number of clusters; none is empty.
        generator: Source of the starting points.

    Returns:
        (N,), the cluster of each point, from 0.

    Raises:
        PriorError: If clusters become empty from all starting points that are tried.

    >>> found = clusters(np.array([[0.0], [10.0], [1.0], [11.0]]), 2, np.random.default_rng(0))
    >>> bool(found[0] == found[2] != found[1] == found[3])
    True
    """
    for _ in range(STARTS):
        with suppress(ClusterError):
            found: NDArray[np.int32] = kmeans2(
                points, count, iter=ITERATIONS, minit="++", missing="raise", seed=generator
            )[1]
            return found
    raise PriorError(f"k-means finds no {count} clusters in {len(points)} images: take fewer sub_classes")
