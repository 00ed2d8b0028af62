"""CUB-200-2011: photographs of 200 bird species with boxes, parts, attributes and segmentations.

Wah, Branson, Welinder, Perona, Belongie: The Caltech-UCSD Birds-200-2011 Dataset. CNS-TR-2011-001, 2011.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_priors.data.sources.base import Known, RawSample, Source, Split, raw_sample
from lightning_priors.data.sources.paths import check_inside, existing_file, existing_folder
from lightning_priors.data.sources.pictures import MaskKind, read_image, read_mask
from lightning_priors.data.sources.places import checked_boxes
from lightning_priors.data.sources.reading import look_up, named_once, number_in, read_columns
from lightning_priors.errors import PriorError, nearest

BoxName = Literal["head", "bird"]
HEAD_PARTS = frozenset({"beak", "crown", "forehead", "left eye", "nape", "right eye", "throat"})
NOT_VISIBLE = 1  # the code of "not visible" among the certainties of an annotator


@dataclass
class Bird:
    """What CUB-200-2011 says about one image."""

    name: str
    """The file below ``images/``, such as "001.Black_footed_Albatross/bird.jpg"."""
    row: str
    """Where it is listed, such as "row 7 of images.txt"; for messages."""
    species: int = -1
    """The position of its class in classes.txt."""
    training: bool = False
    """Whether the data set's own split has it in training."""
    box: tuple[float, float, float, float] | None = None
    """x0, y0, x1, y1 of the whole bird, in pixels."""
    points: dict[int, tuple[float, float]] = field(default_factory=dict)
    """x, y of the visible parts in pixels, by the position of the part in parts.txt."""


class CUBFolder:
    """Reads the index files of CUB-200-2011, for `CUB200` and for sources that use its annotation.

    Args:
        root: The folder with images.txt, or the folder above it with ``CUB_200_2011/``.

    Example:
        >>> CUBFolder("/nowhere").birds
        Traceback (most recent call last):
        lightning_priors.errors.PriorError: no folder /nowhere: / has no 'nowhere', choose from ...
    """

    def __init__(self, root: str) -> None:
        self.root = Path(root)

    @cached_property
    def folder(self) -> Path:
        """The folder with images.txt."""
        below = existing_folder(self.root) / "CUB_200_2011"
        return below if (below / "images.txt").is_file() else existing_file(self.root / "images.txt").parent

    @cached_property
    def classes(self) -> dict[str, int]:
        """The position of each species by its name, such as "001.Black_footed_Albatross"."""
        return named_once((name for _, (_, name) in read_columns(self.folder / "classes.txt", 2)), "class")

    @cached_property
    def part_names(self) -> list[str]:
        """The names of the parts."""
        return [name for _, (_, name) in read_columns(self.folder / "parts" / "parts.txt", 2)]

    @cached_property
    def by_id(self) -> dict[str, Bird]:
        """The images by their id, in the order of images.txt.

        Raises:
            PriorError: If a file is missing or a row is wrong.
        """
        birds = {
            identity: Bird(name=name, row=row) for row, (identity, name) in read_columns(self.folder / "images.txt", 2)
        }
        for bird in birds.values():
            check_inside(bird.name, self.folder, bird.row, "its pictures lie below images")
        self._read_labels(birds)
        self._read_boxes(birds)
        self._read_points(birds)
        return birds

    @cached_property
    def birds(self) -> list[Bird]:
        """The images in the order of images.txt."""
        return list(self.by_id.values())

    @cached_property
    def segmentations(self) -> Path:
        """The folder of the masks, in ``CUB_200_2011`` or beside it; they are a separate archive."""
        for place in (self.folder, self.folder.parent):
            if (place / "segmentations").is_dir():
                return place / "segmentations"
        raise PriorError(
            f"no folder {self.folder / 'segmentations'}: unpack segmentations.tgz there, or set masks: none"
        )

    def mask_path(self, name: str) -> Path:
        """Returns the file of an image's mask."""
        return self.segmentations / Path(name).with_suffix(".png")

    def attributes(self, wanted: Sequence[str]) -> tuple[list[str], NDArray[np.int8]]:
        """Reads attributes, 1 = present, 0 = absent, -1 = not visible or not asked.

        Args:
            wanted: Names of attributes, or their beginnings, such as "has_bill_shape".

        Returns:
            The names of the A attributes that begin with one of `wanted`, and their values (N, A) in the order of
            `birds`.

        Raises:
            PriorError: If no attribute begins with one of `wanted`.
        """
        places = [place / "attributes.txt" for place in (self.folder / "attributes", self.folder, self.folder.parent)]
        listed = next((place for place in places if place.is_file()), places[0])
        names = {identity: name for _, (identity, name) in read_columns(listed, 2)}
        for beginning in wanted:
            if not any(name.startswith(beginning) for name in names.values()):
                groups = dict.fromkeys(name.split("::")[0] for name in names.values())
                raise PriorError(f"no attribute {beginning!r}, {nearest(beginning, groups)}")
        chosen = [identity for identity, name in names.items() if name.startswith(tuple(wanted))]
        column = {identity: number for number, identity in enumerate(chosen)}
        position = {identity: number for number, identity in enumerate(self.by_id)}
        values = np.full((len(position), len(chosen)), -1, dtype=np.int8)
        # some lines of the data set have a cell too many, after the first four
        for row, cells in read_columns(self.folder / "attributes" / "image_attribute_labels.txt", 5):
            image, attribute, present, certainty = cells[:4]
            if attribute in column and certainty != str(NOT_VISIBLE):
                values[look_up(position, image, "image", row), column[attribute]] = int(present)
        return [names[identity] for identity in chosen], values

    def _read_labels(self, birds: Mapping[str, Bird]) -> None:
        classes = read_columns(self.folder / "classes.txt", 2)
        numbers = {number: position for position, (_, (number, _)) in enumerate(classes)}
        for row, (identity, number) in read_columns(self.folder / "image_class_labels.txt", 2):
            species = look_up(numbers, number, "class", row)
            _bird(birds, identity, row).species = species
        for row, (identity, training) in read_columns(self.folder / "train_test_split.txt", 2):
            _bird(birds, identity, row).training = training == "1"
        for bird in birds.values():
            if bird.species < 0:
                raise PriorError(f"image_class_labels.txt has no class for {bird.name} ({bird.row})")

    def _read_boxes(self, birds: Mapping[str, Bird]) -> None:
        for row, (identity, *cells) in read_columns(self.folder / "bounding_boxes.txt", 5):
            x, y, width, height = (
                number_in(cell, side, row) for cell, side in zip(cells, ("x", "y", "width", "height"), strict=True)
            )
            _bird(birds, identity, row).box = (x, y, x + width, y + height)

    def _read_points(self, birds: Mapping[str, Bird]) -> None:
        parts = read_columns(self.folder / "parts" / "parts.txt", 2)
        numbers = {number: position for position, (_, (number, _)) in enumerate(parts)}
        for row, (identity, number, x, y, visible) in read_columns(self.folder / "parts" / "part_locs.txt", 5):
            if visible == "1":
                part = look_up(numbers, number, "part", row)
                _bird(birds, identity, row).points[part] = (number_in(x, "x", row), number_in(y, "y", row))


