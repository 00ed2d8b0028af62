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
    height, width = classifier.image_size
    for any_size in (True, False):
        sizes = [(height, width), *([(height + OTHER_SIZE[0], width + OTHER_SIZE[1])] if any_size else [])]
        with TemporaryDirectory(dir=path.parent, prefix=".export") as folder:
            try:
                answers = WRITERS[kind](classifier, Path(folder, path.name), any_size)
                difference = greatest_difference(classifier, answers, pictures, sizes)
            except PriorError:
                raise
            except Exception as error:  # whatever an exporter raises for a network that it does not master
                if any_size:
                    yield f"pictures of any size: no, the network of {height} x {width} pixels takes no other"
                    continue
                said = " ".join(str(error).split())[:300]
                raise PriorError(f"{kind} cannot hold this network: {type(error).__name__}: {said}") from error
            if difference > TOLERANCE:
                raise PriorError(
                    f"the {kind} file answers otherwise than PyTorch, by {difference:.1e} (allowed: {TOLERANCE:.0e}); "
                    "it was deleted"
                )
            os.replace(Path(folder, path.name), path)
        shown = " and ".join(f"{rows} x {columns}" for rows, columns in sizes)
        batches = ", ".join(map(str, BATCH_SIZES))
        yield (
            f"greatest difference to PyTorch {difference:.1e} (allowed: {TOLERANCE:.0e}), in batches of {batches}, "
            f"at {shown} pixels"
        )
        return


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
