"""The metrics by which all techniques are evaluated."""

from collections.abc import Mapping

from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassF1Score

from lightning_priors.errors import PriorError
from lightning_priors.metrics import CAMIoU, EnergyPointingGame, PointingGame, WorstGroupAccuracy


def class_metrics(num_classes: int, stage: str, further: Mapping[str, Metric]) -> MetricCollection:
    """Makes the metrics of classification of a stage.

    Args:
        num_classes: Number of classes K.
        stage: ``val`` or ``test``, before each name.
        further: Metrics of the user's by name; each stage gets a copy.

    Raises:
        PriorError: If a name is taken, or a metric is for another number of classes.

    >>> sorted(class_metrics(2, "val", {}))
    ['val/acc', 'val/ece', 'val/f1_macro', 'val/worst_group_acc']
    """
    own: dict[str, Metric] = {
        "acc": MulticlassAccuracy(num_classes, average="micro"),
        "f1_macro": MulticlassF1Score(num_classes, average="macro"),
        "ece": MulticlassCalibrationError(num_classes),
        "worst_group_acc": WorstGroupAccuracy(),
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
