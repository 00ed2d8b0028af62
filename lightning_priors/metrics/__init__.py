"""Metrics of torchmetrics' kind, correct under data-parallel training."""

from lightning_priors.metrics.groups import (
    GroupAccuracy,
    GroupAdjustedAccuracy,
    WorstClassAccuracy,
    WorstGroupAccuracy,
)
from lightning_priors.metrics.labels import LabelUsage
from lightning_priors.metrics.overlap import LabelOverlap
from lightning_priors.metrics.ranking import AUROC, AveragePrecision
from lightning_priors.metrics.spatial import CAMIoU, EnergyPointingGame, PointingGame
from lightning_priors.metrics.tasks import TaskAccuracy
from lightning_priors.metrics.typical import Typical, TypicalImages

__all__ = [
    "AUROC",
    "AveragePrecision",
    "CAMIoU",
    "EnergyPointingGame",
    "GroupAccuracy",
    "GroupAdjustedAccuracy",
    "LabelOverlap",
    "LabelUsage",
    "PointingGame",
    "TaskAccuracy",
    "Typical",
    "TypicalImages",
    "WorstClassAccuracy",
    "WorstGroupAccuracy",
]
