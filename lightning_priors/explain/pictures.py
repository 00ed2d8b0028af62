"""Pictures for the page: a photograph with the outline of its prior, and the evidence over it, as data URIs."""

import base64
import io
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from lightning_priors.batch import PriorBatch, complete
from lightning_priors.callbacks.drawing import Evidence, Pixels, inside_share, overlay, pictures, shown_map
from lightning_priors.data.datamodule import PriorDataset
from lightning_priors.data.transforms import PriorTransform
from lightning_priors.functional.prior_maps import KINDS, prior_map
from lightning_priors.trained import TrainedClassifier

SIDE = 288
"""Pixels: the longer side of a picture on the page."""
YELLOW, DARK = (255, 225, 77), (40, 40, 40)
QUALITY = 78


class Shown(NamedTuple):
    """An image, and what one or two classifiers said of it."""

    place: int
    """Among the images of the split."""
    picture: str
    """A data URI."""
    evidence: list[str]
    """A data URI for each classifier."""
    inside: list[float | None]
    """For each classifier the share of the evidence for the true class inside the prior."""


@torch.inference_mode()
def shown(place: int, classifiers: list[tuple[TrainedClassifier, PriorDataset]]) -> Shown:
    """Draws an image.

    Args:
        place: Among the images of the split.
        classifiers: Each with the images in the size that it was trained on.

    Returns:
        The picture and what each classifier looked at, in the picture's own proportions.
    """
    images = classifiers[0][1]
    source, index = images.source, images.indices[place]
    raw = source.load(index)
    size = _fitting(raw["image"].shape[1], raw["image"].shape[2])
    batch = _batch(PriorTransform(SIDE, "none", source.part_names, source.keypoint_names)(raw, index))
    outline = _outline(batch)
    pixels = pictures(batch["image"])[0]
    drawn, inside = [], []
    for classifier, own in classifiers:
        seen = _batch(own[place])
        logits, cam = (values.float().cpu() for values in classifier(seen["image"].to(classifier.device)))
        evidence = Evidence(logits, cam, {})
        drawn.append(data_uri(_outlined(overlay(pixels, shown_map(evidence)[0][0]), outline), size))
        inside += inside_share(seen, evidence)
    return Shown(place, data_uri(_outlined(pixels, outline), size), drawn, inside)


def data_uri(pixels: Pixels, size: tuple[int, int]) -> str:
    """Writes a picture as the address that a page can hold it under.

    Args:
        pixels: (H, W, 3) uint8.
        size: Width and height on the page.

    >>> data_uri(torch.zeros(4, 4, 3, dtype=torch.uint8).numpy(), (8, 4))[:23]
    'data:image/webp;base64,'
    """
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS).save(file, "WEBP", quality=QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _batch(sample: object) -> PriorBatch:
    batch: PriorBatch = default_collate([sample])
    return complete(batch)


def _fitting(height: int, width: int) -> tuple[int, int]:
    """Width and height of a picture whose longer side is `SIDE`."""
    scale = SIDE / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _outline(batch: PriorBatch) -> Tensor | None:
    """(2, S, S) bool, the border of the prior and a thin one about it; None for an image without a prior."""
    if not any(kind in batch for kind in KINDS):
        return None
    target = (prior_map(batch, (SIDE, SIDE))[0] > 0.5).float()
    wide, wider = (F.max_pool2d(target, side, stride=1, padding=side // 2)[0] > 0 for side in (5, 9))
    border = wide & (target[0] == 0)
    return torch.stack([border, wider & ~wide])


def _outlined(pixels: Pixels, outline: Tensor | None) -> Pixels:
    if outline is None:
        return pixels
    result = pixels.copy()
    for border, colour in zip(outline.numpy(), (YELLOW, DARK), strict=True):
        result[border] = colour
    return result
