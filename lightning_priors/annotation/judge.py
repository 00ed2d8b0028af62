"""How good an annotator is, where the truth is known."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor
from torchvision.ops import box_iou

from lightning_priors.annotation.annotate import Record
from lightning_priors.annotation.annotator import Annotation
from lightning_priors.metrics import PointingGame

UNSEEN, SHOWN = "unseen", "shown"


@dataclass
class Judge:
    """Compares what an annotator says with what is known, apart for pictures whose annotation the data hides and shows.

    An annotator that learns has seen the annotation of those that are shown; only the others tell how good it is.

    Args:
        part_names: The parts whose boxes the annotator gives; empty for one that gives masks.
        source_parts: The parts whose boxes the data has.
    """

    part_names: Sequence[str]
    source_parts: Sequence[str]
    rows: dict[str, list[tuple[float, float, float]]] = field(default_factory=lambda: {UNSEEN: [], SHOWN: []})

    def add(self, record: Record) -> None:
        """Adds a picture; nothing where the truth is not known or the annotator was not asked."""
        if record.found is None:
            return
        if self.part_names:
            self._add_boxes(record, record.found)
        elif record.truth.get("mask_valid", False):
            truth = record.truth["mask"].as_subclass(Tensor)[0]
            shown = SHOWN if record.known["mask_valid"] else UNSEEN
            self.rows[shown].append((*judge_mask(record.found.mask, truth), record.found.score))

    def report(self) -> dict[str, Any]:
        """Gives for the pictures of each kind that there are: how many, mean IoU, pointing, and how the score ranks.

        ``score_rank_correlation`` is Spearman's between score and IoU; None where one of them does not vary.
        """
        return {name: summary(rows) for name, rows in self.rows.items() if rows}

    def _add_boxes(self, record: Record, found: Annotation) -> None:
        for part, box in zip(self.part_names, found.boxes, strict=True):
            place = self.source_parts.index(part) if part in self.source_parts else None
            if place is not None and bool(record.truth["part_valid"][place]):
                truth = record.truth["part_boxes"].as_subclass(Tensor)[place]
                shown = SHOWN if bool(record.known["part_valid"][place]) else UNSEEN
                self.rows[shown].append((*judge_box(box, truth), found.score))


def judge_mask(found: Tensor | None, truth: Tensor) -> tuple[float, float]:
    """Compares a mask with the true one.

    Args:
        found: (H, W) in [0, 1], or None.
        truth: (H, W) in [0, 1].

    Returns:
        Intersection over union, both cut at 0.5; and the share of the found mask's greatest values that lie on the
        true one, which for a soft mask is whether its peak does. Both are 0 where nothing was found.

    >>> judge_mask(torch.tensor([[0.9, 0.6, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]]))
    (0.5, 1.0)
    """
    if found is None or not bool((found > 0).any()):
        return 0.0, 0.0
    inside, target = found >= 0.5, truth >= 0.5
    iou = (inside & target).sum() / (inside | target).sum().clamp(min=1)
    return iou.item(), PointingGame().scores(found[None], truth[None]).item()


def judge_box(found: Sequence[float] | None, truth: Tensor) -> tuple[float, float]:
    """Compares a box with the true one.

    Args:
        found: x0, y0, x1, y1, or None.
        truth: (4,) likewise.

    Returns:
        Intersection over union, and 1.0 where the centre of the found box lies in the true one. Both are 0 where
        nothing was found.

    >>> judge_box([0, 0, 2, 2], torch.tensor([0.0, 0.0, 4.0, 2.0]))
    (0.5, 1.0)
    """
    if found is None:
        return 0.0, 0.0
    box = torch.tensor(found, dtype=torch.float32)
    centre = (box[:2] + box[2:]) / 2
    inside = bool(((centre >= truth[:2]) & (centre <= truth[2:])).all())
    return box_iou(box[None], truth[None].float()).item(), float(inside)


def summary(rows: Sequence[tuple[float, float, float]]) -> dict[str, Any]:
    """Sums up pictures.

    Args:
        rows: IoU, pointing and score of each, at least one.

    >>> summary([(0.5, 1.0, 0.3), (1.0, 1.0, 0.9)])
    {'count': 2, 'iou': 0.75, 'pointing': 1.0, 'score_rank_correlation': 1.0}
    """
    iou, pointing, score = (list(column) for column in zip(*rows, strict=True))
    varies = len(set(iou)) > 1 and len(set(score)) > 1
    rank = round(float(spearmanr(iou, score).statistic), 4) if varies else None
    means = {"iou": round(fmean(iou), 4), "pointing": round(fmean(pointing), 4)}
    return {"count": len(rows), **means, "score_rank_correlation": rank}
