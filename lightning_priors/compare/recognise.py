"""Finished runs are found again after an update that did not touch them."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_priors.compare.resolve import Task, flat
from lightning_priors.compare.rows import Row
from lightning_priors.whole_files import write_text


def unchanged(
    before: Mapping[str, Any], given_before: Collection[str], now: Mapping[str, Any], given_now: Collection[str]
) -> bool:
    """Tells whether two configurations, perhaps of different versions, are of the same run.

    They are if they agree in every option that both versions have, and if nobody gave an option that only one has.

    Args:
        before: The resolved configuration of the finished run.
        given_before: Its options that were not at their defaults.
        now: The resolved configuration of the run that is asked for.
        given_now: Its options that are not at their defaults.

    >>> unchanged({"lr": 1}, [], {"lr": 1, "new": 0}, []), unchanged({"lr": 1}, [], {"lr": 1, "new": 5}, ["new"])
    (True, False)
    """
    old, new = flat(dict(before)), flat(dict(now))
    if any(old[name] != new[name] for name in old.keys() & new.keys()):
        return False
    return not ((old.keys() - new.keys()) & {*given_before} or (new.keys() - old.keys()) & {*given_now})


def recognised(rows: Iterable[Row], tasks: Sequence[Task]) -> list[Row]:
    """Gives finished runs the name that their configuration has now, where it means the same as before.

    Args:
        rows: Of the finished runs.
        tasks: All runs that are asked for.

    Returns:
        The rows in their order.
    """
    asked = {(task.run, task.split, task.seed): task for task in tasks}
    return [_renamed(row, asked.get((row.run, row.split, row.seed))) for row in rows]


def _renamed(row: Row, task: Task | None) -> Row:
    record = config_file(Path(row.folder))
    if task is None or row.digest == task.digest or not record.is_file():
        return row
    kept = json.loads(record.read_text(encoding="utf-8"))
    same = unchanged(kept["config"], kept["given"], task.config, task.given)
    return replace(row, digest=task.digest) if same else row


def config_file(folder: Path) -> Path:
    """Names the file beside a run's folder that keeps its resolved configuration."""
    return folder.with_name(f"{folder.name}.json")


def write_config(folder: Path, task: Task) -> None:
    """Keeps the resolved configuration of a run beside its folder, with the options that are not at their defaults."""
    kept = {"config": task.config, "given": task.given}
    write_text(config_file(folder), json.dumps(kept, indent=1, default=str))
