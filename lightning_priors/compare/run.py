"""The runs themselves: each through the ordinary Trainer, its row kept as soon as it is done."""

import gc
import logging
import math
import os
import re
import shutil
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from tqdm import tqdm

from lightning_priors.cli import PriorCLI, RunFolder
from lightning_priors.cli.interruption import plain_interruptions
from lightning_priors.cli.quiet import less_warnings
from lightning_priors.cli.wandb_offline import session
from lightning_priors.compare.details import background_columns, details_file, measure_details, write_details
from lightning_priors.compare.jobs import Ended, side_by_side
from lightning_priors.compare.measure import PeakMemory, StepTimer
from lightning_priors.compare.monitors import epoch_of, rival_checkpoints, scores_of_rivals
from lightning_priors.compare.progress import Progress
from lightning_priors.compare.recognise import recognised, write_config
from lightning_priors.compare.resolve import Task
from lightning_priors.compare.rows import Row, read_rows, with_row, write_rows
from lightning_priors.compare.tracking import announce, record, tracking_callbacks
from lightning_priors.errors import PriorError, Terminated


class PreparedFit(PriorCLI):
    """The command ``fit`` with everything built and nothing started.

    Args:
        arguments: The options of the command.
        folder: The run's folder.
        callbacks: Added to those of the configuration.
    """

    def __init__(self, arguments: Sequence[str], folder: Path, callbacks: Sequence[L.Callback]) -> None:
        self._folder, self._callbacks = folder, callbacks
        super().__init__(["fit", *arguments])

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Puts the run's folder before the loggers that the configuration asks for."""
        options = self.built("trainer")
        asked = [options.logger] if isinstance(options.logger, Logger) else options.logger
        own = RunFolder(self._folder.parent, name="", version=self._folder.name)
        options.logger = [own, *(asked if isinstance(asked, list) else [])]
        self.trainer_defaults["callbacks"] += self._callbacks
        return super().instantiate_trainer(enable_progress_bar=False, enable_model_summary=False, **kwargs)

    def start(self) -> None:
        """Leaves the start to the caller."""

    @property
    def checkpoints(self) -> ModelCheckpoint:
        """The callback that selects the checkpoint."""
        callback: ModelCheckpoint = self.built("checkpoint")
        return callback


