"""Draws of images for validation, training subsets and annotation, which depend on the seed and the labels alone."""

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from lightning_priors.errors import PriorError


def stratified_holdout(labels: Mapping[int, int], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Sets a fraction of each class aside.

    Unless the fraction is 0 or 1, a class with two or more images has at least one set aside and keeps at least one.

    Args:
        labels: The label of each index.
        fraction: The fraction that is set aside, in [0, 1].
        seed: Seed of the draw.

    Returns:
        The indices that stay and those that are set aside, each in the order of `labels`.

    >>> stratified_holdout({0: 0, 1: 0, 2: 1, 3: 1}, 0.5, seed=0)
    ([1, 3], [0, 2])
    """
    held_out = np.zeros(len(labels), bool)
    for places in _shuffled_classes(labels, "holdout", seed).values():
        held_out[places[: _share(len(places), fraction)]] = True
    return _those(labels, ~held_out), _those(labels, held_out)


def fraction_of_each(labels: Mapping[int, int], fraction: float, seed: int) -> list[int]:
    """Chooses a fraction of each class, at least one image.

    A larger fraction chooses all images that a smaller one chooses.

    Args:
        labels: The label of each index.
        fraction: The fraction, in (0, 1].
        seed: Seed of the draw.

    Returns:
        The chosen indices in the order of `labels`.

    >>> fraction_of_each({0: 0, 1: 0, 2: 1, 3: 1, 4: 1}, 0.4, seed=0)
    [1, 4]
    """
    chosen = np.zeros(len(labels), bool)
    for places in _shuffled_classes(labels, "subset", seed).values():
        chosen[places[: max(1, round(fraction * len(places)))]] = True
    return _those(labels, chosen)


def number_of_each(labels: Mapping[int, int], number: int, seed: int, classes: Sequence[str]) -> list[int]:
    """Chooses a number of images of each class.

    A larger number chooses all images that a smaller one chooses. `fraction_of_each` chooses in the same order.

    Args:
        labels: The label of each index.
        number: Number of images of each class.
        seed: Seed of the draw.
        classes: The names of the classes, for the message.

    Returns:
        The chosen indices in the order of `labels`.

    Raises:
        PriorError: If a class has fewer images.

    >>> number_of_each({0: 0, 1: 0, 2: 1, 3: 1, 4: 1}, 1, seed=0, classes=["cat", "dog"])
    [1, 4]
    """
    chosen = np.zeros(len(labels), bool)
    for label, places in _shuffled_classes(labels, "subset", seed).items():
        if len(places) < number:
            raise PriorError(
                f"images_per_class is {number}, but the class {classes[label]!r} has {len(places)} training images"
            )
        chosen[places[:number]] = True
    return _those(labels, chosen)


def drawn_subset(indices: Sequence[int], population: Sequence[int], fraction: float, seed: int) -> list[int]:
    """Chooses a fraction of some images, whatever their class.

    A larger fraction chooses all images that a smaller one chooses.

    Args:
        indices: The images to choose from.
        population: All images of the split. It fixes the order of the draw, so that subsets of the split agree.
        fraction: The fraction, in [0, 1].
        seed: Seed of the draw.

    Returns:
        The chosen indices in the order of `indices`.

    >>> drawn_subset([0, 1, 2, 3], range(6), 0.5, seed=0)
    [1, 2]
    """
    drawn = np.random.default_rng(_stream("annotated", seed)).permutation(np.asarray(population, dtype=np.int64))
    candidates = np.asarray(indices, np.int64)
    order = drawn[np.isin(drawn, candidates)]
    return _those(indices, np.isin(candidates, order[: round(fraction * len(order))]))


def evenly_weighted(kinds: Sequence[int]) -> list[float]:
    """Weighs images so that each kind, such as each class, has the same weight in all.

    Args:
        kinds: The kind of each image.

    Returns:
        The weight of each image; they add up to 1.

    >>> evenly_weighted([0, 1, 1])
    [0.5, 0.25, 0.25]
    """
    counts = Counter(kinds)
    return [1 / (len(counts) * counts[kind]) for kind in kinds]


def _share(count: int, fraction: float) -> int:
    """Returns how many of `count` images are set aside."""
    if count < 2 or fraction in (0, 1):
        return count if fraction == 1 else 0
    return min(max(1, round(fraction * count)), count - 1)


def _shuffled_classes(labels: Mapping[int, int], purpose: str, seed: int) -> dict[int, NDArray[np.int64]]:
    """Returns the places of each class among the labels, in the order in which they are drawn."""
    values = np.fromiter(labels.values(), np.int64, len(labels))
    order = np.argsort(values, kind="stable")
    classes, starts = np.unique(values[order], return_index=True)
    return {
        label: np.random.default_rng([*_stream(purpose, seed), label]).permutation(places)
        for label, places in zip(classes.tolist(), np.split(order, starts)[1:], strict=True)
    }


def _those(indices: Iterable[int], chosen: NDArray[np.bool_]) -> list[int]:
    """Returns the indices at the chosen places, in their order."""
    return list(compress(indices, chosen.tolist()))


def _stream(purpose: str, seed: int) -> list[int]:
    """Returns a seed that differs between purposes, so that their draws are independent."""
    return [zlib.crc32(purpose.encode()), seed]
