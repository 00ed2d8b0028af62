"""What a data set has, in a few lines for the start of a run."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch

from lightning_priors.data.sources.base import RawSample, Source

LOOKED_AT = 32
"""How many images are loaded to see what is annotated."""

VALIDITY = {"mask": "mask_valid", "part_boxes": "part_valid", "keypoints": "keypoint_valid"}
OTHERS = ("aux_labels", "group")


class Annotations(NamedTuple):
    """What a few images are annotated with."""

    counts: dict[str, int]
    """For each key that the data has, how many of the images have it."""
    images: int
    """How many were looked at."""


def annotations(source: Source, indices: Sequence[int], most: int = LOOKED_AT) -> Annotations:
    """Loads images, evenly chosen, and counts what they are annotated with.

    Args:
        source: Of the images, set up.
        indices: The images to choose from.
        most: How many to look at.

    Raises:
        PriorError: If one of them cannot be read.

    >>> from lightning_priors.data.sources import Kakapo
    >>> annotations(Kakapo(), range(8), most=2).counts["mask"]
    2
    """
    step = -(-len(indices) // most) if indices else 1
    chosen = indices[::step]
    counts: Counter[str] = Counter()
    for index in chosen:
        sample = source.load(index)
        counts.update({key: _is_annotated(sample, key) for key in (*VALIDITY, *OTHERS) if key in sample})
    return Annotations(dict(counts), len(chosen))


def annotation_line(found: Annotations, kept: int, trained: int) -> str:
    """Says what the training images are annotated with.

    Args:
        found: What was found.
        kept: How many training images keep their mask, boxes and keypoints.
        trained: How many training images there are.

    >>> annotation_line(Annotations({"mask": 8, "part_boxes": 3}, 8), kept=10, trained=100)
    'priors: mask, part_boxes (3 of 8 images looked at); kept for 10 of 100 images'
    """
    parts = [
        key if count == found.images else f"{key} ({count} of {found.images} images looked at)"
        for key, count in found.counts.items()
    ]
    limit = f"; kept for {kept} of {trained} images" if kept < trained and found.counts.keys() & VALIDITY else ""
    return f"priors: {', '.join(parts) or 'none'}{limit}"


def _is_annotated(sample: RawSample, key: str) -> bool:
    if key == "aux_labels":
        return max(sample["aux_labels"], default=-1) >= 0
    valid = sample.get(VALIDITY[key], True) if key in VALIDITY else True
    return bool(torch.as_tensor(valid).any())
