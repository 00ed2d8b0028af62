"""Kakapo or another bird? A data set that code draws: it needs no download, and its annotation is exact."""

from typing import NamedTuple

import numpy as np
import torch
from torchvision import tv_tensors

from lightning_priors.data.sources.base import Known, RawSample, Source, Split
from lightning_priors.data.sources.kakapo_birds import SPECIES
from lightning_priors.data.sources.kakapo_drawing import PLACES, Picture, draw
from lightning_priors.errors import PriorError

SPLIT_ROOM = 1_000_000
"""The first index of each split is a multiple of this, so that no picture depends on the sizes of other splits."""
SMALLEST, LARGEST = 16, 4096


class Scene(NamedTuple):
    """The content of a picture."""

    label: int
    species: int
    place: int
    """0 = on land, where kakapos live; 1 = in the open, before sky or water."""
    kind: str
    """The background: forest, grass, sky or water."""


class Kakapo(Source):
    """Draws a kakapo (label 0) or one of eight other birds (label 1) in a place that may give the answer away.

    The species differ at the head: beak, crest, eye ring, face disc. Their bodies and colours overlap. Birds vary in
    pose, scale, colour and light, and twigs hide parts of them. A pale mist around each bird hides the place along its
    outline, so that a network that looks only at the bird hardly sees the place.

    In training the place agrees with the label in a fraction `bias` of the pictures: kakapos on forest floor or grass,
    other birds before sky or water. In validation and test the place is independent of the label, so that the accuracy
    in the four groups (label times place) shows whether a network looks at the place. The auxiliary task is the
    species. A picture has an exact mask of the visible bird, the box of its head and three keypoints (tip of the beak,
    eye, crown).

    A picture depends on `seed`, `size` and its index alone. In training it also depends on `bias`, which moves birds
    to another place and changes nothing else. Each picture is drawn once and kept in memory, at ``4 * size ** 2``
    bytes.

    Args:
        train_size: Number of training images.
        val_size: Number of validation images.
        test_size: Number of test images.
        bias: Fraction of the training images whose place agrees with the label; with 0.5 they are independent.
        size: Height and width in pixels.
        seed: Seed of the pictures.

    Raises:
        PriorError: In `setup`, if an option is out of its range.

    Example:
        >>> source = Kakapo(train_size=4, val_size=2, test_size=2, size=32)
        >>> source.setup()
        >>> sample = source.load(source.indices("train")[0])
        >>> sample["image"].shape, sample["mask"].shape, sample["part_boxes"].shape
        (torch.Size([3, 32, 32]), torch.Size([1, 32, 32]), torch.Size([1, 4]))
    """

    def __init__(
        self,
        train_size: int = 1200,
        val_size: int = 400,
        test_size: int = 800,
        bias: float = 0.95,
        size: int = 64,
        seed: int = 0,
    ) -> None:
        self.train_size = train_size
        self.val_size = val_size
        self.test_size = test_size
        self.bias = bias
        self.size = size
        self.seed = seed
        self._drawn: dict[int, Picture] = {}

    @property
    def classes(self) -> list[str]:
        """The kakapo and the other birds."""
        return ["kakapo", "other bird"]

    @property
    def aux_classes(self) -> dict[str, list[str]]:
        """One auxiliary task: the species, of which the kakapo is the first."""
        return {"species": [species.name for species in SPECIES]}

    @property
    def group_names(self) -> list[str]:
        """The names of the groups, whose numbers are 2 * label + place."""
        return [f"{name} {place}" for name in self.classes for place in ("on land", "in the open")]

    @property
    def part_names(self) -> list[str]:
        """One part: the head."""
        return ["head"]

    @property
    def keypoint_names(self) -> list[str]:
        """Three points on the head."""
        return ["tip of the beak", "eye", "crown"]

    def setup(self) -> None:
        """Checks the options. The pictures are drawn later, each when it is first loaded.

        Raises:
            PriorError: If an option is out of its range.
        """
        for name in ("train_size", "val_size", "test_size"):
            if not 0 <= getattr(self, name) <= SPLIT_ROOM:
                raise PriorError(f"Kakapo: {name} must be from 0 to {SPLIT_ROOM}, not {getattr(self, name)}")
        if not 0.0 <= self.bias <= 1.0:
            raise PriorError(f"Kakapo: bias is a share from 0 to 1, not {self.bias}")
        if self.size < SMALLEST:
            raise PriorError(f"Kakapo: size must be at least {SMALLEST} pixels, not {self.size}")
        if self.size > LARGEST:
            raise PriorError(f"Kakapo: size must be at most {LARGEST} pixels, not {self.size}")
        if self.seed < 0:
            raise PriorError(f"Kakapo: seed must not be negative, not {self.seed}")

    def indices(self, split: Split) -> list[int]:
        """Returns the indices of a split: training from 0, validation from 1,000,000, test from 2,000,000."""
        start, length = {
            "train": (0, self.train_size),
            "val": (SPLIT_ROOM, self.val_size),
            "test": (2 * SPLIT_ROOM, self.test_size),
        }[split]
        return list(range(start, start + length))

    def label(self, index: int) -> int:
        """Returns 0 for a kakapo, 1 for another bird."""
        return self.scene(index).label

    def known(self, index: int) -> Known:
        """Returns the label, the species and the group, without drawing the picture."""
        scene = self.scene(index)
        return Known(label=scene.label, aux_labels=[scene.species], group=2 * scene.label + scene.place)

    def scene(self, index: int) -> Scene:
        """Decides what is in a picture, without drawing it.

        Args:
            index: The index of the picture.

        >>> Kakapo(bias=1.0).scene(0).place == Kakapo(bias=1.0).scene(0).label
        True
        """
        is_other, which, disagrees, kind = np.random.default_rng((self.seed, index, 0)).random(4).tolist()
        label = int(is_other >= 0.5)
        species = label * (1 + int(which * (len(SPECIES) - 1)))
        agreement = self.bias if index < SPLIT_ROOM else 0.5
        place = label if disagrees < agreement else 1 - label
        return Scene(label, species, place, PLACES[place][int(kind * len(PLACES[place]))])

    def load(self, index: int) -> RawSample:
        """Draws a picture, or takes it from memory; with species, group, mask, head box and keypoints."""
        scene = self.scene(index)
        picture = self._drawn.get(index)
        if picture is None:
            ground, bird, rest = (np.random.default_rng((self.seed, index, stream)) for stream in (1, 2, 3))
            picture = draw((ground, bird, rest), SPECIES[scene.species], scene.kind, self.size)
            self._drawn[index] = picture
        pixels = torch.from_numpy(picture.pixels).permute(2, 0, 1)
        head = torch.tensor(picture.head_box[None])
        return RawSample(
            image=tv_tensors.Image(pixels[:3].contiguous()),
            label=scene.label,
            aux_labels=[scene.species],
            group=2 * scene.label + scene.place,
            part_boxes=tv_tensors.BoundingBoxes(head, format="XYXY", canvas_size=(self.size, self.size)),
            part_valid=torch.ones(1, dtype=torch.bool),
            keypoints=torch.tensor(picture.keypoints),
            keypoint_valid=torch.tensor(picture.keypoint_seen),
            mask=tv_tensors.Image(pixels[3:].float() / 255.0),
            mask_valid=True,
        )
