"""Writes a file and compares it with PyTorch; a file that answers otherwise does not stay."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from lightning_priors.errors import PriorError
from lightning_priors.export.formats import WRITERS, Answers
from lightning_priors.trained import TrainedClassifier

BATCH_SIZES = (1, 2, 5)
"""On which an export is compared; a graph that was traced with two pictures has to take any number."""

OTHER_SIZE = (32, 64)
"""Pixels more in height and width, at which an export for any size is compared too."""

TOLERANCE = 1e-4
"""Greatest difference that is allowed, relative to the greatest value of an output if that is above 1."""


def write(classifier: TrainedClassifier, kind: str, path: Path, pictures: Sequence[Tensor]) -> Iterator[str]:
    """Writes a classifier for pictures of any size, or for its own size where the network takes no other.

    Args:
        classifier: On the CPU.
        kind: ``onnx``, ``safetensors`` or ``torch_export``.
        path: The file; it is there at the end, and only if it answers as PyTorch does.
        pictures: Five (3, H, W) uint8.

    Yields:
        Lines that say what was found.

    Raises:
        PriorError: If the network cannot be exported, or the file answers otherwise.
    """
    for any_size in (True, False):
        with TemporaryDirectory(dir=path.parent, prefix=".export") as folder:
            made = Path(folder, path.name)
            difference = _attempt(classifier, kind, made, pictures, any_size)
            if difference <= TOLERANCE:
                os.replace(made, path)
                yield _found(classifier, difference, any_size)
                return
        if any_size:
            height, width = classifier.image_size
            yield f"pictures of any size: no, the file takes {height} x {width} pixels alone"
    limit = f"(allowed: {TOLERANCE:.0e})"
    raise PriorError(f"the {kind} file answers otherwise than PyTorch, by {difference:.1e} {limit}; it was deleted")


def _attempt(classifier: TrainedClassifier, kind: str, path: Path, pictures: Sequence[Tensor], any_size: bool) -> float:
    """Writes a file and gives its greatest difference; infinite where the network cannot be held for any size."""
    try:
        answers = WRITERS[kind](classifier, path, any_size)
        return greatest_difference(classifier, answers, pictures, _sizes(classifier, any_size))
    except PriorError:
        raise
    except Exception as error:  # whatever an exporter or a runtime raises for a network that it does not master
        if any_size:
            return float("inf")
        said = " ".join(str(error).split())[:300]
        raise PriorError(f"{kind} cannot hold this network: {type(error).__name__}: {said}") from error


def _sizes(classifier: TrainedClassifier, any_size: bool) -> list[tuple[int, int]]:
    height, width = classifier.image_size
    return [(height, width), *([(height + OTHER_SIZE[0], width + OTHER_SIZE[1])] if any_size else [])]


def _found(classifier: TrainedClassifier, difference: float, any_size: bool) -> str:
    sizes = " and ".join(f"{rows} x {columns}" for rows, columns in _sizes(classifier, any_size))
    batches = ", ".join(map(str, BATCH_SIZES))
    allowed = f"(allowed: {TOLERANCE:.0e})"
    return f"greatest difference to PyTorch {difference:.1e} {allowed}, in batches of {batches}, at {sizes} pixels"


@torch.no_grad()
def greatest_difference(
    classifier: TrainedClassifier,
    answers: Answers,
    pictures: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> float:
    """Compares what a file says with what the classifier says.

    Args:
        classifier: On the CPU.
        answers: Of the file.
        pictures: (3, H, W) uint8, at least as many as the greatest batch has.
        sizes: Heights and widths in pixels.
        batch_sizes: How many of the pictures are given at once.

    Returns:
        Over all batch sizes and sizes, the greatest difference of logits, maps and probabilities, relative to the
        greatest value of the output if that is above 1. It is infinite for answers of another shape, or that are not
        finite.
    """
    worst = 0.0
    mean, std = (torch.tensor(classifier.facts[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    for size in sizes:
        resized = torch.stack([F.resize(picture, list(size), antialias=True) for picture in pictures])
        image = F.to_dtype(resized, torch.float32, scale=True)
        for count in batch_sizes:
            logits, cam = classifier((image[:count] - mean) / std)
            said = answers(image[:count].contiguous())
            for name, expected in (("logits", logits), ("cam", cam), ("probabilities", logits.softmax(1))):
                worst = max(worst, _difference(said[name], expected))
    return worst


def _difference(said: Tensor, expected: Tensor) -> float:
    if said.shape != expected.shape or not said.isfinite().all():
        return float("inf")
    return float((said - expected).abs().max() / expected.abs().max().clamp(min=1))
