"""Fashion-MNIST: 70,000 grey pictures of ten kinds of clothing, 28 x 28.

Xiao, Rasul, Vollgraf: Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms.
arXiv:1708.07747, 2017.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torchvision import datasets, tv_tensors

from lightning_priors.data.sources.base import Known, RawSample, Source, Split, raw_sample
from lightning_priors.data.sources.paths import hint_beside
from lightning_priors.data.sources.reading import look_up
from lightning_priors.errors import PriorError

CLASSES = tuple(datasets.FashionMNIST.classes)
DEFAULT_TARGET = "Shirt"  # the class that networks confuse most


class FashionMNIST(Source):
    """Reads Fashion-MNIST; its ten classes, or any groups of them, are the primary task and the auxiliary tasks.

    The first 60,000 indices are the training images, the last 10,000 the test images. There is no validation split
    and there are no masks, boxes or keypoints. The group of an image is its class among the ten.

    Args:
        root: The folder with ``FashionMNIST/raw``, where torchvision looks for the files.
        target: The primary task is this class (label 0) against the other nine (label 1); "Shirt" if neither `target`
            nor `groups` is given.
        groups: The primary classes, each a list of class names; given instead of a target. Images of a class that is
            in no group are left out. Ten lists of one name make the original task.
        aux: For each auxiliary task its classes, each a list of class names. Images of a class that is in no list
            have no label in this task. When None, one auxiliary task with the ten classes.
        download: Whether `prepare_data` may download missing files.

    Raises:
        PriorError: In `setup` and in properties such as `classes`, if there are no files, a class does not exist, or
            a class is in two groups.

    Example:
        >>> source = FashionMNIST("data", groups=[["Sandal", "Sneaker", "Ankle boot"], ["Bag"]])
        >>> source.classes, source.aux_classes["class"][:2]
        (['Sandal + Sneaker + Ankle boot', 'Bag'], ['T-shirt/top', 'Trouser'])
    """

    def __init__(
        self,
        root: str,
        target: str | None = None,
        groups: Sequence[Sequence[str]] | None = None,
        aux: Mapping[str, Sequence[Sequence[str]]] | None = None,
        download: bool = False,
    ) -> None:
        self.root = Path(root)
        self.target = target
        self.groups = groups
        self.aux = aux
        self.download = download

    @property
    def classes(self) -> list[str]:
        """The target and "other", or the groups; a group is named by its classes, such as "Shirt + Coat"."""
        if self.groups is None:
            return [self.target or DEFAULT_TARGET, "other"]
        return [" + ".join(group) for group in self.groups]

    @property
    def aux_classes(self) -> dict[str, list[str]]:
        """The classes of each auxiliary task, named as the groups are."""
        return {task: [" + ".join(group) for group in groups] for task, groups in self._aux_groups.items()}

    @property
    def group_names(self) -> list[str]:
        """The ten classes."""
        return list(CLASSES)

    def prepare_data(self) -> None:
        """Downloads the files if they are missing and `download` allows it."""
        if not self.download:
            return
        try:
            datasets.FashionMNIST(str(self.root), download=True)
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise PriorError(f"Fashion-MNIST cannot be fetched into {self.root}: {reason}") from error

    def setup(self) -> None:
        """Reads the pictures, which take 55 MB.

        Raises:
            PriorError: If there are no files, a class does not exist, or a class is in two groups.
        """
        _ = self._labels, self._aux_labels, self._pictures

    def indices(self, split: Split) -> list[int]:
        """Returns the images of a split whose class is in a group."""
        train = len(self._parts[0].targets)
        return [
            index
            for index in {"train": range(train), "val": range(0), "test": range(train, len(self._kinds))}[split]
            if self.label(index) >= 0
        ]

    def label(self, index: int) -> int:
        """Returns the primary class of an image, -1 if its class is in no group."""
        return self._labels[self._kinds[index]]

    def known(self, index: int) -> Known:
        """Returns the labels of an image; its group is its class."""
        kind = self._kinds[index]
        known = Known(label=self._labels[kind], group=kind)
        if self._aux_labels:
            known["aux_labels"] = [labels[kind] for labels in self._aux_labels]
        return known

    def load(self, index: int) -> RawSample:
        """Returns the image in three equal channels, with its labels."""
        image = tv_tensors.Image(self._pictures[index].expand(3, -1, -1))
        return raw_sample(image, self.known(index))

    @cached_property
    def _parts(self) -> tuple[datasets.FashionMNIST, datasets.FashionMNIST]:
        try:
            return tuple(datasets.FashionMNIST(str(self.root), train=train) for train in (True, False))
        except RuntimeError as error:
            raw = self.root / "FashionMNIST" / "raw"
            missing = "the four files" if raw.is_dir() else f"the folder {raw}{hint_beside(raw)}; it is missing"
            raise PriorError(f"no Fashion-MNIST in {self.root}: {missing}; or set download: true") from error

    @cached_property
    def _pictures(self) -> Tensor:
        return torch.cat([part.data for part in self._parts])

    @cached_property
    def _kinds(self) -> list[int]:
        """The original class of each image."""
        kinds: list[int] = torch.cat([part.targets for part in self._parts]).tolist()
        return kinds

    @cached_property
    def _labels(self) -> list[int]:
        """The primary label of each original class."""
        if self.groups is not None:
            if self.target is not None:
                raise PriorError("FashionMNIST: give target or groups, not both")
            return group_labels(self.groups, "groups")
        target = group_labels([[self.target or DEFAULT_TARGET]], "target")
        return [0 if label == 0 else 1 for label in target]

    @cached_property
    def _aux_labels(self) -> list[list[int]]:
        """The label of each original class in each auxiliary task."""
        return [group_labels(groups, f"aux {task!r}") for task, groups in self._aux_groups.items()]

    @property
    def _aux_groups(self) -> Mapping[str, Sequence[Sequence[str]]]:
        return {"class": [[name] for name in CLASSES]} if self.aux is None else self.aux


def group_labels(groups: Sequence[Sequence[str]], option: str) -> list[int]:
    """Finds the group of each class of Fashion-MNIST.

    Args:
        groups: Lists of class names.
        option: The option that gives the groups, for the message.

    Returns:
        For each of the ten classes the position of its group, -1 if it is in no group.

    Raises:
        PriorError: If a class does not exist or is in two groups, or a group is empty.

    >>> group_labels([["Bag"], ["Shirt", "Coat"]], "groups")
    [-1, -1, -1, -1, 1, -1, 1, -1, 0, -1]
    """
    positions = {name: number for number, name in enumerate(CLASSES)}
    labels = [-1] * len(CLASSES)
    for number, group in enumerate(groups):
        if not group:
            raise PriorError(f"FashionMNIST: group {number} of {option} is empty")
        for name in group:
            position = look_up(positions, name, "class", f"option {option}")
            if labels[position] >= 0:
                raise PriorError(f"FashionMNIST: {name!r} is in two groups of {option}")
            labels[position] = number
    return labels
