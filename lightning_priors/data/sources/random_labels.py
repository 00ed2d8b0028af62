"""Auxiliary labels that say nothing: the control for what auxiliary labels are good for."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from lightning_priors.data.sources.base import RawSample, Source, Split
from lightning_priors.data.sources.reading import look_up, named_once
from lightning_priors.errors import PriorError


class RandomLabels(Source):
    """A source with a random twin of each auxiliary task, called ``random_<task>``.

    The twin has the same classes and, within each primary class, the same labels, but exchanged at random among the
    images. So it is as complex as the task and tells the primary class as well, but nothing beyond (the baseline
    "random" of Liu et al. 2019, "Self-Supervised Generalisation with Meta Auxiliary Learning"). Outside the training
    split it has no labels.

    All training images are read once, in `setup`.

    Args:
        source: Any source with auxiliary tasks.
        twins: Which of its tasks get a twin; all if not given.
        seed: Of the exchange.

    Raises:
        PriorError: If the source raises it, or has no such task.

    Example:
        >>> from lightning_priors.data.sources import Kakapo
        >>> source = RandomLabels(Kakapo(train_size=20, val_size=2, test_size=2, size=32))
        >>> source.setup()
        >>> list(source.aux_classes), source.load(source.indices("test")[0])["aux_labels"][1]
        (['species', 'random_species'], -1)
    """

    def __init__(self, source: Source, twins: Sequence[str] | None = None, seed: int = 0) -> None:
        self.source = source
        self.twins = twins
        self.seed = seed

    @property
    def classes(self) -> list[str]:
        """Those of the source."""
        return self.source.classes

    @property
    def aux_classes(self) -> dict[str, list[str]]:
        """The auxiliary tasks of the source, then the twins."""
        known = self.source.aux_classes
        return known | {f"random_{task}": known[task] for task in self._tasks}

    @property
    def group_names(self) -> list[str]:
        """Those of the source."""
        return self.source.group_names

    @property
    def part_names(self) -> list[str]:
        """Those of the source."""
        return self.source.part_names

    @property
    def keypoint_names(self) -> list[str]:
        """Those of the source."""
        return self.source.keypoint_names

    def prepare_data(self) -> None:
        """Lets the source download what it needs."""
        self.source.prepare_data()

    def setup(self) -> None:
        """Lets the source read its files, then exchanges labels.

        Raises:
            PriorError: If the source raises it, or has no such task.
        """
        self.source.setup()
        _ = self._labels

    def indices(self, split: Split) -> list[int]:
        """Those of the source."""
        return self.source.indices(split)

    def label(self, index: int) -> int:
        """That of the source."""
        return self.source.label(index)

    def load(self, index: int) -> RawSample:
        """The image of the source with the labels of the twins added."""
        sample = self.source.load(index)
        sample["aux_labels"] = sample["aux_labels"] + self._labels.get(index, [-1] * len(self._tasks))
        return sample

    @cached_property
    def _tasks(self) -> dict[str, int]:
        """The tasks with a twin and their columns."""
        columns = named_once(self.source.aux_classes, "auxiliary task")
        if not columns:
            raise PriorError(f"RandomLabels: {type(self.source).__name__} has no auxiliary tasks here")
        names = list(columns) if self.twins is None else self.twins
        return {name: look_up(columns, name, "auxiliary task", "option twins") for name in names}

    @cached_property
    def _labels(self) -> dict[int, list[int]]:
        """The labels of the twins of each training image."""
        indices = self.source.indices("train")
        primary = np.array([self.source.label(index) for index in indices])
        given = np.array([self.source.load(index)["aux_labels"] for index in indices])
        columns = []
        for number, column in enumerate(self._tasks.values()):
            labels = given[:, column].copy()
            for value in np.unique(primary):
                rows = np.flatnonzero(primary == value)
                generator = np.random.default_rng((self.seed, number, int(value)))
                labels[rows] = labels[generator.permutation(rows)]
            columns.append(labels)
        return dict(zip(indices, np.stack(columns, 1).tolist(), strict=True))
