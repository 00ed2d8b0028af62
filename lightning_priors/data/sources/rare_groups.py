"""A source with fewer training images of some groups, such as birds before a background that disagrees."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from lightning_priors.data.sources.base import Source, Split
from lightning_priors.data.sources.reading import look_up, named_once
from lightning_priors.data.sources.wrapper import SourceWrapper
from lightning_priors.errors import PriorError


class RareGroups(SourceWrapper):
    """Leaves out training images of some groups until these are a given share of each class's training images.

    With the share 0 no counter-example is left. Validation and test stay as they are.

    Args:
        source: The wrapped source, with groups.
        groups: The names of the groups that are to be rare.
        share: Their share of the training images of each class, from 0 to below 1. A larger share keeps all images
            that a smaller one keeps.
        seed: Seed of the draw.

    Raises:
        PriorError: In `setup`, if there is no such group, the share is out of its range, or there are too few images.

    Example:
        >>> from lightning_priors.data.sources import Kakapo
        >>> kakapo = Kakapo(train_size=200, val_size=2, test_size=2, size=32, bias=0.5)
        >>> kakapo.group_names[1:3]
        ['kakapo in the open', 'other bird on land']
        >>> source = RareGroups(kakapo, groups=kakapo.group_names[1:3], share=0.1)
        >>> source.setup()
        >>> groups = [source.known(index)["group"] for index in source.indices("train")]
        >>> [groups.count(number) for number in range(4)]
        [48, 5, 6, 55]
    """

    def __init__(self, source: Source, groups: Sequence[str], share: float = 0.0, seed: int = 0) -> None:
        super().__init__(source)
        self.groups = list(groups)
        self.share = share
        self.seed = seed

    def setup(self) -> None:
        """Lets the wrapped source read its index files, then draws the images that stay.

        Raises:
            PriorError: If the wrapped source raises it, or an option does not fit it.
        """
        if not 0 <= self.share < 1:
            raise PriorError(f"RareGroups: share is from 0 to below 1, not {self.share}")
        self.source.setup()
        _ = self._train

    def indices(self, split: Split) -> list[int]:
        """Returns the images of a split; of the training split those that stay."""
        return self._train if split == "train" else self.source.indices(split)

    @cached_property
    def _train(self) -> list[int]:
        numbers = named_once(self.source.group_names, "group")
        rare = {look_up(numbers, name, "group", "option groups") for name in self.groups}
        known = {index: self.source.known(index) for index in self.source.indices("train")}
        if not all("group" in entry for entry in known.values()):
            raise PriorError(f"RareGroups: {type(self.source).__name__} knows no groups here")
        kept = {index for index, entry in known.items() if entry["group"] not in rare}
        for label in sorted({entry["label"] for entry in known.values()}):
            of_class = [index for index, entry in known.items() if entry["label"] == label]
            candidates = [index for index in of_class if index not in kept]
            number = round(self.share / (1 - self.share) * (len(of_class) - len(candidates)))
            if number > len(candidates):
                reason = f"{number} would be a share of {self.share:g}, and there are {len(candidates)}"
                raise PriorError(f"RareGroups: too few training images of {self.classes[label]!r}: {reason}")
            order = np.random.default_rng((self.seed, label)).permutation(candidates).tolist()
            kept.update(order[:number])
        return [index for index in known if index in kept]
