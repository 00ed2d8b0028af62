"""Other splits of a source: whole species, or any other kind of image, are held out of the training and tested."""

from collections import Counter
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from lightning_priors.data.sources.base import Source, Split
from lightning_priors.data.sources.reading import look_up, named_once
from lightning_priors.data.sources.wrapper import SourceWrapper
from lightning_priors.errors import PriorError


def deal(labels: Mapping[int, int], folds: int, seed: int) -> dict[int, int]:
    """Divides kinds into folds that have about as many kinds of each label.

    Args:
        labels: The label of each kind.
        folds: Number of folds.
        seed: Seed of the division.

    Returns:
        The fold of each kind.

    Raises:
        PriorError: If there are fewer than two folds, or more than the kinds of some label.

    >>> dealt = deal({10: 0, 11: 0, 20: 1, 21: 1}, folds=2, seed=0)
    >>> sorted(dealt), dealt[10] != dealt[11], dealt[20] != dealt[21]
    ([10, 11, 20, 21], True, True)
    """
    rarest = min(Counter(labels.values()).values())
    if not 2 <= folds <= rarest:
        raise PriorError(f"DrawnSplit: {folds} folds cannot be dealt; from 2 to {rarest}: one label has no more kinds")
    dealt = {}
    for number, label in enumerate(sorted(set(labels.values()))):
        kinds = [kind for kind in labels if labels[kind] == label]
        order = np.random.default_rng((seed, number)).permutation(kinds).tolist()
        dealt.update({kind: (place + number) % folds for place, kind in enumerate(order)})
    return dealt


class DrawnSplit(SourceWrapper):
    """Tests on kinds of images, such as species, that the training never sees; stratified by the primary label.

    The kinds are dealt into folds. Split 0 tests the first fold, split 1 the second, and so on; after the last fold
    they are dealt anew. All images of a tested kind are tested, whatever split they come from. Of the other kinds the
    validation images select, and the rest trains.

    Args:
        source: The wrapped source.
        by: The auxiliary task whose classes are the kinds; None takes each image for itself.
        split: The number of the split, from 0.
        folds: Number of folds; a split tests one of so many kinds.
        with_test: Whether the test images of the source take part; otherwise nobody sees them, so that they can judge
            what was chosen.

    Raises:
        PriorError: In `setup`, if there is no such task, an image has no label in it, or the folds are too many.

    Example:
        >>> from lightning_priors.data.sources import Kakapo
        >>> source = DrawnSplit(Kakapo(train_size=20, val_size=8, test_size=4, size=32), split=1)
        >>> source.setup()
        >>> [len(source.indices(split)) for split in ("train", "val", "test")]
        [13, 5, 10]
    """

    def __init__(
        self, source: Source, by: str | None = None, split: int = 0, folds: int = 3, with_test: bool = False
    ) -> None:
        super().__init__(source)
        self.by = by
        self.split = split
        self.folds = folds
        self.with_test = with_test

    def setup(self) -> None:
        """Lets the wrapped source read its index files, then deals the kinds.

        Raises:
            PriorError: If the wrapped source raises it, or an option does not fit it.
        """
        if self.split < 0:
            raise PriorError(f"DrawnSplit: split is a number from 0, not {self.split}")
        self.source.setup()
        _ = self._indices

    def indices(self, split: Split) -> list[int]:
        """Returns the images of a split, in the order of the source's own splits."""
        return self._indices[split]

    @cached_property
    def _indices(self) -> dict[Split, list[int]]:
        origins: tuple[Split, ...] = ("train", "val", "test") if self.with_test else ("train", "val")
        images = {index: origin for origin in origins for index in self.source.indices(origin)}
        kinds = self._kinds(list(images))
        labels: dict[int, Counter[int]] = {}
        for index, kind in kinds.items():
            labels.setdefault(kind, Counter())[self.source.label(index)] += 1
        round_, fold = divmod(self.split, self.folds)
        dealt = deal({kind: counts.most_common(1)[0][0] for kind, counts in labels.items()}, self.folds, round_)
        found: dict[Split, list[int]] = {"train": [], "val": [], "test": []}
        for index, origin in images.items():
            part: Split = "test" if dealt[kinds[index]] == fold else "val" if origin == "val" else "train"
            found[part].append(index)
        return found

    def _kinds(self, images: list[int]) -> dict[int, int]:
        if self.by is None:
            return {index: index for index in images}
        task = look_up(named_once(self.source.aux_classes, "auxiliary task"), self.by, "auxiliary task", "option by")
        kinds = {index: self.source.known(index)["aux_labels"][task] for index in images}
        if without := [index for index, kind in kinds.items() if kind < 0]:
            name = self.source.file(without[0]) or f"image {without[0]}"
            raise PriorError(f"DrawnSplit: {name} has no label in {self.by!r}, so it cannot be held out or kept")
        return kinds
