"""The contract of a source of images, and the form of one image before the transforms."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors

from lightning_priors.errors import PriorError

Split = Literal["train", "val", "test"]


class RawSample(TypedDict):
    """One image as its source gives it; the transforms turn it into a `lightning_priors.batch.PriorSample`.

    A source gives an optional key for all of its images or for none. Where an image lacks the annotation, the entry is
    zero and its ``*_valid`` is false. Boxes, keypoints and mask refer to the pixels of `image`.
    """

    image: tv_tensors.Image
    """(3, H, W) uint8."""
    label: int
    """The class of the primary task."""
    aux_labels: NotRequired[list[int]]
    """One entry per auxiliary task, -1 = no label."""
    group: NotRequired[int]
    """The number of the group, such as a pair of label and background."""
    part_boxes: NotRequired[tv_tensors.BoundingBoxes]
    """(K, 4) float32 in the format XYXY, with the canvas size (H, W)."""
    part_valid: NotRequired[Tensor]
    """(K,) bool."""
    keypoints: NotRequired[Tensor]
    """(P, 2) float32 xy; the picture reaches from 0 to W, and the centre of its first pixel is at 0.5."""
    keypoint_valid: NotRequired[Tensor]
    """(P,) bool."""
    mask: NotRequired[tv_tensors.Image]
    """(1, H, W) float32 in [0, 1], 1 = target. No `tv_tensors.Mask`, which is resized without interpolation."""
    mask_valid: NotRequired[bool]
    """Whether this image has a mask."""


class Known(TypedDict):
    """What is known about one image beside its picture and its annotation."""

    label: int
    """The class of the primary task."""
    aux_labels: NotRequired[list[int]]
    """One entry per auxiliary task, -1 = no label."""
    group: NotRequired[int]
    """The number of the group."""


def raw_sample(image: tv_tensors.Image, known: Known) -> RawSample:
    """Puts a picture and what is known about it together; a source adds the annotation.

    >>> import torch
    >>> sorted(raw_sample(tv_tensors.Image(torch.zeros(3, 1, 1)), {"label": 1, "group": 3}))
    ['group', 'image', 'label']
    """
    sample = RawSample(image=image, label=known["label"])
    if "aux_labels" in known:
        sample["aux_labels"] = known["aux_labels"]
    if "group" in known:
        sample["group"] = known["group"]
    return sample


class UnreadableImageError(PriorError):
    """An image file is missing or cannot be decoded; ``on_bad_image: skip`` passes over this error and no other."""


class Source(ABC):
    """A data set whose images have integer indices, each index in one split only.

    The constructor stores the options and touches no file. `setup` reads the index files. `load` reads one image; it
    may be called from several processes and threads.

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

    def __init_subclass__(cls, **options: Any) -> None:
        """Lets `labels` follow the `label` of a subclass that overrides `label` alone."""
        super().__init_subclass__(**options)
        if "label" in vars(cls) and "labels" not in vars(cls) and cls.labels is not Source.labels:
            cls.labels = Source.labels  # type: ignore[method-assign]

    @property
    @abstractmethod
    def classes(self) -> list[str]:
        """The names of the primary classes in the order of their labels.

        They are known before `setup`: a source that finds them in a file reads the file here.

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
        """The names of the K part boxes; mirroring an image exchanges "left wing" and "right wing"."""
        return []

    @property
    def keypoint_names(self) -> list[str]:
        """The names of the P keypoints; mirroring an image exchanges left and right."""
        return []

    @property
    def file_folder(self) -> Path | None:
        """The folder that the names of `file` are relative to; None when images are no files."""
        return None

    def prepare_data(self) -> None:  # noqa: B027 - a hook: most sources have nothing to download
        """Downloads what is needed; Lightning calls it once per machine. By default it does nothing."""

    @abstractmethod
    def setup(self) -> None:
        """Reads and checks the index files; a second call does nothing.

        Raises:
            PriorError: If a file, a column or a class is missing or wrong.
        """

    @abstractmethod
    def indices(self, split: Split) -> list[int]:
        """Returns the indices of a split; none when the data has no such split.

        Without "val", `lightning_priors.data.PriorDataModule` sets training images aside for validation.
        """

    @abstractmethod
    def label(self, index: int) -> int:
        """Returns the primary label of an image without reading the image."""

    def labels(self, indices: Sequence[int]) -> NDArray[np.int64]:
        """Returns the primary labels of many images.

        By default `label` is asked for each; a source that has its labels in an array gives them from there.
        """
        return np.fromiter(map(self.label, indices), np.int64, len(indices))

    def known(self, index: int) -> Known:
        """Returns the label, auxiliary labels and group of an image.

        By default the image is read for it; a source that has them in its index files gives them from there.
        """
        sample = self.load(index)
        known = Known(label=sample["label"])
        if "aux_labels" in sample:
            known["aux_labels"] = sample["aux_labels"]
        if "group" in sample:
            known["group"] = sample["group"]
        return known

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
