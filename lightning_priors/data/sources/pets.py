"""Oxford-IIIT Pet: photographs of 37 breeds of cats and dogs with a trimap of each.

Parkhi, Vedaldi, Zisserman, Jawahar: Cats and Dogs. CVPR 2012.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torchvision import datasets, tv_tensors

from lightning_priors.data.sources.base import RawSample, Source, Split, UnreadableImageError
from lightning_priors.data.sources.paths import existing_file, existing_folder
from lightning_priors.data.sources.pictures import MaskKind, read_image
from lightning_priors.data.sources.reading import look_up, number_in, read_columns
from lightning_priors.errors import PriorError

SPECIES = {"1": "cat", "2": "dog"}
INSIDE, OUTSIDE, BORDER = 1, 2, 3
"""The levels of a trimap."""


@dataclass(frozen=True)
class Pet:
    """One line of trainval.txt or test.txt."""

    row: str
    """Its name in messages, such as "row 1 of trainval.txt"."""
    name: str
    """The image's file below ``images/`` without its ending, such as "Abyssinian_100"."""
    number: float
    """The number of the breed in the data set."""
    species: str
    """Cat or dog."""

    @property
    def breed(self) -> str:
        """The name without the image's number, such as "Abyssinian" or "american_bulldog"."""
        return self.name.rpartition("_")[0]


class OxfordPets(Source):
    """Reads Oxford-IIIT Pet: cat or dog, which breed, or one breed against all others.

    The labels that are not the primary task are auxiliary tasks. The indices count the training images
    (trainval.txt) first, then the test images; the data module sets training images aside for validation.

    Args:
        root: The folder with ``images`` and ``annotations``, or the folder above it with ``oxford-iiit-pet``.
        primary: The primary task without a target: "species" (cat or dog), with the breed as auxiliary task, or
            "breed", with the species as auxiliary task.
        target: A breed such as "Abyssinian". The primary task is then this breed (label 0) against all others (label
            1), and breed and species are auxiliary tasks.
        masks: How trimaps are read: "soft" gives one half on the undecided border, "hard" gives 0 there, "none" reads
            no masks.
        download: Whether `prepare_data` may download missing files.

    Raises:
        PriorError: In `setup` and in properties such as `classes`, if an option or a file is wrong.

    Example:
        >>> OxfordPets("/nowhere").setup()
        Traceback (most recent call last):
        lightning_priors.errors.PriorError: no folder /nowhere: / has no 'nowhere', choose from ...
    """

    def __init__(
        self,
        root: str,
        primary: Literal["species", "breed"] = "species",
        target: str | None = None,
        masks: MaskKind = "soft",
        download: bool = False,
    ) -> None:
        self.root = Path(root)
        self.primary = primary
        self.target = target
        self.masks = masks
        self.download = download

    @property
    def classes(self) -> list[str]:
        """The target and "other", or the species, or the breeds."""
        if self.target is None:
            return list(self._numbers[self.primary])
        look_up(self._numbers["breed"], self.target, "breed", "option target")
        return [self.target, "other"]

    @property
    def aux_classes(self) -> dict[str, list[str]]:
        """Breed and species without the primary task."""
        tasks = [task for task in ("breed", "species") if self.target is not None or task != self.primary]
        return {task: list(self._numbers[task]) for task in tasks}

    def prepare_data(self) -> None:
        """Downloads the files if they are missing and `download` allows it."""
        if not self.download or (self.root / "oxford-iiit-pet").is_dir():
            return
        try:
            datasets.OxfordIIITPet(str(self.root), target_types="segmentation", download=True)
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise PriorError(f"Oxford-IIIT Pet cannot be fetched into {self.root}: {reason}") from error

    @property
    def file_folder(self) -> Path | None:
        """The folder that the names of `file` are relative to."""
        return self.folder

    def setup(self) -> None:
        """Reads the lists.

        Raises:
            PriorError: If a list is missing or wrong, or the target is no breed.
        """
        _ = self.classes
        if self.masks != "none":
            existing_folder(self.folder / "annotations" / "trimaps")

    def indices(self, split: Split) -> list[int]:
        """Returns the indices of a split: training images from 0, then test images; there is no validation split."""
        train, test = (len(part) for part in self._parts)
        return list({"train": range(train), "val": range(0), "test": range(train, train + test)}[split])

    def label(self, index: int) -> int:
        """Returns the species or breed, or with a target 0 for the target and 1 for the others."""
        pet = self._pets[index]
        return self._label(pet, self.primary) if self.target is None else int(pet.breed != self.target)

    def file(self, index: int) -> str:
        """Returns the file of an image, relative to the folder with ``images`` and ``annotations``."""
        return f"images/{self._pets[index].name}.jpg"

    def load(self, index: int) -> RawSample:
        """Reads an image and, unless masks are left out, its trimap."""
        pet = self._pets[index]
        image = read_image(self.folder / "images" / f"{pet.name}.jpg", pet.row)
        sample = RawSample(
            image=image, label=self.label(index), aux_labels=[self._label(pet, task) for task in self.aux_classes]
        )
        if self.masks != "none":
            path = self.folder / "annotations" / "trimaps" / f"{pet.name}.png"
            sample["mask"] = read_trimap(path, pet.row, image, self.masks)
            sample["mask_valid"] = True
        return sample

    @cached_property
    def folder(self) -> Path:
        """The folder with ``images`` and ``annotations``."""
        inside = existing_folder(self.root) / "oxford-iiit-pet"
        return inside if inside.is_dir() else existing_folder(self.root / "annotations").parent

    def _label(self, pet: Pet, task: str) -> int:
        return self._numbers[task][pet.breed if task == "breed" else pet.species]

    @cached_property
    def _numbers(self) -> Mapping[str, Mapping[str, int]]:
        """The labels of the species, and of the breeds in the order of their numbers in the lists."""
        order: dict[str, float] = {}
        for pet in self._pets:
            if order.setdefault(pet.breed, pet.number) != pet.number:
                raise PriorError(f"the breed {pet.breed} has two numbers, one in {pet.row}")
        return {
            "species": {name: label for label, name in enumerate(SPECIES.values())},
            "breed": {name: label for label, name in enumerate(sorted(order, key=lambda breed: order[breed]))},
        }

    @cached_property
    def _pets(self) -> list[Pet]:
        return [pet for part in self._parts for pet in part]

    @cached_property
    def _parts(self) -> tuple[list[Pet], list[Pet]]:
        """The training and the test images."""
        lists = (self.folder / "annotations" / name for name in ("trainval.txt", "test.txt"))
        train, test = (
            [
                Pet(row, name, number_in(breed, "breed", row), look_up(SPECIES, species, "species", row))
                for row, (name, breed, species, _) in read_columns(path, 4)
            ]
            for path in lists
        )
        return train, test


