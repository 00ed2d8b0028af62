"""The evidence of a trained classifier as a mask."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_priors.annotation.annotator import Annotation, Annotator
from lightning_priors.errors import PriorError
from lightning_priors.functional.cam import upsample
from lightning_priors.trained import load


class Evidence(Annotator):
    """Gives as mask where a trained classifier has strong evidence for the class that it names.

    Cheap, and no better than the classifier looks: one that decides by the background marks the background. Judge it
    with ``--judge`` where some masks are known. The score is the probability of the class, which tells whether the
    classifier is sure, not whether the mask is right.

    Args:
        checkpoint: Run folder or checkpoint of any technique.
        share: The mask is where the evidence, interpolated to the picture, has at least this share of its maximum
            (Zhou et al. 2016, section 3.2, cut at 0.2).

    Raises:
        PriorError: If there is no such checkpoint, or the share is out of range.

    >>> Evidence("no/such/run")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: there is no run or checkpoint no/such/run
    """

    def __init__(self, checkpoint: str, share: float = 0.2) -> None:
        if not 0 < share <= 1:
            raise PriorError(f"share is above 0 and at most 1, not {share}")
        self.classifier = load(checkpoint)
        self.share = share

    def annotate(self, images: list[Tensor]) -> list[Annotation]:
        """Cuts the evidence of each picture at a share of its maximum."""
        annotations = []
        for image, said in zip(images, self.classifier.predict(images, batch_size=len(images)), strict=True):
            mask = strong_evidence(torch.from_numpy(said.evidence), image.shape[1:], self.share)
            annotations.append(Annotation(said.probabilities[said.label], mask))
        return annotations


def strong_evidence(evidence: Tensor, size: Sequence[int], share: float) -> Tensor:
    """Cuts a map at a share of its maximum.

    Args:
        evidence: (h, w), positive where the picture speaks for a class.
        size: Height H and width W of the picture.
        share: Of the maximum of the interpolated map.

    Returns:
        (H, W) bool; all false where no evidence is positive.

    >>> strong_evidence(torch.tensor([[1.0, -1.0]]), (1, 4), 0.5)
    tensor([[ True,  True, False, False]])
    """
    wide = upsample(evidence[None], size)[0]
    return (wide > 0) & (wide >= share * wide.max())
