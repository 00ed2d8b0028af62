"""The panels of the dashboard, section by section, and the metrics that they show."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import wandb_workspaces.reports.v2 as wr

OUTCOME = ("test/worst_group_acc", "test/acc", "test/worst_class_acc", "test/auroc", "test/epg", "test/ece")
COST = ("seconds_per_step", "fit_seconds", "peak_memory_mib", "parameters")
CURVES = ("val/worst_group_acc", "val/acc", "val/epg", "val/loss", "train/loss")
LABELS = (
    "val/label_information",
    "val/label_surety",
    "val/label_entropy",
    "val/label_agreement",
    "val/label_cosine",
)
STEP = "trainer/global_step"

Panel: TypeAlias = Any  # wandb-workspaces has no public class of all panels


class Part(NamedTuple):
    """A section of the workspace and a chapter of the report."""

    text: str
    """How to read it."""
    panels: Sequence[Panel]


def parts(group: str) -> Mapping[str, Part]:
    """Makes all panels anew; a panel belongs to one view.

    Args:
        group: The comparison, or empty for all runs of a project.

    Returns:
        The parts by their titles.
    """
    by = variant(group)
    worst = wr.SummaryMetric("test/worst_group_acc")
    return {
        "Outcome by config": Part(
            "Test metrics of the selected checkpoint: mean and standard error over splits and seeds.",
            [_bars(metric, by) for metric in OUTCOME],
        ),
        "Worst group against evidence inside the prior": Part(
            "A dot is a run. Up is right for the rarest cases too, to the right is for the right reason; they can "
            "move apart.",
            [_full(wr.ScatterPlot(title="worst group x EPG", x=wr.SummaryMetric("test/epg"), y=worst), height=10)],
        ),
        "The same pictures": Part(
            "A column for each run, a row for each image: what the networks look at in the same test images. The "
            "table below has more of them; join it by index.",
            [
                _full(
                    wr.MediaBrowser(
                        title="test images", media_keys=["test/images"], grid_x_axis="run", grid_y_axis="index"
                    ),
                    height=14,
                ),
                _full(wr.MediaBrowser(title="panels", media_keys=["test/panel"], gallery_axis="run"), height=12),
                _full(wr.WeavePanelSummaryTable(table_name="test/predictions"), height=14),
            ],
        ),
        "Cost": Part(
            "Seconds of a training step and of the whole training, memory and parameters, and what they buy.",
            [
                *(_bars(metric, by) for metric in COST),
                wr.ScatterPlot(title="worst group x cost", x=wr.SummaryMetric("fit_seconds"), y=worst),
            ],
        ),
        "Generated labels": Part(
            "Of techniques that make their own auxiliary labels: how much the labels say (0 is nothing), how certain "
            "and how even they are, whether they stay when an image moves, and whether their gradient only repeats "
            "that of the class.",
            [
                *(_curve(metric) for metric in LABELS),
                _full(
                    wr.MediaBrowser(title="typical images", media_keys=["val/labels"], gallery_axis="step"), height=12
                ),
            ],
        ),
        "Training": Part("", [_curve(metric) for metric in CURVES]),
    }


def summary_panels() -> list[Panel]:
    """Makes the panels of the run that has a comparison's summary."""
    return [
        _full(wr.WeavePanelSummaryTable(table_name="summary"), height=16),
        _full(wr.MediaBrowser(title="comparison", media_keys=["comparison"]), height=16),
    ]


def variant(group: str) -> str:
    """Names the entry of the configuration by which runs are told apart.

    Args:
        group: The comparison, or empty for all runs of a project.

    >>> variant("demo"), variant("")
    ('variant', 'model.class_path')
    """
    return "variant" if group else "model.class_path"


def _bars(metric: str, by: str) -> wr.BarPlot:
    return wr.BarPlot(
        title=metric, metrics=[metric], groupby=wr.Config(by), groupby_aggfunc="mean", groupby_rangefunc="stderr"
    )


def _curve(metric: str) -> wr.LinePlot:
    return wr.LinePlot(title=metric, x=STEP, y=[metric])


def _full(panel: Panel, height: int) -> Panel:
    """A panel over the whole width, which is 24."""
    panel.layout = wr.Layout(w=24, h=height)
    return panel
