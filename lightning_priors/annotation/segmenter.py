"""Masks by a segmenter of transformers that is prompted by boxes."""

import torch
from torch import Tensor

from lightning_priors.annotation.annotator import Annotation, Annotator, Box
from lightning_priors.annotation.transformers_models import load_model
from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import RawSample
from lightning_priors.errors import PriorError, nearest
from lightning_priors.trained.loading import best_device


class PromptedSegmenter(Annotator):
    """Gives the mask that a promptable segmenter draws in a box, of a detector or of the data.

    Of transformers (extra ``annotate``): SAM, SAM 2, SAM-HQ. The score is the intersection over union that the model
    predicts for its mask, times the detector's score where there is one.

    Args:
        model: Name on the Hugging Face Hub, or folder, such as ``facebook/sam2.1-hiera-tiny``.
        detector: Annotator that gives the box; None takes that of the data, and pictures without one get no mask.
        part: Which box; None takes the only one.

    Raises:
        PriorError: If transformers is not installed or has no such model; if there is no such box.
    """

    def __init__(self, model: str, detector: Annotator | None = None, part: str | None = None) -> None:
        self.detector = detector
        self.part = part
        self.place = None if detector is None else place_of(part, list(detector.part_names), "the detector")
        self.device = best_device()
        self.model, self.processor = load_model(model, "AutoModelForMaskGeneration", self.device)

    def learn(self, data: PriorDataModule) -> None:
        """Lets the detector learn, and looks for the box of the data."""
        if self.detector is not None:
            self.detector.learn(data)
        else:
            self.place = place_of(self.part, data.source.part_names, type(data.source).__name__)

    def annotate(self, images: list[Tensor]) -> list[Annotation]:
        """Asks the detector for the box of each picture, and draws the mask in it."""
        if self.detector is None:
            raise RuntimeError("pictures alone have no boxes: give a detector, or call annotate_samples()")
        found = self.detector.annotate(images)
        boxes = [each.boxes[self.place or 0] for each in found]
        drawn = [self._drawn(image, box) for image, box in zip(images, boxes, strict=True)]
        return [Annotation(mask.score * box.score, mask.mask) for mask, box in zip(drawn, found, strict=True)]

    def annotate_samples(self, samples: list[RawSample]) -> list[Annotation]:
        """Draws the mask in the box of the detector or, without one, of the data."""
        if self.detector is not None:
            return super().annotate_samples(samples)
        return [self._drawn(sample["image"].as_subclass(Tensor), self._box_of(sample)) for sample in samples]

    def _box_of(self, sample: RawSample) -> Box | None:
        place = self.place or 0
        known = "part_boxes" in sample and bool(sample["part_valid"][place])
        return sample["part_boxes"].as_subclass(Tensor)[place].tolist() if known else None

    @torch.inference_mode()
    def _drawn(self, image: Tensor, box: Box | None) -> Annotation:
        if box is None:
            return Annotation(0.0)
        inputs = self.processor(images=image, input_boxes=[[list(box)]], return_tensors="pt").to(self.device)
        sizes = [inputs[name] for name in ("original_sizes", "reshaped_input_sizes") if name in inputs]
        given = {name: inputs[name] for name in ("pixel_values", "input_boxes")}
        output = self.model(**given, multimask_output=False)
        masks = self.processor.post_process_masks(output.pred_masks.cpu(), *(size.tolist() for size in sizes))
        return Annotation(output.iou_scores.flatten()[0].clamp(0, 1).item(), masks[0][0, 0])


def place_of(part: str | None, names: list[str], where: str) -> int:
    """Finds the box that is meant among those that there are.

    Args:
        part: Its name, or None for the only one.
        names: The boxes that there are.
        where: Who has them, for the message.

    Raises:
        PriorError: If there is no such box, or none is named and there is not just one.

    >>> place_of("head", ["wing", "head"], "Table"), place_of(None, ["head"], "Table")
    (1, 0)
    """
    if not names:
        raise PriorError(f"{where} has no boxes to segment in")
    if part is None and len(names) > 1:
        raise PriorError(f"part is missing: {where} has the boxes {', '.join(names)}")
    if part is not None and part not in names:
        raise PriorError(f"{where} has no box {part!r}; {nearest(part, names)}")
    return 0 if part is None else names.index(part)
