"""CIFAR-100: 60,000 pictures of a hundred classes, 32 x 32, in a hierarchy of four levels.

Krizhevsky: Learning Multiple Layers of Features from Tiny Images. 2009. The files have two levels: 100 fine and 20
coarse classes. The levels of 10 and 3 classes are from Liu, Davison, Johns: Self-Supervised Generalisation with Meta
Auxiliary Learning, 2019, ``create_dataset.py`` of https://github.com/lorenmt/maxl.
"""

import io
import pickle
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision import datasets, tv_tensors

from lightning_priors.data.sources.base import RawSample, Source, Split
from lightning_priors.data.sources.paths import existing_file, existing_folder
from lightning_priors.data.sources.reading import look_up, named_once
from lightning_priors.errors import PriorError

Level = Literal[3, 10, 20, 100]

TEN: Mapping[str, Sequence[str]] = {
    "large animals and reptiles": ("large_carnivores", "large_omnivores_and_herbivores", "reptiles"),
    "medium mammals": ("aquatic_mammals", "medium_mammals"),
    "small animals": ("fish", "small_mammals"),
    "invertebrates": ("insects", "non-insect_invertebrates"),
    "people": ("people",),
    "vegetation": ("flowers", "fruit_and_vegetables", "trees"),
    "household objects": ("food_containers", "household_electrical_devices", "household_furniture"),
    "constructions": ("large_man-made_outdoor_things",),
    "natural scenes": ("large_natural_outdoor_scenes",),
    "vehicles": ("vehicles_1", "vehicles_2"),
}
"""The coarse classes in each of ten classes. Groups and order are the paper's, the names are ours."""

THREE: Mapping[str, Sequence[str]] = {
    "animals": ("large animals and reptiles", "medium mammals", "small animals", "invertebrates", "people"),
    "vegetation": ("vegetation",),
    "objects and scenes": ("household objects", "constructions", "natural scenes", "vehicles"),
}

HARMLESS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}
"""The only objects that reading the files may create, besides lists, texts and numbers."""