class CUB200(Source):
    """Reads CUB-200-2011 as its authors ship it.

    The test split is theirs; the data module sets images of their training split aside for validation. Every image
    has 15 keypoints, some of them not visible, and part boxes. With a target the primary task is this species (label
    0) against all others (label 1), and the species are an auxiliary task. Without a target the species are the
    primary task.

    Args:
        root: The folder with images.txt, or the folder above it.
        target: The species of the primary task, such as "004.Groove_billed_Ani" or "Groove_billed_Ani".
        masks: How the segmentations are read, which are a separate archive: "soft" gives the fraction of annotators
            who marked a pixel as bird, "hard" gives 1 from one half on, "none" reads no masks.
        boxes: The part boxes: "head" is around the visible parts of the head, "bird" around the whole bird.
        head_margin: Margin of the head box on each side, as a fraction of the longer side of the box around the parts.
        attributes: Beginnings of the names of binary attributes, each of which becomes an auxiliary task: ``has_``
            takes all 312, ``has_bill_shape`` takes nine.

    Raises:
        PriorError: In `setup` and in properties such as `classes`, if an option or a file is wrong.

    Example:
        >>> CUB200("/nowhere").setup()
        Traceback (most recent call last):
        lightning_priors.errors.PriorError: no folder /nowhere: / has no 'nowhere', choose from ...
    """

    def __init__(
        self,
        root: str,
        target: str | None = None,
        masks: MaskKind = "soft",
        boxes: Sequence[BoxName] = ("head",),
        head_margin: float = 0.2,
        attributes: Sequence[str] = (),
    ) -> None:
        self.folder = CUBFolder(root)
        self.target = target
        self.masks = masks
        self.boxes = list(boxes)
        self.head_margin = head_margin
        self.attributes = list(attributes)

    @property
    def classes(self) -> list[str]:
        """The target and "other", or the species."""
        species = list(self.folder.classes)
        return species if self.target is None else [species[self._target_species], "other"]

    @property
    def aux_classes(self) -> dict[str, list[str]]:
        """The species, if they are not the primary classes, and the chosen attributes."""
        species = {} if self.target is None else {"species": list(self.folder.classes)}
        return species | {name: ["absent", "present"] for name in self._attributes[0]}

    @property
    def part_names(self) -> list[str]:
        """The names in the option `boxes`."""
        return list(self.boxes)

    @property
    def keypoint_names(self) -> list[str]:
        """The 15 parts."""
        return self.folder.part_names

    @property
    def file_folder(self) -> Path | None:
        """The folder that the names of `file` are relative to."""
        return self.folder.folder

    def setup(self) -> None:
        """Reads the index files.

        Raises:
            PriorError: If a file is missing or wrong, or the target is no class.
        """
        _ = self.folder.birds, self.classes, self._attributes
        if self.masks != "none":
            _ = self.folder.segmentations

    def indices(self, split: Split) -> list[int]:
        """Returns the rows of images.txt in a split, counted from 0; there is no validation split."""
        if split == "val":
            return []
        return [index for index, bird in enumerate(self.folder.birds) if bird.training == (split == "train")]

    def label(self, index: int) -> int:
        """Returns the species, or with a target 0 for the target and 1 for the others."""
        species = self.folder.birds[index].species
        return species if self.target is None else int(species != self._target_species)

    def known(self, index: int) -> Known:
        """Returns the label, the species beside a target, and the chosen attributes."""
        known = Known(label=self.label(index))
        aux_labels = [] if self.target is None else [self.folder.birds[index].species]
        aux_labels += self._attributes[1][index].tolist()
        if aux_labels:
            known["aux_labels"] = aux_labels
        return known

    def file(self, index: int) -> str:
        """Returns the file of an image, relative to the folder with images.txt."""
        return f"images/{self.folder.birds[index].name}"

    def load(self, index: int) -> RawSample:
        """Reads an image, its boxes and keypoints and, unless masks are left out, its segmentation."""
        bird = self.folder.birds[index]
        image = read_image(self.folder.folder / "images" / bird.name, bird.row)
        sample = raw_sample(image, self.known(index))
        if self.masks != "none":
            sample["mask"] = read_mask(self.folder.mask_path(bird.name), bird.row, image, self.masks)
            sample["mask_valid"] = True
        boxes = part_boxes(bird, self.folder.part_names, self.boxes, self.head_margin, image)
        sample["part_boxes"], sample["part_valid"] = checked_boxes(boxes, image, self.boxes, bird.row)
        sample["keypoints"], sample["keypoint_valid"] = keypoints(bird, len(self.folder.part_names))
        return sample

    @cached_property
    def _target_species(self) -> int:
        short = {name.split(".", 1)[-1]: number for name, number in self.folder.classes.items()}
        return look_up(short | self.folder.classes, str(self.target), "class", "target")

    @cached_property
    def _attributes(self) -> tuple[list[str], NDArray[np.int8]]:
        if not self.attributes:
            return [], np.empty((len(self.folder.birds), 0), dtype=np.int8)
        return self.folder.attributes(self.attributes)