class Follow(L.Callback):
    """Tells how much of the training is done, after every batch.

    Args:
        tell: Takes a share from 0 to 1.
    """

    def __init__(self, tell: Callable[[float], None]) -> None:
        self.tell = tell

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Counts in epochs or in steps, whichever ends the training first."""
        steps = trainer.global_step / trainer.max_steps
        epochs = trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches
        self.tell(min(1.0, max(steps, epochs / (trainer.max_epochs or -1))))


def compare(
    tasks: Sequence[Task],
    output: Path,
    monitors: Sequence[str] = (),
    jobs: int = 1,
    minutes: float = math.inf,
    only: Collection[str] | None = None,
) -> tuple[list[Row], dict[str, str]]:
    """Does the runs that are not finished yet; one that fails does not stop the others.

    Args:
        tasks: All runs.
        output: Folder of ``runs.csv`` and of the runs' folders.
        monitors: Other metrics whose choice of a checkpoint is tested too.
        jobs: How many runs go side by side, each in a process of its own; 1 does them in this one.
        minutes: After these no run is started.
        only: Names of the configs to run; None runs all.

    Returns:
        The rows of the finished runs, and the error line of each that failed.

    Raises:
        PriorError: If ``runs.csv`` cannot be read.
        KeyboardInterrupt: After Ctrl-C; the rows so far are kept.
        Terminated: After SIGTERM, likewise.
    """
    output.mkdir(parents=True, exist_ok=True)
    rows, failures = recognised(read_rows(output / "runs.csv"), tasks), {}
    finished = {row.key for row in rows}
    waiting = [task for task in tasks if task.key not in finished and (only is None or task.run in only)]
    done = sum(task.key in finished for task in tasks)
    progress = Progress([task.run for task in waiting], done + len(waiting), _durations(rows), jobs=jobs)
    progress.say(f"{len(tasks)} runs into {output}" + (f", {done} finished before" if rows else ""))
    until = time.monotonic() + 60 * minutes
    ended = side_by_side(waiting, partial(_attempt, output=output, monitors=monitors), jobs, until)
    try:
        for task, outcome, seconds in ended if jobs > 1 else _one_by_one(waiting, output, monitors, until, progress):
            if isinstance(outcome, Row):
                rows = with_row(rows, outcome)
                write_rows(output / "runs.csv", rows)
                progress.end(task, _outcome(outcome), seconds, finished=True)
            else:
                failures[task.name] = outcome
                progress.end(task, f"failed: {outcome}", seconds, finished=False)
    except (KeyboardInterrupt, Terminated):
        progress.interrupt()
        progress.say(f"the finished runs are kept in {output / 'runs.csv'}; the same command does the others")
        raise
    if progress.queue:
        progress.say(f"the time is up: {len(progress.queue)} runs are left; the same command does them")
    wanted = {task.key for task in tasks}
    return [row for row in rows if row.key in wanted], failures


def _one_by_one(
    tasks: Sequence[Task], output: Path, monitors: Sequence[str], until: float, progress: Progress
) -> Iterator[Ended]:
    """Does runs in this process, as long as there is time."""
    for task in tasks:
        if time.monotonic() >= until:
            return
        progress.start(task)
        start = time.perf_counter()
        yield Ended(task, _attempt(task, output, monitors, progress.update), time.perf_counter() - start)


def _attempt(
    task: Task, output: Path, monitors: Sequence[str], tell: Callable[[float], None] | None = None
) -> Row | str:
    """A run's row, or the line that names what went wrong."""
    try:
        return run(task, output, tell or (lambda fraction: None), monitors)
    except Exception as error:  # whatever it is, the other runs can still be done
        return error_line(error)


def run(task: Task, output: Path, tell: Callable[[float], None], monitors: Sequence[str] = ()) -> Row:
    """Trains, selects the checkpoint on the validation images and tests it once.

    Args:
        task: What to run.
        output: Folder of the comparison. What is left of an interrupted attempt at the same run is removed.
        tell: Is told the share of the training that is done.
        monitors: Other metrics whose choice of a checkpoint is tested too.

    Returns:
        The run's row.

    Raises:
        Exception: Whatever goes wrong; the traceback is at the end of the run's log.
        KeyboardInterrupt: After Ctrl-C, when Lightning has shut down.
        Terminated: After SIGTERM, likewise.
    """
    folder = output / task.run / f"split_{task.split}-seed_{task.seed}-{task.digest}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_config(folder, task)
    gc.collect()  # the run before may hold its data and, on a GPU, memory in cycles
    log = folder.with_suffix(".log")
    with logged_to(log), session(say=False), less_warnings(), plain_interruptions():
        try:
            values, checkpoint = _fit_and_test(task, folder, tell, monitors)
        except Exception:  # whatever it is, the caller keeps one line of it, so the log is where the rest can be read
            with log.open("a", encoding="utf-8") as file:
                traceback.print_exc(file=file)
            raise
    return Row(task.run, task.seed, values, str(folder), os.path.relpath(checkpoint), task.digest, task.split)


def with_details(rows: Sequence[Row], tasks: Sequence[Task], output: Path) -> list[Row]:
    """Measures the details of finished runs that have none, since an earlier version did not measure them.

    Args:
        rows: The finished runs.
        tasks: All runs.
        output: Folder of the comparison.

    Returns:
        The rows, those with new details with the columns about backgrounds.
    """
    asked = {task.key: task for task in tasks}
    complete = list(rows)
    lacking = [
        place
        for place, row in enumerate(rows)
        if row.key in asked and Path(row.checkpoint).is_file() and not details_file(row.folder).is_file()
    ]
    for place in tqdm(lacking, desc="runs of an earlier version: answers by group and background", disable=None):
        row = rows[place]
        with TemporaryDirectory() as folder, logged_to(output / "comparison.log"), less_warnings():
            prepared = PreparedFit(asked[row.key].arguments, Path(folder), [])
        prepared.datamodule.setup("test")
        details = measure_details(prepared.model, prepared.trainer, prepared.datamodule, row.checkpoint)
        write_details(row.folder, details)
        complete[place] = replace(row, values=row.values | background_columns(details))
        write_rows(output / "runs.csv", complete)
    return complete


