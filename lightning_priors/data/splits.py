"""Draws of images for validation, training subsets and annotation, which depend on the seed and the labels alone."""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

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
    held_out = set()
    for members in _shuffled_classes(labels, "holdout", seed).values():
        held_out |= set(members[: _share(len(members), fraction)])
    return [index for index in labels if index not in held_out], [index for index in labels if index in held_out]


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
    chosen = set()
    for members in _shuffled_classes(labels, "subset", seed).values():
        chosen |= set(members[: max(1, round(fraction * len(members)))])
    return [index for index in labels if index in chosen]


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
    chosen = set()
    for label, members in _shuffled_classes(labels, "subset", seed).items():
        if len(members) < number:
            raise PriorError(
                f"images_per_class is {number}, but the class {classes[label]!r} has {len(members)} training images"
            )
        chosen |= set(members[:number])
    return [index for index in labels if index in chosen]


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
    candidates = set(indices)
    order = [index for index in drawn.tolist() if index in candidates]
    chosen = set(order[: round(fraction * len(order))])
    return [index for index in indices if index in chosen]


def _share(count: int, fraction: float) -> int:
    """Returns how many of `count` images are set aside."""
    if count < 2 or fraction in (0, 1):
        return count if fraction == 1 else 0
    return min(max(1, round(fraction * count)), count - 1)


def _shuffled_classes(labels: Mapping[int, int], purpose: str, seed: int) -> dict[int, list[int]]:
    """Returns the indices of each class in the order in which they are drawn."""
    members: dict[int, list[int]] = {}
    for index, label in labels.items():
        members.setdefault(label, []).append(index)
    return {
        label: np.random.default_rng([*_stream(purpose, seed), label]).permutation(members[label]).tolist()
        for label in sorted(members)
    }


def _stream(purpose: str, seed: int) -> list[int]:
    """Returns a seed that differs between purposes, so that their draws are independent."""
    return [zlib.crc32(purpose.encode()), seed]