class CIFAR100(Source):
    """Reads CIFAR-100; one level of its hierarchy is the primary task, other levels are auxiliary tasks.

    The first 50,000 indices are the training images, the last 10,000 the test images. There is no validation split
    and there are no masks, boxes or keypoints.

    Args:
        root: The folder with ``cifar-100-python``, or that folder itself.
        level: Number of classes of the primary task: 3, 10, 20 or 100.
        target: A fine class such as "bear". The primary task is then this class (label 0) against all others (label
            1), and `level` is not used.
        aux: Levels of the auxiliary tasks, which are called ``level_3`` and so on.
        download: Whether `prepare_data` may download missing files.

    Raises:
        PriorError: In `setup` and in properties such as `classes`, if files are missing or are not those of CIFAR-100,
            or a class or level does not exist.

    Example:
        >>> CIFAR100("/nowhere").setup()
        Traceback (most recent call last):
        lightning_priors.errors.PriorError: no folder /nowhere: / has no 'nowhere', choose from ...
    """

    def __init__(
        self,
        root: str,
        level: Level = 20,
        target: str | None = None,
        aux: Sequence[Level] = (100,),
        download: bool = False,
    ) -> None:
        self.root = Path(root)
        self.level = level
        self.target = target
        self.aux = list(aux)
        self.download = download

    @property
    def classes(self) -> list[str]:
        """The target and "other", or the classes of the level."""
        if self.target is None:
            return self._names(self.level)
        look_up(named_once(self._names(100), "class"), self.target, "class", "option target")
        return [self.target, "other"]

    @property
    def aux_classes(self) -> dict[str, list[str]]:
        """The classes of each auxiliary level."""
        return {f"level_{level}": self._names(level) for level in self.aux}

    def prepare_data(self) -> None:
        """Downloads the files if they are missing and `download` allows it."""
        if not self.download or (self.root / "cifar-100-python").is_dir():
            return
        try:
            datasets.CIFAR100(str(self.root), download=True)
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise PriorError(f"CIFAR-100 cannot be fetched into {self.root}: {reason}") from error

    def setup(self) -> None:
        """Reads the pictures, which take 184 MB.

        Raises:
            PriorError: If files are missing or are not those of CIFAR-100, or a class or level does not exist.
        """
        _ = self.classes, self.aux_classes, self._labels, self._pictures

    def indices(self, split: Split) -> list[int]:
        """Returns the indices of a split: training images from 0, then test images; there is no validation split."""
        train, test = (len(part["fine_labels"]) for part in self._parts)
        return list({"train": range(train), "val": range(0), "test": range(train, train + test)}[split])

    def label(self, index: int) -> int:
        """Returns the class at the level, or with a target 0 for the target and 1 for the others."""
        if self.target is None:
            return self._labels[self.level][index]
        return int(self._names(100)[self._labels[100][index]] != self.target)

    def load(self, index: int) -> RawSample:
        """Returns the image with its labels."""
        sample = RawSample(image=tv_tensors.Image(self._pictures[index]), label=self.label(index))
        if self.aux:
            sample["aux_labels"] = [self._labels[level][index] for level in self.aux]
        return sample

    @cached_property
    def folder(self) -> Path:
        """The folder with the files train, test and meta."""
        inside = self.root / "cifar-100-python"
        return inside if inside.is_dir() else existing_file(existing_folder(self.root) / "meta").parent

    def _names(self, level: int) -> list[str]:
        """Returns the class names of a level, in the order of their labels."""
        if level in (20, 100):
            names: list[str] = self._meta["coarse_label_names" if level == 20 else "fine_label_names"]
            return names
        if level not in (3, 10):
            raise PriorError(f"CIFAR-100 has no level of {level} classes; choose from 3, 10, 20, 100")
        return list(TEN if level == 10 else THREE)

    @cached_property
    def _meta(self) -> dict[str, Any]:
        return read_pickle(self.folder / "meta", ("fine_label_names", "coarse_label_names"))

    @cached_property
    def _parts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        keys = ("data", "fine_labels", "coarse_labels")
        return read_pickle(self.folder / "train", keys), read_pickle(self.folder / "test", keys)

    @cached_property
    def _pictures(self) -> Tensor:
        return torch.cat([torch.from_numpy(part["data"]).view(-1, 3, 32, 32) for part in self._parts])

    @cached_property
    def _labels(self) -> dict[int, list[int]]:
        """The label of each image at each level."""
        fine, coarse = (
            [label for part in self._parts for label in part[key]] for key in ("fine_labels", "coarse_labels")
        )
        owners: dict[int, int] = {}
        for label, owner in zip(fine, coarse, strict=True):
            if owners.setdefault(label, owner) != owner:
                raise PriorError(f"{self.folder}: the fine class {self._names(100)[label]!r} is in two coarse classes")
        to_ten = coarser(TEN, self._names(20))
        to_three = coarser(THREE, list(TEN))
        ten = [to_ten[label] for label in coarse]
        return {100: fine, 20: coarse, 10: ten, 3: [to_three[label] for label in ten]}


def coarser(groups: Mapping[str, Sequence[str]], names: Sequence[str]) -> list[int]:
    """Finds the group of each class.

    Args:
        groups: The names of the classes in each group.
        names: The class names in the order of their labels.

    Returns:
        For each class the position of its group.

    Raises:
        PriorError: If a class is in no group.

    >>> coarser({"animals": ["cat", "dog"], "things": ["cup"]}, ["cat", "cup", "dog"])
    [0, 1, 0]
    """
    owner = {name: number for number, group in enumerate(groups.values()) for name in group}
    return [look_up(owner, name, "class", "names of CIFAR-100") for name in names]


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, texts, numbers and arrays, and refuses all else, since a pickle can run any code."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns a class or function that the pickle asks for, if it is harmless."""
        if (module, name) not in HARMLESS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def read_pickle(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Reads one of the data set's files, which are pickles written by Python 2.

    Args:
        path: The file.
        keys: The entries that it must have.

    Returns:
        The entries of the file.

    Raises:
        PriorError: If the file is missing, is no file of CIFAR-100, or lacks an entry.

    >>> read_pickle(Path("/nowhere/train"), ["data"])
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: no file /nowhere/train: / has no 'nowhere', choose from ...
    """
    file = io.BytesIO(existing_file(path).read_bytes())
    try:
        content = _PlainUnpickler(file, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise PriorError(f"{path} is no file of CIFAR-100: {error}") from error
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise PriorError(f"{path} is no file of CIFAR-100: it has no {missing[0]}")
    entries: dict[str, Any] = content
    return entries
