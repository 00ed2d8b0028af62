"""Whether the evidence lies on the target.

Evidence maps are interpolated bilinearly to the size of the masks, so that networks of different stride compare fairly.
Each metric is a mean over the images that have a mask; it is nan where there was none.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from lightning_priors.functional.cam import upsample
from lightning_priors.functional.guidance import energy_inside
from lightning_priors.functional.precision import at_least_float32


class SpatialMetric(Metric, ABC):
    """The mean over images of a score of an evidence map against a mask; subclasses write `scores`."""

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    @abstractmethod
    def scores(self, evidence: Tensor, mask: Tensor) -> Tensor:
        """Scores each image.

        Args:
            evidence: (B, h, w) float, positive where the picture speaks for the label.
            mask: (B, H, W) in [0, 1], at least float32.

        Returns:
            (B,) in [0, 1].
        """

    def update(self, evidence: Tensor, mask: Tensor, valid: Tensor) -> None:
        """Adds a batch.

        Args:
            evidence: (B, h, w) float, positive where the picture speaks for the label.
            mask: (B, H, W) in [0, 1].
            valid: (B,) bool, whether the image has a mask; images with an empty one are left out too.
        """
        mask = at_least_float32(mask)
        valid = valid & (mask > 0).any(2).any(1)
        scores = self.scores(at_least_float32(evidence), mask)
        self.total = self.total + torch.where(valid, scores, 0.0).sum()
        self.count = self.count + valid.sum()

    def compute(self) -> Tensor:
        """() the mean over the images that have a mask."""
        return self.total / self.count


class EnergyPointingGame(SpatialMetric):
    """The share of the positive evidence that lies inside the mask (Wang et al. 2020, "Score-CAM").

    An image without positive evidence scores 0.

    >>> game = EnergyPointingGame()
    >>> evidence, mask = torch.tensor([[[3.0, 1.0], [-2.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    >>> game.update(evidence, mask, valid=torch.tensor([True]))
    >>> game.compute()
    tensor(0.7500)
    """

    def scores(self, evidence: Tensor, mask: Tensor) -> Tensor:
        """See `energy_inside`."""
        return energy_inside(upsample(evidence, mask.shape[1:]), mask)


class PointingGame(SpatialMetric):
    """How often the greatest evidence lies inside the mask (Zhang et al. 2018, "Top-Down Neural Attention by ...").

    A bilinear map has its maximum at a cell's centre, so the mask is read at the centre of the cell of the greatest
    evidence, and counts when it is above 0.5; this is the point that interpolation to any size leads to. Cells that
    share the maximum share the point. No tolerance about the mask is given.

    >>> game = PointingGame()
    >>> evidence, mask = torch.tensor([[[3.0, 1.0], [-2.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    >>> game.update(evidence, mask, valid=torch.tensor([True]))
    >>> game.compute()
    tensor(1.)
    """

    def scores(self, evidence: Tensor, mask: Tensor) -> Tensor:
        """The share of the peaks inside the mask."""
        # without align_corners, interpolation to the grid's size samples the mask at the centres of the cells
        at_centres = F.interpolate(mask.unsqueeze(1), evidence.shape[1:], mode="bilinear").squeeze(1)
        peak = evidence == evidence.amax((1, 2), keepdim=True)
        return (peak & (at_centres > 0.5)).sum((1, 2)) / peak.sum((1, 2))


class CAMIoU(SpatialMetric):
    """Intersection over union of the strong evidence and the mask.

    Strong is what has at least `threshold` times the map's maximum (Zhou et al. 2016, section 3.2, cut at 0.2 to draw
    boxes; 0.5, the default, outlines the peak). The mask is cut at 0.5. An image without positive evidence scores 0.

    Args:
        threshold: Share of the maximum, above 0 and at most 1.

    Raises:
        ValueError: If the threshold is out of range.

    >>> iou = CAMIoU()
    >>> evidence, mask = torch.tensor([[[3.0, 1.0], [-2.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    >>> iou.update(evidence, mask, valid=torch.tensor([True]))
    >>> iou.compute()
    tensor(0.5000)
    """

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        if not 0 < threshold <= 1:
            raise ValueError(f"the threshold is a share of the map's maximum, above 0 and at most 1, not {threshold}")
        self.threshold = threshold

    def scores(self, evidence: Tensor, mask: Tensor) -> Tensor:
        """Intersection over union; 0 where neither has anything."""
        evidence = upsample(evidence, mask.shape[1:])
        strong = (evidence > 0) & (evidence >= self.threshold * evidence.amax((1, 2), keepdim=True))
        target = mask > 0.5
        return (strong & target).sum((1, 2)) / (strong | target).sum((1, 2)).clamp(min=1)