def read_trimap(path: Path, row: str, image: tv_tensors.Image, kind: MaskKind) -> tv_tensors.Image:
    """Reads the trimap of a picture as a mask.

    Args:
        path: A picture with the levels 1 (pet), 2 (background) and 3 (undecided border).
        row: Where the file is named, for the message.
        image: (3, H, W), the picture that the trimap belongs to.
        kind: "soft" gives one half on the border, "hard" gives 0.

    Returns:
        (1, H, W) float32 in [0, 1].

    Raises:
        UnreadableImageError: If the file is missing or broken.
        PriorError: If the trimap has another size than the picture, or other levels.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "pet.png"
    >>> Image.fromarray(np.array([[1, 3, 2]], dtype=np.uint8)).save(path)
    >>> read_trimap(path, "row 1 of test.txt", tv_tensors.Image(torch.zeros(3, 1, 3)), "soft").tolist()
    [[[1.0, 0.5, 0.0]]]
    """
    try:
        with Image.open(existing_file(path)) as picture:
            levels = torch.from_numpy(np.array(picture))
    except (OSError, SyntaxError, ValueError, PriorError) as error:
        raise UnreadableImageError(f"cannot read {path} ({row}): {error}") from error
    if levels.shape != image.shape[1:]:
        raise PriorError(f"the trimap {path} ({row}) has another size than its image")
    if not torch.isin(levels, torch.tensor([INSIDE, OUTSIDE, BORDER])).all():
        raise PriorError(f"the trimap {path} ({row}) has levels other than 1, 2 and 3")
    mask = (levels == INSIDE).float()
    if kind == "soft":
        mask[levels == BORDER] = 0.5
    return tv_tensors.Image(mask[None])
