"""Metrics of torchmetrics' kind, correct under data-parallel training."""

from lightning_priors.metrics.groups import GroupAccuracy, WorstGroupAccuracy
from lightning_priors.metrics.labels import LabelUsage
from lightning_priors.metrics.spatial import CAMIoU, EnergyPointingGame, PointingGame
from lightning_priors.metrics.tasks import TaskAccuracy

__all__ = [
    "CAMIoU",
    "EnergyPointingGame",
    "GroupAccuracy",
    "LabelUsage",
    "PointingGame",
    "TaskAccuracy",
    "WorstGroupAccuracy",
]
