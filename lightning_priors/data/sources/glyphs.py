"""Letters and digits in mixed groups: a data set that code draws, where finer labels help. It needs no download."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torchvision import tv_tensors

from lightning_priors.data.sources.base import RawSample, Source, Split
from lightning_priors.errors import PriorError, nearest

CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"
"""Without the small letters that look like capital ones, as in EMNIST (Cohen et al. 2017)."""
FACES: dict[Split, tuple[str, ...]] = {
    "train": (
        *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
        *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
        *("cmr10", "cmb10", "cmti10"),
    ),
    "val": ("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique", "cmss10"),
    "test": ("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic", "cmtt10"),
}
"""The fonts that matplotlib brings along, by file; no family is in two splits."""
ROOM = 1_000_000
"""The first index of each split is a multiple of this, so that no picture depends on the sizes of other splits."""
OVERSAMPLING = 2
SMALLEST, LARGEST = 16, 4096


class Pose(NamedTuple):
    """How a character is drawn."""

    face: str
    """The font's file."""
    height: float
    """Of a capital letter, as a share of the picture."""
    shift: tuple[float, float]
    """To the right and downwards, as shares of the picture."""
    turn: float
    """Radians, clockwise."""
    shear: float
    """Of the vertical lines."""
    noise: float
    """Standard deviation of the pixels, in [0, 1]."""