def head_box(
    points: Mapping[int, tuple[float, float]], names: Sequence[str], margin: float, width: float, height: float
) -> list[float] | None:
    """Computes the box around the visible parts of a bird's head.

    Args:
        points: x, y of the visible parts in pixels, by their position in `names`.
        names: The names of the parts.
        margin: Margin on each side, as a fraction of the longer side of the box.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.

    Returns:
        x0, y0, x1, y1 in pixels, inside the picture. None if fewer than two parts of the head are visible, or the box
        has no area.

    >>> head_box({0: (10, 10), 1: (20, 15), 2: (90, 90)}, ["beak", "nape", "tail"], 0.1, 100, 100)
    [9.0, 9.0, 21.0, 16.0]
    """
    head = [point for part, point in points.items() if names[part] in HEAD_PARTS]
    if len(head) < 2:
        return None
    across, down = zip(*head, strict=True)
    extra = margin * max(max(across) - min(across), max(down) - min(down))
    box = [
        max(min(across) - extra, 0.0),
        max(min(down) - extra, 0.0),
        min(max(across) + extra, width),
        min(max(down) + extra, height),
    ]
    return box if box[0] < box[2] and box[1] < box[3] else None


def part_boxes(
    bird: Bird, part_names: Sequence[str], boxes: Sequence[BoxName], margin: float, image: Tensor
) -> list[Sequence[float] | None]:
    """Returns the chosen boxes of a bird.

    Args:
        bird: The bird.
        part_names: The names of its keypoints.
        boxes: The names of the chosen boxes.
        margin: Margin of the head box, see `head_box`.
        image: (3, H, W), the picture.

    Returns:
        For each of `boxes` x0, y0, x1, y1 in pixels, or None if it is not known.

    >>> part_boxes(Bird("a.jpg", "row 1", box=(1, 2, 3, 4)), [], ["head", "bird"], 0.2, torch.zeros(3, 9, 9))
    [None, (1, 2, 3, 4)]
    """
    height, width = image.shape[1:]
    found = {"head": head_box(bird.points, part_names, margin, width, height), "bird": bird.box}
    return [found[name] for name in boxes]


def keypoints(bird: Bird, number: int) -> tuple[Tensor, Tensor]:
    """Returns the keypoints of a bird as tensors.

    Args:
        bird: The bird.
        number: Number P of parts.

    Returns:
        x, y of each part in pixels, (P, 2) float32, and which parts are visible, (P,) bool.

    >>> keypoints(Bird("a.jpg", "row 1", points={1: (3.0, 4.0)}), 2)
    (tensor([[0., 0.],
            [3., 4.]]), tensor([False,  True]))
    """
    points = [bird.points.get(part, (0.0, 0.0)) for part in range(number)]
    return torch.tensor(points).reshape(-1, 2), torch.tensor(
        [part in bird.points for part in range(number)], dtype=torch.bool
    )


def _bird(birds: Mapping[str, Bird], identity: str, row: str) -> Bird:
    if identity not in birds:
        raise PriorError(f"images.txt has no image {identity} ({row})")
    return birds[identity]
