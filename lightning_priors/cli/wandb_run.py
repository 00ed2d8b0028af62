"""What a Weights & Biases run is called, which values it is judged by, and the classifier that it keeps."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import Logger, WandbLogger

from lightning_priors.cli.lightning import take_model_request
from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources.wrapper import innermost
from lightning_priors.techniques import PriorModule
from lightning_priors.trained.card import model_card
from lightning_priors.trained.checkpoint import read_checkpoint
from lightning_priors.trained.description import describe_classifier

if TYPE_CHECKING:
    from wandb import Run

STEP = "trainer/global_step"
"""What Lightning's logger counts by."""


def wandb_loggers(loggers: Iterable[Logger]) -> list[WandbLogger]:
    """Picks those of W&B.

    >>> wandb_loggers([])
    []
    """
    return [logger for logger in loggers if isinstance(logger, WandbLogger)]


def run_name(model: PriorModule, data: PriorDataModule, seed: object) -> str:
    """Names a run by technique, data and seed.

    Args:
        model: The technique.
        data: Whose source is named; of one that wraps others the innermost.
        seed: Left out if it is no number.

    >>> from lightning_priors.data.sources import DrawnSplit, Kakapo
    >>> from lightning_priors.techniques import Pretrained
    >>> run_name(Pretrained(), PriorDataModule(DrawnSplit(Kakapo())), 0)
    'Pretrained Kakapo seed 0'
    """
    return f"{type(model).__name__} {type(innermost(data.source)).__name__}" + (
        f" seed {seed}" if type(seed) is int else ""
    )


def run_tags(model: PriorModule) -> list[str]:
    """Lists the technique and its priors, each once.

    >>> from lightning_priors.techniques import CAMRestriction
    >>> run_tags(CAMRestriction(backbone="tiny"))
    ['CAMRestriction', 'Restriction']
    """
    return list(dict.fromkeys(type(part).__name__ for part in (model, *model.priors_in_use())))


def propose(loggers: Iterable[Logger], name: str, job_type: str, tags: Sequence[str]) -> None:
    """Says what the run of a W&B logger is called, unless the user has said it.

    It goes through W&B's variables of the environment, over which arguments of the logger win, and which stay as they
    are where they are set. `wandb_offline.session` restores them. A run that goes on under its ``id`` keeps what it
    has, and the runs of a sweep are named by W&B. What an offline run has yet to send is kept in the logger's folder,
    not in the user's home.

    Args:
        loggers: Those of the trainer; nothing is done without one of W&B.
        name: Of the run.
        job_type: Such as ``fit``.
        tags: Without commas.
    """
    new = [logger for logger in wandb_loggers(loggers) if logger.version is None]
    if not new:
        return
    if "WANDB_SWEEP_ID" not in os.environ:
        os.environ.setdefault("WANDB_NAME", name)
    os.environ.setdefault("WANDB_JOB_TYPE", job_type)
    os.environ.setdefault("WANDB_TAGS", ",".join(tags))
    if os.environ.get("WANDB_MODE") == "offline":
        os.environ.setdefault("WANDB_DATA_DIR", str(Path(new[0].save_dir or ".", "wandb").resolve()))


def directions(model: PriorModule, monitor: str | None, mode: str) -> dict[str, str]:
    """Says of each validation metric whether its greatest or its least value is the best.

    Args:
        model: The technique; metrics that do not say which is better are left out.
        monitor: The metric that selects the checkpoint.
        mode: Its direction.

    Returns:
        ``max`` or ``min`` by the name of the metric.

    >>> from lightning_priors.techniques import Pretrained
    >>> found = directions(Pretrained(), "train/loss", "min")
    >>> found["val/worst_group_acc"], found["val/ece"], found["val/epg"], found["train/loss"]
    ('max', 'min', 'max', 'min')
    """
    metrics = {**dict(model.metrics["val"].items()), **dict(model.spatial_metrics["val"].items())}  # type: ignore[operator]
    better = {name: metric.higher_is_better for name, metric in metrics.items()}
    known = {name: "max" if higher else "min" for name, higher in better.items() if higher is not None}
    return {"val/loss": "min"} | known | ({} if monitor is None else {monitor: mode})


def summarise_by_best(run: "Run", best: Mapping[str, str]) -> None:
    """Lets the summary of a W&B run have the best value of a metric, such as ``val/acc.max``, and not the last.

    Args:
        run: It logs by the trainer's step.
        best: ``max`` or ``min`` by the name of the metric.
    """
    for name, direction in best.items():
        run.define_metric(name, step_metric=STEP, summary=direction)


def asked_for_model(loggers: Iterable[Logger]) -> list[WandbLogger]:
    """Picks the W&B loggers with ``log_model=True``, and takes their work over.

    Lightning's logger would give W&B every checkpoint, also the last one that serves an interrupted run, and call
    each of them the best.

    Args:
        loggers: Those of the trainer.
    """
    return [logger for logger in wandb_loggers(loggers) if take_model_request(logger)]


def log_classifier(logger: WandbLogger, model: PriorModule, path: str, folder: Path, about: Mapping[str, Any]) -> None:
    """Gives W&B the selected checkpoint with its model card, as an artifact of the type ``model``.

    Args:
        logger: Whose run gets it.
        model: The technique that was trained.
        path: The checkpoint.
        folder: The run's; numbers in its JSON files go into the card.
        about: Plain values that the artifact has as metadata, such as what the checkpoint was selected by.
    """
    import wandb

    content = read_checkpoint(path)
    description = describe_classifier(model, content["facts"], content["metrics"])
    artifact = wandb.Artifact(f"model-{logger.experiment.id}", type="model", metadata=dict(about))
    artifact.add_file(path, name="best.ckpt")
    with artifact.new_file("README.md", encoding="utf-8") as file:
        file.write(str(model_card(description, type(model), folder)))
    logger.experiment.log_artifact(artifact, aliases=["best"])
