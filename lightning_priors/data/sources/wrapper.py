"""Bases of sources that add something to another source."""

import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lightning_priors.data.sources.base import Known, RawSample, Source, Split, UnreadableImageError
from lightning_priors.errors import PriorError

Taken = TypeVar("Taken")


class SourceWrapper(Source):
    """Forwards everything to the wrapped source; a subclass overrides what it changes.

    Args:
        source: The wrapped source.

    Example:
        >>> from lightning_priors.data.sources import Kakapo
        >>> class Upright(SourceWrapper):
        ...     classes = ["lying", "standing"]
        >>> Upright(Kakapo()).classes, Upright(Kakapo()).part_names
        (['lying', 'standing'], ['head'])
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    @property
    def classes(self) -> list[str]:
        """The names of the primary classes."""
        return self.source.classes

    @property
    def aux_classes(self) -> dict[str, list[str]]:
        """The class names of each auxiliary task."""
        return self.source.aux_classes

    @property
    def group_names(self) -> list[str]:
        """The names of the groups."""
        return self.source.group_names

    @property
    def part_names(self) -> list[str]:
        """The names of the part boxes."""
        return self.source.part_names

    @property
    def keypoint_names(self) -> list[str]:
        """The names of the keypoints."""
        return self.source.keypoint_names

    @property
    def file_folder(self) -> Path | None:
        """The folder that the names of `file` are relative to."""
        return self.source.file_folder

    def prepare_data(self) -> None:
        """Lets the wrapped source download what it needs."""
        self.source.prepare_data()

    def setup(self) -> None:
        """Lets the wrapped source read its index files."""
        self.source.setup()

    def indices(self, split: Split) -> list[int]:
        """Returns the indices of a split."""
        return self.source.indices(split)

    def label(self, index: int) -> int:
        """Returns the primary label of an image."""
        return self.source.label(index)

    def labels(self, indices: Sequence[int]) -> NDArray[np.int64]:
        """Returns the primary labels of many images."""
        return self.source.labels(indices)

    def known(self, index: int) -> Known:
        """Returns the label, auxiliary labels and group of an image."""
        return self.source.known(index)

    def file(self, index: int) -> str:
        """Returns the file of an image."""
        return self.source.file(index)

    def load(self, index: int) -> RawSample:
        """Reads one image."""
        return self.source.load(index)


def innermost(source: Source) -> Source:
    """Finds the source that reads the data, inside of those that draw splits, leave images out or add tasks.

    Args:
        source: Any source.

    >>> from lightning_priors.data.sources import DrawnSplit, Kakapo
    >>> type(innermost(DrawnSplit(Kakapo()))).__name__
    'Kakapo'
    """
    while isinstance(source, SourceWrapper):
        source = source.source
    return source


class AddedTasks(SourceWrapper):
    """Adds auxiliary tasks to a source; only images of its training split have labels in these tasks.

    A subclass names the tasks in `added_classes` and makes the labels in `added_labels`.

    Args:
        source: The wrapped source.
        seed: Seed of what the subclass draws.

    Example:
        >>> from lightning_priors.data.sources import Kakapo
        >>> class Parity(AddedTasks):
        ...     added_classes = {"parity": ["even", "odd"]}
        ...     def added_labels(self):
        ...         return {index: [index % 2] for index in self.source.indices("train")}
        >>> source = Parity(Kakapo(size=32))
        >>> list(source.aux_classes), source.load(3)["aux_labels"][-1]
        (['species', 'parity'], 1)
    """

    def __init__(self, source: Source, seed: int = 0) -> None:
        super().__init__(source)
        self.seed = seed

    @property
    @abstractmethod
    def added_classes(self) -> dict[str, list[str]]:
        """The class names of each added task.

        Raises:
            PriorError: If an option does not fit the wrapped source.
        """

    @abstractmethod
    def added_labels(self) -> dict[int, list[int]]:
        """Makes the labels of the added tasks; `setup` calls it once, after the wrapped source's own.

        Returns:
            The labels of each training image by its index, one per added task. -1 means no label; an image without an
            entry has no label in any added task.
        """

    @property
    def aux_classes(self) -> dict[str, list[str]]:
        """The auxiliary tasks of the wrapped source, then the added ones.

        Raises:
            PriorError: If the wrapped source has a task of the same name.
        """
        known, added = self.source.aux_classes, self.added_classes
        for task in added:
            if task in known:
                raise PriorError(f"{type(self).__name__}: the data already has an auxiliary task {task!r}")
        return known | added

    def setup(self) -> None:
        """Lets the wrapped source read its index files, then makes the labels.

        Raises:
            PriorError: If the wrapped source raises it, or an option does not fit it.
        """
        if self.seed < 0:
            raise PriorError(f"{type(self).__name__}: seed must not be negative, not {self.seed}")
        self.source.setup()
        _ = self.aux_classes, self._labels

    def known(self, index: int) -> Known:
        """Returns the label, auxiliary labels and group of an image, those of the added tasks included."""
        known = self.source.known(index).copy()
        known["aux_labels"] = known.get("aux_labels", []) + self._added(index)
        return known

    def load(self, index: int) -> RawSample:
        """Reads one image and appends the labels of the added tasks."""
        sample = self.source.load(index).copy()
        sample["aux_labels"] = sample.get("aux_labels", []) + self._added(index)
        return sample

    def _added(self, index: int) -> list[int]:
        return self._labels.get(index) or [-1] * len(self.added_classes)

    @cached_property
    def _labels(self) -> dict[int, list[int]]:
        return self.added_labels()


def read_each(source: Source, indices: Sequence[int], take: Callable[[RawSample], Taken]) -> dict[int, Taken]:
    """Reads images in several threads and keeps a part of each.

    Args:
        source: The source of the images.
        indices: The indices of the images.
        take: Takes an image and returns what is kept of it.

    Returns:
        What is kept of each image by its index, in the order of `indices`. An image with an unreadable file has no
        entry; the option `on_bad_image` of the data module decides what happens to it.

    >>> from lightning_priors.data.sources import Kakapo
    >>> read_each(Kakapo(size=32), [4, 2], lambda sample: sample["image"].shape[0])
    {4: 3, 2: 3}
    """

    def taken(index: int) -> list[Taken]:
        try:
            return [take(source.load(index))]
        except UnreadableImageError:
            return []

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return {index: kept[0] for index, kept in zip(indices, pool.map(taken, indices), strict=True) if kept}
