"""Boxes by a detector of transformers that is told in words what to look for."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_priors.annotation.annotator import Annotation, Annotator, Box
from lightning_priors.annotation.transformers_models import load_model
from lightning_priors.errors import PriorError
from lightning_priors.trained.loading import best_device


class ZeroShotDetector(Annotator):
    """Gives the box that a zero-shot detector finds best for a prompt, with its score.

    Of transformers (extra ``annotate``): OWLv2, OWL-ViT, Grounding DINO, MM Grounding DINO.

    Args:
        model: Name on the Hugging Face Hub, or folder, such as ``google/owlv2-base-patch16-ensemble``.
        prompt: What to look for, such as "head of a bird".
        part: Name of the box in the data.
        threshold: Least score of a box that counts as found.

    Raises:
        PriorError: If transformers is not installed, or has no such model or no such detector.
    """

    def __init__(self, model: str, prompt: str, part: str = "box", threshold: float = 0.1) -> None:
        if not prompt.strip():
            raise PriorError("prompt is empty; say what to look for, such as 'head of a bird'")
        self.prompt, self.threshold = prompt.strip(), threshold
        self.part_names = [part]
        self.device = best_device()
        self.model, self.processor = load_model(model, "AutoModelForZeroShotObjectDetection", self.device)

    @torch.inference_mode()
    def annotate(self, images: list[Tensor]) -> list[Annotation]:
        """Finds the best box in each picture."""
        return [self._best(image) for image in images]

    def _best(self, image: Tensor) -> Annotation:
        # one picture a pass: their sizes differ, and padded pictures would be found slightly otherwise
        inputs = self.processor(images=[image], text=[[self.prompt]], return_tensors="pt").to(self.device)
        found = self.processor.post_process_grounded_object_detection(
            self.model(**inputs), threshold=self.threshold, target_sizes=[tuple(image.shape[1:])]
        )[0]
        return best_box(found, image.shape[1:])


def best_box(found: Any, size: Sequence[int]) -> Annotation:
    """Takes the box with the highest score, clipped to the picture.

    Args:
        found: With ``scores`` (N,) and ``boxes`` (N, 4) xyxy in pixels.
        size: Height and width of the picture.

    Returns:
        One box, or none with score 0.

    >>> found = {"scores": torch.tensor([0.2, 0.5]), "boxes": torch.tensor([[0.0, 0, 2, 2], [1.0, 1, 9, 4]])}
    >>> best_box(found, (6, 8)).boxes
    [[1.0, 1.0, 8.0, 4.0]]
    """
    height, width = size
    for number in found["scores"].argsort(descending=True).tolist():
        x0, y0, x1, y1 = found["boxes"][number].tolist()
        box: Box = [max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))]
        if box[0] < box[2] and box[1] < box[3]:
            return Annotation(found["scores"][number].item(), boxes=[box])
    return Annotation(0.0, boxes=[None])
