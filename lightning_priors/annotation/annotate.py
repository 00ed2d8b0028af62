"""Going through the pictures of a data module: what is known of each, and what an annotator says of it."""

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors
from tqdm import tqdm

from lightning_priors.annotation.annotator import Annotation, Annotator, PythonFunction, checked
from lightning_priors.data import PriorDataModule
from lightning_priors.data.datamodule import SPLITS
from lightning_priors.data.sources import RawSample, Split


class Record(NamedTuple):
    """One picture."""

    split: Split
    number: int
    """Its index in the source."""
    known: RawSample
    """The picture with the annotation that the data shows."""
    truth: RawSample
    """The same with what it hides; for judging only."""
    found: Annotation | None
    """What the annotator says; None where it was not asked."""


def records(
    data: PriorDataModule, annotator: Annotator, splits: Collection[Split], ask_all: bool = False
) -> Iterator[Record]:
    """Goes through all pictures and asks the annotator about those whose annotation is not known.

    Args:
        data: After ``setup(None)``.
        annotator: After `Annotator.learn`.
        splits: Those in which it is asked.
        ask_all: Whether it is asked about the others of these splits too.

    Yields:
        The pictures, split by split, each in the order of the data module.

    Raises:
        PriorError: If a picture cannot be read, or what the annotator gives does not fit.
    """
    with tqdm(total=sum(map(len, data.datasets.values())), desc="annotating", leave=False, disable=None) as progress:
        for split in SPLITS:
            dataset = data.datasets[split]
            waiting = iter(dataset.indices)
            while batch := list(islice(waiting, data.batch_size)):
                truths = [data.source.load(index) for index in batch]
                known = [
                    hidden(truth) if index in dataset.without_priors else truth
                    for index, truth in zip(batch, truths, strict=True)
                ]
                parts = annotator.part_names, data.source.part_names
                ask = [split in splits and (ask_all or lacks(sample, *parts)) for sample in known]
                found = iter(_asked(annotator, [sample for sample, asked in zip(known, ask, strict=True) if asked]))
                for index, sample, truth, asked in zip(batch, known, truths, ask, strict=True):
                    yield Record(split, index, sample, truth, next(found) if asked else None)
                    progress.update()


def lacks(sample: RawSample, found_parts: Sequence[str], source_parts: Sequence[str]) -> bool:
    """Says whether a picture lacks what an annotator gives: the mask, or one of its boxes.

    Args:
        sample: The picture.
        found_parts: The parts whose boxes the annotator gives; empty for one that gives masks.
        source_parts: The parts whose boxes the data has.
    """
    if not found_parts:
        return not sample.get("mask_valid", False)
    known = {part for part, valid in zip(source_parts, sample.get("part_valid", []), strict=False) if valid}
    return not known >= set(found_parts)


def hidden(sample: RawSample) -> RawSample:
    """Hides the mask, the boxes and the keypoints of a picture.

    Args:
        sample: It is not changed.

    Returns:
        A copy with the same keys, in which they are zero and not valid.

    >>> image = tv_tensors.Image(torch.zeros(3, 2, 2, dtype=torch.uint8))
    >>> hidden({"image": image, "label": 1, "mask": tv_tensors.Image(torch.ones(1, 2, 2)), "mask_valid": True})["mask"]
    Image([[[0., 0.],
            [0., 0.]]], )
    """
    bare = sample.copy()
    if "mask" in sample:
        bare["mask"], bare["mask_valid"] = tv_tensors.Image(torch.zeros_like(sample["mask"])), False
    if "part_boxes" in sample:
        bare["part_boxes"] = tv_tensors.wrap(torch.zeros_like(sample["part_boxes"]), like=sample["part_boxes"])
        bare["part_valid"] = torch.zeros_like(sample["part_valid"])
    if "keypoints" in sample:
        bare["keypoints"] = torch.zeros_like(sample["keypoints"])
        bare["keypoint_valid"] = torch.zeros_like(sample["keypoint_valid"])
    return bare


def name_of(annotator: Annotator) -> str:
    """Names an annotator in messages and reports: its class, or the user's function."""
    if isinstance(annotator, PythonFunction):
        return getattr(annotator.function, "__qualname__", type(annotator.function).__name__)
    return type(annotator).__name__


def _asked(annotator: Annotator, samples: list[RawSample]) -> list[Annotation]:
    if not samples:
        return []
    images = [sample["image"].as_subclass(Tensor) for sample in samples]
    return checked(annotator.annotate_samples(samples), images, annotator.part_names, name_of(annotator))
