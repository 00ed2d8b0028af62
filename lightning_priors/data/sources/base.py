"""What a data set has to answer, and what one of its images looks like before the transforms."""

from abc import ABC, abstractmethod
from typing import Literal, NotRequired, TypedDict

from torch import Tensor
from torchvision import tv_tensors

from lightning_priors.errors import PriorError

Split = Literal["train", "val", "test"]


class RawSample(TypedDict):
    """One image as its source has it; the transforms turn it into a `lightning_priors.batch.PriorSample`.

    A source gives an optional key for all of its images or for none; an image without that annotation carries zeros
    and a false ``*_valid``. Boxes, keypoints and mask refer to the pixels of `image`.
    """

    image: tv_tensors.Image
    """(3, H, W) uint8."""
    label: int
    """The class of the primary task."""
    aux_labels: NotRequired[list[int]]
    """One entry per auxiliary task, -1 = no label."""
    group: NotRequired[int]
    """Such as label times background."""
    part_boxes: NotRequired[tv_tensors.BoundingBoxes]
    """(K, 4) float32 in the format XYXY, with the canvas size (H, W)."""
    part_valid: NotRequired[Tensor]
    """(K,) bool."""
    keypoints: NotRequired[Tensor]
    """(P, 2) float32 xy; the picture reaches from 0 to W, and the centre of its first pixel is at 0.5."""
    keypoint_valid: NotRequired[Tensor]
    """(P,) bool."""
    mask: NotRequired[tv_tensors.Image]
    """(1, H, W) float32 in [0, 1], 1 = target. An image, not a `tv_tensors.Mask`: that would be resized to blocks."""
    mask_valid: NotRequired[bool]
    """Whether this image has a mask."""


class UnreadableImageError(PriorError):
    """An image file that is missing or cannot be decoded; the one error that ``on_bad_image: skip`` passes over."""


class Source(ABC):
    """A data set as rows with stable integer indices over all splits.

    The constructor only stores its options, so that building one is cheap and touches no file. A source reads its
    index files in `setup` and its images in `load`, which may be called from several processes and threads.

    Example:
        >>> import torch
        >>> class Grey(Source):
        ...     classes = ["dark", "light"]
        ...     def setup(self): pass
        ...     def indices(self, split): return {"train": [0, 1, 2, 3], "val": [], "test": [4, 5]}[split]
        ...     def label(self, index): return index % 2
        ...     def load(self, index):
        ...         image = torch.full((3, 8, 8), 255 * self.label(index), dtype=torch.uint8)
        ...         return {"image": tv_tensors.Image(image), "label": self.label(index)}
        >>> source = Grey()
        >>> source.load(source.indices("test")[1])["label"], source.aux_classes
        (1, {})
    """

    @property
    @abstractmethod
    def classes(self) -> list[str]:
        """The names of the primary classes in the order of their labels.

        May be asked before `setup`; a source that has to look into a file for them does so here.

        Raises:
            PriorError: If that file is missing or wrong.
        """

    @property
    def aux_classes(self) -> dict[str, list[str]]:
        """The class names of each auxiliary task, in the order of the columns of ``aux_labels``."""
        return {}

    @property
    def group_names(self) -> list[str]:
        """The names of the groups in the order of their numbers; empty when the data has no groups."""
        return []

    @property
    def part_names(self) -> list[str]:
        """The names of the K part boxes; "left wing" and "right wing" change places in a mirrored image."""
        return []

    @property
    def keypoint_names(self) -> list[str]:
        """The names of the P keypoints; left and right change places in a mirrored image."""
        return []

    def prepare_data(self) -> None:  # noqa: B027 - a hook: most sources have nothing to download
        """Downloads what is needed, once per machine; nothing by default."""

    @abstractmethod
    def setup(self) -> None:
        """Reads and checks the index files; a second call does nothing.

        Raises:
            PriorError: If a file, a column or a class is missing or wrong.
        """

    @abstractmethod
    def indices(self, split: Split) -> list[int]:
        """The indices of a split; empty when the data has no such split.

        An empty "val" is carved from "train" by `lightning_priors.data.PriorDataModule`.
        """

    @abstractmethod
    def label(self, index: int) -> int:
        """The primary label of an image, without reading the image."""

    def file(self, index: int) -> str:
        """Returns the file of an image, relative to the source's folder; empty for an image that is no file."""
        return ""

    @abstractmethod
    def load(self, index: int) -> RawSample:
        """Reads one image and what is known about it.

        Raises:
            UnreadableImageError: If the image file is missing or broken.
            PriorError: If an annotation does not fit the image.
        """
