"""The contract of an annotator: pictures in, masks or boxes with a score out."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import RawSample
from lightning_priors.data.sources.places import checked_boxes
from lightning_priors.errors import PriorError
from lightning_priors.import_path import failure_line, import_attribute

Box = Sequence[float]
"""x0, y0, x1, y1 in pixels of the picture, from (0, 0) in the upper left corner to (W, H) in the lower right one."""


@dataclass(frozen=True)
class Annotation:
    """What an annotator says of one picture: a mask, or boxes of parts, and how far to trust it.

    Args:
        score: Higher is better; from 0 to 1 where the annotator can tell. Poor annotations are left out by it.
        mask: (H, W) of the picture's size, bool or float in [0, 1], 1 = target; None or empty where none was found.
        boxes: For each of the annotator's parts a box, or None where it was not found.

    >>> Annotation(0.9, mask=torch.ones(2, 3)).boxes
    ()
    """

    score: float
    mask: Tensor | None = None
    boxes: Sequence[Box | None] = ()


class Annotator(ABC):
    """Annotates pictures; a subclass writes `annotate`.

    Attributes:
        part_names: The parts whose boxes it gives; empty for one that gives masks.

    >>> class Everything(Annotator):
    ...     def annotate(self, images):
    ...         return [Annotation(0.5, mask=torch.ones(image.shape[1:])) for image in images]
    >>> Everything().annotate([torch.zeros(3, 4, 6, dtype=torch.uint8)])[0].mask.shape
    torch.Size([4, 6])
    """

    part_names: Sequence[str] = ()

    @abstractmethod
    def annotate(self, images: list[Tensor]) -> list[Annotation]:
        """Annotates pictures.

        Args:
            images: (3, H, W) uint8 each, at the size of their files.

        Returns:
            One annotation for each picture.
        """

    def learn(self, data: PriorDataModule) -> None:  # noqa: B027 - a hook: most annotators have nothing to learn
        """Learns from the annotated part of the data; called once, before the first picture. By default nothing.

        Args:
            data: After its `setup`. What it hides, by ``annotated_fraction``, is not to be looked at.
        """

    def annotate_samples(self, samples: list[RawSample]) -> list[Annotation]:
        """Annotates pictures with what is known about them; by default the pictures alone are looked at.

        Args:
            samples: With the annotation that the data shows.

        Returns:
            One annotation for each picture.
        """
        return self.annotate([sample["image"].as_subclass(Tensor) for sample in samples])


class PythonFunction(Annotator):
    """Asks a function of yours; ``--by my_module.my_function`` is short for it.

    Args:
        function: Dotted name of a function that takes a list of pictures, tensors (3, H, W) of uint8, and gives a list
            of `Annotation`.
        part_names: The parts whose boxes it gives; none for one that gives masks.

    Raises:
        PriorError: If there is no such function.

    >>> PythonFunction("math.sqrtt")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: the module math has no 'sqrtt'; did you mean 'sqrt'?
    """

    def __init__(self, function: str, part_names: Sequence[str] = ()) -> None:
        self.function: Callable[[list[Tensor]], list[Annotation]] = import_attribute(function)
        if not callable(self.function):
            raise PriorError(f"{function} is no function but an object of {type(self.function).__name__}")
        self.part_names = list(part_names)

    def annotate(self, images: list[Tensor]) -> list[Annotation]:
        """Calls the function; what it raises is a mistake of its author, told with file and line."""
        try:
            return self.function(images)
        except Exception as error:
            raise PriorError(failure_line(error)) from error


def checked(annotations: Any, images: Sequence[Tensor], part_names: Sequence[str], name: str) -> list[Annotation]:
    """Checks what an annotator has given.

    Args:
        annotations: What it gave; anything, for it may be a user's.
        images: (3, H, W) each, the pictures that it was asked about.
        part_names: The parts whose boxes it gives.
        name: Of the annotator, for the message.

    Returns:
        The same, with masks (H, W) as float32 on the CPU.

    Raises:
        PriorError: If something does not fit the pictures.

    >>> checked([Annotation(1.0, mask=torch.ones(2, 2))], [torch.zeros(3, 4, 4)], [], "mine.outline")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: mine.outline gave a mask of shape (2, 2) for a picture of shape (4, 4)
    """
    if not isinstance(annotations, list | tuple) or len(annotations) != len(images):
        given = f"{len(annotations)}" if isinstance(annotations, list | tuple) else f"a {type(annotations).__name__}"
        raise PriorError(f"{name} gave {given}, not a list of {len(images)} annotations, one for each picture")
    return [_checked(each, image, part_names, name) for each, image in zip(annotations, images, strict=True)]


def _checked(annotation: Any, image: Tensor, part_names: Sequence[str], name: str) -> Annotation:
    if not isinstance(annotation, Annotation):
        raise PriorError(f"{name} gave a {type(annotation).__name__} for a picture, not an Annotation(score, mask)")
    if not math.isfinite(annotation.score):
        raise PriorError(f"{name} gave the score {annotation.score}, which is no finite number")
    if len(annotation.boxes) != len(part_names):
        raise PriorError(f"{name} gave {len(annotation.boxes)} boxes; part_names has {len(part_names)}")
    checked_boxes(annotation.boxes, image, part_names, f"of {name}")
    mask = annotation.mask
    if mask is None or part_names:
        return Annotation(float(annotation.score), None, annotation.boxes)
    mask = torch.as_tensor(mask).detach().float().cpu()
    if mask.shape != image.shape[1:]:
        shapes = f"of shape {tuple(mask.shape)} for a picture of shape {tuple(image.shape[1:])}"
        raise PriorError(f"{name} gave a mask {shapes}")
    if not bool((mask >= 0).all() & (mask <= 1).all()):
        raise PriorError(f"{name} gave a mask with values from {mask.min():g} to {mask.max():g}, not from 0 to 1")
    return Annotation(float(annotation.score), mask)
