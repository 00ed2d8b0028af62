"""What a classifier says of the images of a split, image by image; numbers only."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from lightning_priors.batch import PriorBatch, complete
from lightning_priors.data import PriorDataModule
from lightning_priors.data.datamodule import PriorDataset
from lightning_priors.data.transforms import PriorTransform
from lightning_priors.errors import PriorError
from lightning_priors.explain.backgrounds import Exchange, Exchanged, before_others, target_alone
from lightning_priors.functional.cam import evidence_map
from lightning_priors.functional.prior_maps import KINDS, prior_map
from lightning_priors.metrics import EnergyPointingGame, PointingGame
from lightning_priors.trained import TrainedClassifier


class Answers(NamedTuple):
    """What was said of N images, in their order; on the CPU."""

    logits: Tensor
    """(N, K) float32."""
    label: Tensor
    """(N,) int64, the true classes."""
    group: Tensor | None
    """(N,) int64; None where the data has no groups."""
    inside: Tensor
    """(N,) the share of the evidence for the true class inside the prior; nan for an image without one."""
    pointed: Tensor
    """(N,) whether the greatest evidence for the true class lies inside the prior, 0 or 1; nan as above."""
    covered: Tensor
    """(N,) the share of the picture that the prior covers, which evidence that lies anywhere would have inside."""
    masked: Tensor
    """(N,) bool, whether the image has a mask."""

    @property
    def predicted(self) -> Tensor:
        """(N,) int64, the most probable classes."""
        return self.logits.argmax(1)

    @property
    def right(self) -> Tensor:
        """(N,) bool."""
        return self.predicted == self.label

    @property
    def confidence(self) -> Tensor:
        """(N,) the probability of the predicted class."""
        return self.logits.softmax(1).amax(1)


class BackgroundAnswers(NamedTuple):
    """What was said of the M images that have a mask when their backgrounds were changed."""

    places: Tensor
    """(M,) int64, the images' places among all."""
    alone: Tensor
    """(M, K) logits of the target before the mean colour."""
    exchanged: Tensor
    """(M, K) logits of the target before other backgrounds."""


def images_of(classifier: TrainedClassifier, place: str, data: PriorDataModule, split: str) -> PriorDataset:
    """Takes the images of a split in the size that a classifier was trained on.

    Args:
        classifier: The classifier.
        place: Its name in messages, such as its checkpoint.
        data: It is set up for the split.
        split: "val" or "test".

    Returns:
        The images as evaluation serves them.

    Raises:
        PriorError: If the classes are others, or the classifier is for pictures that are not square.
    """
    names = classifier.class_names
    if len(names) != data.num_classes:
        raise PriorError(
            f"{place} has {len(names)} classes ({', '.join(names[:5])}), "
            f"the data {data.num_classes} ({', '.join(data.classes[:5])})"
        )
    if sorted(names) == sorted(data.classes) and names != data.classes:
        raise PriorError(
            f"{place} has the classes in another order: {', '.join(names)}; data: {', '.join(data.classes)}"
        )
    height, width = classifier.image_size
    if height != width:
        raise PriorError(f"{place} was trained on pictures of {width} x {height}; explain needs square ones")
    loader = data.val_dataloader() if split == "val" else data.test_dataloader()
    images = loader.dataset
    assert isinstance(images, PriorDataset)
    source = data.source
    transform = PriorTransform(height, "none", source.part_names, source.keypoint_names)
    return PriorDataset(source, images.indices, transform, seed=data.seed)


@torch.inference_mode()
def measure(classifier: TrainedClassifier, images: PriorDataset, batch_size: int, num_workers: int = 0) -> Answers:
    """Asks a classifier about all images of a split; it sees the image alone.

    Args:
        classifier: The classifier.
        images: They have the size that it was trained on.
        batch_size: Images in one pass of the network.
        num_workers: Processes that load images.

    Returns:
        What it said, and where the evidence lay.
    """
    loader = DataLoader(images, batch_size, num_workers=num_workers)
    parts = [_answers(classifier, complete(cast(PriorBatch, batch))) for batch in _shown(loader, "images")]
    columns = zip(*parts, strict=True)
    return Answers(*(None if column[0] is None else torch.cat(cast(list[Tensor], column)) for column in columns))  # type: ignore[arg-type]


@torch.inference_mode()
def measure_backgrounds(
    classifier: TrainedClassifier, images: PriorDataset, masked: Tensor, batch_size: int, num_workers: int = 0
) -> BackgroundAnswers | None:
    """Asks a classifier about the images with a mask once more, with their backgrounds taken away and exchanged.

    Args:
        classifier: The classifier.
        images: As for `measure`.
        masked: (N,) bool, which of them have a mask.
        batch_size: Images in one pass of the network.
        num_workers: Processes that load images.

    Returns:
        What it said; None if fewer than two images have a mask.
    """
    places = masked.nonzero()[:, 0]
    if len(places) < 2:
        return None
    alone, exchanged = [], []
    loader = DataLoader(Exchanged(images, places.tolist()), batch_size, num_workers=num_workers)
    for each in _shown(loader, "exchanged backgrounds"):
        batch = cast(Exchange, each)
        alone.append(classifier(target_alone(batch).to(classifier.device))[0].float().cpu())
        exchanged.append(classifier(before_others(batch).to(classifier.device))[0].float().cpu())
    return BackgroundAnswers(places, torch.cat(alone), torch.cat(exchanged))


def _answers(classifier: TrainedClassifier, batch: PriorBatch) -> Answers:
    """What is said of a batch."""
    logits, cam = (values.float().cpu() for values in classifier(batch["image"].to(classifier.device)))
    label, none = batch["label"], torch.full((len(logits),), torch.nan)
    inside, pointed, covered = none, none, none
    if any(kind in batch for kind in KINDS):
        prior, valid = prior_map(batch, batch["image"].shape[2:])
        evidence = evidence_map(cam, label)
        inside = torch.where(valid, EnergyPointingGame().scores(evidence, prior), torch.nan)
        pointed = torch.where(valid, PointingGame().scores(evidence, prior), torch.nan)
        covered = torch.where(valid, prior.mean((1, 2)), torch.nan)
    masked = torch.zeros(len(logits), dtype=torch.bool)
    if "mask" in batch:
        masked = batch["mask_valid"].bool() & (batch["mask"].amax((1, 2)) > 0)
    return Answers(logits, label, batch.get("group"), inside, pointed, covered, masked)


def _shown(loader: Iterable[object], what: str) -> Iterator[object]:
    """The batches, with a bar on a terminal."""
    yield from tqdm(loader, desc=what, unit=" batches", disable=None)
