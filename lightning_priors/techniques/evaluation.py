"""The metrics by which all techniques are evaluated."""

from collections.abc import Mapping

from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassF1Score

from lightning_priors.errors import PriorError
from lightning_priors.metrics import (
    AUROC,
    AveragePrecision,
    CAMIoU,
    EnergyPointingGame,
    GroupAdjustedAccuracy,
    PointingGame,
    WorstClassAccuracy,
    WorstGroupAccuracy,
)

ADJUSTED = "group_adjusted_acc"
"""The metric that is logged only where it is known how many images of each group were trained on."""


def class_metrics(num_classes: int, stage: str, further: Mapping[str, Metric]) -> MetricCollection:
    """Makes the metrics of classification of a stage.

    Args:
        num_classes: Number of classes K.
        stage: ``val`` or ``test``, before each name.
        further: Metrics of the user's by name; each stage gets a copy.

    Raises:
        PriorError: If a name is taken, or a metric is for another number of classes.

    >>> sorted(class_metrics(2, "val", {}))  # doctest: +NORMALIZE_WHITESPACE
    ['val/acc', 'val/acc_macro', 'val/auroc', 'val/average_precision', 'val/ece', 'val/f1_macro',
    'val/group_adjusted_acc', 'val/worst_class_acc', 'val/worst_group_acc']
    """
    own: dict[str, Metric] = {
        "acc": MulticlassAccuracy(num_classes, average="micro"),
        "f1_macro": MulticlassF1Score(num_classes, average="macro"),
        "acc_macro": MulticlassAccuracy(num_classes, average="macro"),
        "worst_class_acc": WorstClassAccuracy(),
        "auroc": AUROC(),
        "average_precision": AveragePrecision(),
        "ece": MulticlassCalibrationError(num_classes),
        "worst_group_acc": WorstGroupAccuracy(),
        ADJUSTED: GroupAdjustedAccuracy(),
    }
    if taken := own.keys() & further.keys():
        raise PriorError(f"extra_metrics: there is a metric {min(taken)!r} already; give yours another name")
    for name, metric in further.items():
        if (given := getattr(metric, "num_classes", None)) not in (None, num_classes):
            raise PriorError(f"extra_metrics: {name} has num_classes {given}, but there are {num_classes} classes")
    copies = {name: metric.clone() for name, metric in further.items()}
    return MetricCollection({**own, **copies}, prefix=f"{stage}/", compute_groups=False)


def spatial_metrics(stage: str) -> MetricCollection:
    """Makes the metrics of where the evidence lies, for a stage.

    >>> sorted(spatial_metrics("test"))
    ['test/cam_iou', 'test/epg', 'test/pointing_game']
    """
    return MetricCollection(
        {"epg": EnergyPointingGame(), "pointing_game": PointingGame(), "cam_iou": CAMIoU()},
        prefix=f"{stage}/",
        compute_groups=False,
    )
