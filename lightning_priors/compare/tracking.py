"""A comparison in Weights & Biases: its runs in one group, and a run with the summary."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_priors.callbacks import PredictionTable
from lightning_priors.cli import PriorCLI
from lightning_priors.cli.wandb_offline import go_offline_if_needed, session
from lightning_priors.cli.wandb_run import propose, run_tags, wandb_loggers
from lightning_priors.compare.report import Entry
from lightning_priors.compare.resolve import Task
from lightning_priors.compare.rows import Row

VARIABLES = ("WANDB_RUN_GROUP", "WANDB_MODE", "WANDB_SILENT")
"""Of the environment; the processes of runs that go side by side inherit them."""


@contextmanager
def grouped(title: str) -> Iterator[None]:
    """Puts the W&B runs that are started within into a group, unless the user has named one.

    Args:
        title: Of the comparison.

    >>> with grouped("demo"):
    ...     os.environ["WANDB_RUN_GROUP"]
    'demo'
    >>> "WANDB_RUN_GROUP" in os.environ
    False
    """
    before = {name: os.environ.get(name) for name in VARIABLES}
    os.environ.setdefault("WANDB_RUN_GROUP", title)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def settle_mode(tasks: Sequence[Task]) -> None:
    """Takes W&B offline for all runs, if one is logged there and it cannot be reached, and says so once."""
    if any(wandb_options(task) is not None for task in tasks):
        go_offline_if_needed()


def tracking_callbacks(task: Task) -> list[Callback]:
    """Makes what a run under W&B has besides: the table of its predictions.

    Args:
        task: The run.
    """
    return [PredictionTable()] if wandb_options(task) is not None else []


def announce(fit: PriorCLI, task: Task) -> None:
    """Says what a W&B run is called and which of the compared configs it is, before it starts.

    Args:
        fit: Everything built and nothing started.
        task: The run.
    """
    fit.before_fit()
    propose(fit.trainer.loggers, f"{task.run}/{task.split}/{task.seed}", "compare", run_tags(fit.model))
    for logger in wandb_loggers(fit.trainer.loggers):
        logger.log_hyperparams({"variant": task.run, "split": task.split})


def record(fit: PriorCLI, values: Mapping[str, float], selected: ModelCheckpoint) -> None:
    """Adds to a W&B run what it has cost, and the classifier if it is to be kept.

    Args:
        fit: It has been trained and tested.
        values: The numbers of its row. The metrics are in the W&B run already.
        selected: The callback that has selected the checkpoint.
    """
    costs = {name: value for name, value in values.items() if "/" not in name and not math.isnan(value)}
    for logger in wandb_loggers(fit.trainer.loggers):
        logger.experiment.summary.update(costs)
    fit.keep_classifier(selected)


def wandb_options(task: Task) -> dict[str, Any] | None:
    """Finds the arguments of the W&B logger that a run is configured with; None without one.

    Args:
        task: The run.

    >>> wandb_options(Task("plain", 0, [], "", {"trainer": {"logger": {"class_path": "a.WandbLogger"}}}))
    {}
    >>> wandb_options(Task("plain", 0, [], "", {"trainer": {"logger": None}})) is None
    True
    """
    asked = task.config["trainer"]["logger"]
    for logger in asked if isinstance(asked, list) else [asked]:
        if isinstance(logger, dict) and logger["class_path"].rpartition(".")[2] == "WandbLogger":
            return (logger.get("init_args") or {}) | (logger.get("dict_kwargs") or {})
    return None


def record_summary(
    title: str, tasks: Sequence[Task], rows: Sequence[Row], entries: Sequence[Entry], output: Path
) -> None:
    """Gives W&B a run of the type ``summary`` with the tables of a comparison, if runs of it are logged there.

    Args:
        title: Of the comparison.
        tasks: All runs.
        rows: Of the finished ones.
        entries: The summary.
        output: Folder of the comparison; its picture is logged if it is there.
    """
    options = next((found for task in tasks if (found := wandb_options(task)) is not None), None)
    if options is None:
        return
    import wandb

    folder = Path(options.get("save_dir") or options.get("dir") or ".")
    with session(say=False):
        os.environ.setdefault("WANDB_DATA_DIR", str((folder / "wandb").resolve()))
        run = wandb.init(
            project=options.get("project") or os.environ.get("WANDB_PROJECT", "lightning_logs"),
            entity=options.get("entity"),
            group=options.get("group"),
            mode=options.get("mode") or ("offline" if options.get("offline") else None),
            dir=folder,
            job_type="summary",
            name=f"{title} summary",
        )
        run.log({"summary": _summary_table(entries), "runs": _runs_table(rows)})
        picture = output / "comparison.png"
        if picture.is_file():
            run.log({"comparison": wandb.Image(str(picture))})
        if run.offline:
            print(f"W&B: the runs are logged offline; send them with: wandb sync {folder / 'wandb' / 'offline-run-*'}")


def _summary_table(entries: Sequence[Entry]) -> Any:
    import wandb

    columns: list[str | int] = [
        "run",
        "column",
        "runs",
        "mean",
        "std",
        "difference",
        "low",
        "high",
        "note",
        "p",
        "corrected_p",
    ]
    cells = [
        [run, column, *spread, difference.mean, difference.low, difference.high, difference.note, difference.p, p]
        for run, column, spread, difference, p in entries
    ]
    return wandb.Table(columns=columns, data=[[_cell(cell) for cell in row] for row in cells])


def _runs_table(rows: Sequence[Row]) -> Any:
    import wandb

    columns = list(dict.fromkeys(name for row in rows for name in row.values))
    cells = [[row.run, row.split, row.seed, *(_cell(row.values.get(name)) for name in columns)] for row in rows]
    return wandb.Table(columns=["run", "split", "seed", *columns], data=cells)


def _cell(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value