class Glyphs(Source):
    """Draws letters and digits whose classes are arbitrary groups of characters, in fonts that the test does not share.

    A group such as {A, 7, q, ...} has nothing in common but its name: to recognise it in an unseen font, a network has
    to recognise characters. So the finer labels, the auxiliary task ``character``, help where pictures are few; natural
    categories do not have this headroom. Characters are shifted, turned, sheared and noisy. The fonts are those of
    matplotlib, whose families are divided between training, validation and test.

    A picture depends on `seed`, `size` and its index alone, the groups on `seed` and `groups`. Each picture is drawn
    once and kept in memory, at ``size ** 2`` bytes.

    Args:
        train_size: Number of training images.
        val_size: Number of validation images.
        test_size: Number of test images.
        groups: Number of classes, into which the 47 characters are divided at random, as evenly as possible.
        target: Whether the primary task is the first group (label 0) against all others (label 1).
        aux: The auxiliary tasks: ``character``, the finer labels; ``other_character``, the same with the first group
            as one class; ``equal``, the groups once more; ``crossing``, as many other groups; ``coarser``, half of the
            groups against the other half.
        size: Height and width in pixels.
        seed: Seed of the groups and of the pictures.

    Raises:
        PriorError: In `setup`, `classes` and `aux_classes`, if an option is out of its range.

    Example:
        >>> source = Glyphs(train_size=4, val_size=2, test_size=2, size=32)
        >>> source.setup()
        >>> sample = source.load(source.indices("train")[0])
        >>> sample["image"].shape, source.classes[0], len(source.aux_classes["character"])
        (torch.Size([3, 32, 32]), 'group 1', 47)
    """

    def __init__(
        self,
        train_size: int = 1316,
        val_size: int = 705,
        test_size: int = 1410,
        groups: int = 5,
        target: bool = False,
        aux: Sequence[str] = ("character",),
        size: int = 48,
        seed: int = 0,
    ) -> None:
        self.train_size = train_size
        self.val_size = val_size
        self.test_size = test_size
        self.groups = groups
        self.target = target
        self.aux = list(aux)
        self.size = size
        self.seed = seed
        self._drawn: dict[int, NDArray[np.uint8]] = {}

    @property
    def classes(self) -> list[str]:
        """The groups, or the first of them and "other"."""
        return [self._groups[0], "other"] if self.target else self._groups

    @property
    def _groups(self) -> list[str]:
        """The names of the groups."""
        if not 2 <= self.groups <= len(CHARACTERS):
            raise PriorError(f"Glyphs: groups must be from 2 to {len(CHARACTERS)}, not {self.groups}")
        return [f"group {number + 1}" for number in range(self.groups)]

    @property
    def aux_classes(self) -> dict[str, list[str]]:
        """The class names of the chosen tasks.

        Raises:
            PriorError: If there is no such task.
        """
        return {task: names for task, (names, _) in self._tasks().items()}

    def setup(self) -> None:
        """Checks the options. The pictures are drawn later, each when it is first loaded.

        Raises:
            PriorError: If an option is out of its range.
        """
        if self.seed < 0:
            raise PriorError(f"Glyphs: seed must not be negative, not {self.seed}")
        _ = self.classes, self.aux_classes
        for name in ("train_size", "val_size", "test_size"):
            if not 0 <= getattr(self, name) <= ROOM:
                raise PriorError(f"Glyphs: {name} must be from 0 to {ROOM}, not {getattr(self, name)}")
        if self.size < SMALLEST:
            raise PriorError(f"Glyphs: size must be at least {SMALLEST} pixels, not {self.size}")
        if self.size > LARGEST:
            raise PriorError(f"Glyphs: size must be at most {LARGEST} pixels, not {self.size}")

    def indices(self, split: Split) -> list[int]:
        """Returns the indices of a split: training from 0, validation from 1,000,000, test from 2,000,000."""
        first, length = {
            "train": (0, self.train_size),
            "val": (ROOM, self.val_size),
            "test": (2 * ROOM, self.test_size),
        }[split]
        return list(range(first, first + length))

    def label(self, index: int) -> int:
        """Returns the group of the character; with a target whether it is another group."""
        group = group_of_each(self.groups, self.seed)[self.character(index)]
        return min(group, 1) if self.target else group

    def character(self, index: int) -> int:
        """Returns the number of the character in `CHARACTERS`; all occur equally often.

        >>> Glyphs().character(1_000_047)
        0
        """
        return index % ROOM % len(CHARACTERS)

    def load(self, index: int) -> RawSample:
        """Draws a picture, or takes it from memory; with its character."""
        character = self.character(index)
        if index not in self._drawn:
            generator = np.random.default_rng((self.seed, index))
            faces = list(FACES.values())[index // ROOM]
            self._drawn[index] = draw(CHARACTERS[character], pose(faces, generator), self.size, generator)
        grey = torch.from_numpy(self._drawn[index])
        sample = RawSample(image=tv_tensors.Image(grey.expand(3, -1, -1).clone()), label=self.label(index))
        if self.aux:
            sample["aux_labels"] = [labels[character] for _, labels in self._tasks().values()]
        return sample

    def _tasks(self) -> dict[str, tuple[list[str], list[int]]]:
        """The class names of each chosen task, and the class of each character."""
        own = group_of_each(self.groups, self.seed)
        others = [character for character, group in zip(CHARACTERS, own, strict=True) if group]
        places = {character: place for place, character in enumerate(others, start=1)}
        known = {
            "character": (list(CHARACTERS), list(range(len(CHARACTERS)))),
            "other_character": ([self._groups[0], *others], [places.get(character, 0) for character in CHARACTERS]),
            "equal": (self._groups, own),
            "crossing": (self._groups, group_of_each(self.groups, self.seed + 1)),
            "coarser": (["first half", "second half"], [2 * group // self.groups for group in own]),
        }
        for task in self.aux:
            if task not in known:
                raise PriorError(f"Glyphs has no auxiliary task {task!r}; {nearest(task, known)}")
        return {task: known[task] for task in self.aux}


@cache
def group_of_each(groups: int, seed: int) -> list[int]:
    """Divides the characters at random.

    Args:
        groups: Number of groups.
        seed: Of the division.

    Returns:
        The group of each of the 47 characters; the sizes of the groups differ by one at most.

    >>> sorted(group_of_each(5, seed=0).count(group) for group in range(5))
    [9, 9, 9, 10, 10]
    """
    order = np.random.default_rng(seed).permutation(len(CHARACTERS))
    return [int(place) % groups for place in order]


def pose(faces: tuple[str, ...], generator: np.random.Generator) -> Pose:
    """Draws how a character is drawn.

    Args:
        faces: The files of the fonts to choose from.
        generator: Source of all randomness.
    """
    face = faces[int(generator.integers(len(faces)))]
    right, down, turn, shear = generator.uniform(-1, 1, 4).tolist()
    height, noise = generator.uniform(0, 1, 2).tolist()
    return Pose(face, 0.35 + 0.15 * height, (0.08 * right, 0.08 * down), 0.2 * turn, 0.2 * shear, 0.1 * noise)


def draw(character: str, how: Pose, size: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Draws a character, dark on light.

    Args:
        character: A single one.
        how: Font, place and form.
        size: Height and width in pixels.
        generator: Source of the noise.

    Returns:
        (size, size), grey.

    >>> how = Pose("cmr10", 0.5, (0.0, 0.0), turn=0.0, shear=0.0, noise=0.0)
    >>> picture = draw("I", how, 32, np.random.default_rng(0))
    >>> picture.shape, int(picture[0, 0]), bool(picture[16, 16] < 128)
    ((32, 32), 255, True)
    """
    side = OVERSAMPLING * size
    sheet = Image.new("L", (side, side), 0)
    font = _font(how.face, round(how.height * side / 0.7))  # a capital letter has about 0.7 of the font's size
    left, top, right, bottom = font.getbbox(character)
    corner = (side - left - right) / 2, (side - top - bottom) / 2
    ImageDraw.Draw(sheet).text(corner, character, font=font, fill=255)
    moved = sheet.transform((side, side), Image.Transform.AFFINE, _inverse(how, side), Image.Resampling.BILINEAR)
    ink = np.asarray(moved.resize((size, size), Image.Resampling.BOX), dtype=np.float64) / 255
    grey = 1 - ink
    if how.noise:
        grey = grey + generator.normal(0, how.noise, grey.shape)
    return (255 * grey.clip(0, 1)).round().astype(np.uint8)


def _inverse(how: Pose, side: int) -> tuple[float, float, float, float, float, float]:
    """Where each pixel comes from: turned and sheared about the middle, then shifted."""
    cos, sin = np.cos(how.turn), np.sin(how.turn)
    back = np.linalg.inv(np.array([[cos, -sin], [sin, cos]]) @ np.array([[1.0, how.shear], [0.0, 1.0]]))
    middle = np.full(2, side / 2)
    start = middle - back @ (middle + side * np.array(how.shift))
    a, b, c, d, e, f = (float(v) for v in (*back[0], start[0], *back[1], start[1]))
    return a, b, c, d, e, f


@cache
def _font(face: str, points: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"), points)