def error_line(error: BaseException) -> str:
    r"""Writes the line that names what went wrong: the user's mistake where there is one among the causes.

    >>> error_line(KeyError("mask"))
    "KeyError: 'mask'"
    >>> error_line(PriorError("Caught PriorError in worker 0.\nTraceback ...\nerrors.PriorError: a.png is broken"))
    'a.png is broken'
    """
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    told = next((cause for cause in causes if isinstance(cause, PriorError)), error)
    lines = [line for line in str(told).splitlines() if line.strip()] or [""]
    if lines[0].startswith("Caught ") and len(lines) > 1:  # from a loader's process, with its traceback
        return re.sub(r"^[\w.]*PriorError: ", "", lines[-1])
    return lines[0] if isinstance(told, PriorError) else f"{type(told).__name__}: {lines[0]}"


def _fit_and_test(
    task: Task, folder: Path, tell: Callable[[float], None], monitors: Sequence[str]
) -> tuple[dict[str, float], str]:
    """The numbers of a run and the path of its selected checkpoint."""
    monitor = task.config["checkpoint"]["monitor"]
    timer, rivals = StepTimer(), rival_checkpoints([name for name in monitors if name != monitor])
    prepared = PreparedFit(task.arguments, folder, [timer, Follow(tell), *rivals.values(), *tracking_callbacks(task)])
    trainer, model, data = prepared.trainer, prepared.model, prepared.datamodule
    if trainer.world_size > 1:
        raise PriorError("a comparison runs on one device, so that its runs are alike; use --trainer.devices=1")
    announce(prepared, task)
    memory, start = PeakMemory(trainer.strategy.root_device), time.perf_counter()
    trainer.fit(model, datamodule=data)
    fit_seconds = time.perf_counter() - start
    selected = prepared.checkpoints
    if not selected.best_model_path or selected.best_model_score is None:
        raise PriorError(f"no checkpoint was selected: training ended before {monitor} was logged")
    chosen = {name: rival.best_model_path for name, rival in rivals.items()}  # a test restores the state of callbacks
    found = trainer.test(model, datamodule=data, ckpt_path=selected.best_model_path, verbose=False)[0]
    tested, epoch = {name: float(value) for name, value in found.items()}, epoch_of(selected.best_model_path)
    others = scores_of_rivals(trainer, model, data, {**chosen, monitor: selected.best_model_path}, {epoch: tested})
    for path in chosen.values():
        Path(path).unlink()
    details = measure_details(model, trainer, data, selected.best_model_path)
    write_details(folder, details)
    values = {
        monitor: float(selected.best_model_score),
        **tested,
        **others,
        **background_columns(details),
        "best_epoch": float(epoch),
        "parameters": float(sum(parameter.numel() for parameter in model.parameters())),
        "seconds_per_step": timer.median(),
        "fit_seconds": fit_seconds,
        "peak_memory_mib": memory.mebibytes(),
    }
    record(prepared, values, selected)
    return values, selected.best_model_path


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Sends what Lightning and the techniques report to a file; the terminal is for the comparison."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    file = logging.FileHandler(path, mode="w", encoding="utf-8")
    try:
        for logger in loggers:
            logger.handlers, logger.propagate = [file], False
        yield
    finally:
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
        file.close()


def _durations(rows: Sequence[Row]) -> dict[str, list[float]]:
    durations: dict[str, list[float]] = {}
    for row in rows:
        if seconds := row.values.get("fit_seconds"):
            durations.setdefault(row.run, []).append(seconds)
    return durations


def _outcome(row: Row) -> str:
    """What the checkpoint was selected by; the test figures wait for the summary."""
    name, value = next(iter(row.values.items()))
    return f"{name} {value:.3f} in epoch {row.values['best_epoch']:.0f}"
