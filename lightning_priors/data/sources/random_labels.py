"""Auxiliary labels exchanged at random: the control for the use of real ones."""

from collections.abc import Sequence

import numpy as np

from lightning_priors.data.sources.base import Source
from lightning_priors.data.sources.reading import look_up, named_once
from lightning_priors.data.sources.wrapper import AddedTasks, read_each
from lightning_priors.errors import PriorError


class RandomLabels(AddedTasks):
    """Adds a random twin of each auxiliary task of a source, called ``random_<task>``.

    The twin has the classes of the task and, within each primary class, the same labels exchanged at random among the
    images. So it is as complex as the task and carries the same information about the primary class, but none beyond
    (the baseline "random" of Liu et al. 2019, "Self-Supervised Generalisation with Meta Auxiliary Learning"). Images
    outside of the training split have no label.

    `setup` reads every training image once.

    Args:
        source: Any source with auxiliary tasks.
        twins: The tasks that get a twin; all of them when None.
        seed: Seed of the exchange.

    Raises:
        PriorError: In `setup` and `aux_classes`, if the source has no auxiliary tasks or lacks one of `twins`.

    Example:
        >>> from lightning_priors.data.sources import Kakapo
        >>> source = RandomLabels(Kakapo(train_size=20, val_size=2, test_size=2, size=32))
        >>> source.setup()
        >>> list(source.aux_classes), source.load(source.indices("test")[0])["aux_labels"][1]
        (['species', 'random_species'], -1)
    """

    def __init__(self, source: Source, twins: Sequence[str] | None = None, seed: int = 0) -> None:
        super().__init__(source, seed)
        self.twins = twins

    @property
    def added_classes(self) -> dict[str, list[str]]:
        """The classes of each twin, which are those of its task."""
        return {f"random_{task}": self.source.aux_classes[task] for task in self._twin_columns()}

    def added_labels(self) -> dict[int, list[int]]:
        """Exchanges the labels of each task among the training images of each primary class."""
        known = read_each(self.source, self.source.indices("train"), lambda sample: sample["aux_labels"])
        if not known:
            return {}
        primary = np.array([self.source.label(index) for index in known])
        given = np.array(list(known.values()))
        columns = []
        for number, column in enumerate(self._twin_columns().values()):
            labels = given[:, column].copy()
            for value in np.unique(primary):
                rows = np.flatnonzero(primary == value)
                generator = np.random.default_rng((self.seed, number, int(value)))
                labels[rows] = labels[generator.permutation(rows)]
            columns.append(labels)
        return dict(zip(known, np.stack(columns, 1).tolist(), strict=True))

    def _twin_columns(self) -> dict[str, int]:
        """Returns the column in ``aux_labels`` of each task that gets a twin."""
        columns = named_once(self.source.aux_classes, "auxiliary task")
        if not columns:
            raise PriorError(f"RandomLabels: {type(self.source).__name__} has no auxiliary tasks here")
        names = list(columns) if self.twins is None else self.twins
        return {name: look_up(columns, name, "auxiliary task", "option twins") for name in names}
