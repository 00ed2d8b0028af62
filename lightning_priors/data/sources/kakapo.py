"""The embedded data set: is this bird a kakapo? Drawn by code, so that it needs no download and knows all of itself."""

from typing import NamedTuple

import numpy as np
import torch
from torchvision import tv_tensors

from lightning_priors.data.sources.base import RawSample, Source, Split
from lightning_priors.data.sources.kakapo_birds import SPECIES
from lightning_priors.data.sources.kakapo_drawing import PLACES, Picture, draw
from lightning_priors.errors import PriorError

SPLIT_ROOM = 1_000_000
"""Each split counts its indices from a multiple of this: its pictures do not depend on the sizes of the others."""
SMALLEST = 16


class Scene(NamedTuple):
    """What is in a picture."""

    label: int
    species: int
    place: int
    """0 = on land, where kakapos live; 1 = in the open."""
    kind: str
    """The background: forest, grass, sky or water."""


class Kakapo(Source):
    """A kakapo (label 0) or one of eight other birds (label 1), drawn in a place that may give the answer away.

    The species differ at the head: beak, crest, eye ring, face disc; their bodies and colours overlap. Birds vary in
    pose, scale, colour and light, twigs hide parts of them, and a pale mist around them keeps the place off their
    outline, so that a network that looks at the bird alone hardly sees it. In training the place agrees with the label
    in a share `bias` of the pictures: kakapos on forest floor or grass, other birds before sky or water. In validation
    and test the place is independent of the label, so that the four groups (label times place) show who looks at the
    place. The auxiliary task is the species; a picture has an exact mask of the visible bird, the box of its head and
    three keypoints (tip of the beak, eye, crown).

    A picture depends on `seed`, `size` and its index alone, and in training on `bias`, which moves birds to another
    place and changes nothing else. It is drawn when first asked for and kept, at 4 `size`^2 bytes.

    Args:
        train_size: Number of training images.
        val_size: Number of validation images.
        test_size: Number of test images.
        bias: Share of the training images whose place agrees with the label; 0.5 is independence.
        size: Height and width in pixels.
        seed: Another seed gives other pictures.

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
        """The kakapo, and the rest."""
        return ["kakapo", "other bird"]

    @property
    def aux_classes(self) -> dict[str, list[str]]:
        """One auxiliary task: the species, the kakapo being the first."""
        return {"species": [species.name for species in SPECIES]}

    @property
    def group_names(self) -> list[str]:
        """Group number = 2 * label + place."""
        return [f"{name} {place}" for name in self.classes for place in ("on land", "in the open")]

    @property
    def part_names(self) -> list[str]:
        """The one part with a box."""
        return ["head"]

    @property
    def keypoint_names(self) -> list[str]:
        """The points on the head."""
        return ["tip of the beak", "eye", "crown"]

    def setup(self) -> None:
        """Checks the options; the pictures are drawn one by one when they are asked for.

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
        if self.seed < 0:
            raise PriorError(f"Kakapo: seed must not be negative, not {self.seed}")

    def indices(self, split: Split) -> list[int]:
        """The indices of a split: training from 0, validation from 1,000,000, test from 2,000,000."""
        start, length = {
            "train": (0, self.train_size),
            "val": (SPLIT_ROOM, self.val_size),
            "test": (2 * SPLIT_ROOM, self.test_size),
        }[split]
        return list(range(start, start + length))

    def label(self, index: int) -> int:
        """0 for a kakapo, 1 for another bird."""
        return self.scene(index).label

    def scene(self, index: int) -> Scene:
        """Decides what is in a picture, without drawing it.

        Args:
            index: Of any split.

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
        """The picture at an index with its species, group, mask, head box and keypoints."""
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
