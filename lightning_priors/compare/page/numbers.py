"""The numbers of the report: plain values that JSON can hold, from which the page is made."""

import math
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import yaml

from lightning_priors.compare.details import Details, read_details
from lightning_priors.compare.plan import Plan
from lightning_priors.compare.report import Entry, Outcome, monitor_grid, outcome, shown_columns
from lightning_priors.compare.resolve import Task
from lightning_priors.compare.rows import Row, read_metrics

Numbers = dict[str, Any]

PACKAGES = ("lightning-priors", "lightning", "torch", "torchvision", "torchmetrics", "timm", "numpy")


def numbers(
    plan: Plan, title: str, command: str, tasks: Sequence[Task], rows: Sequence[Row], entries: Sequence[Entry]
) -> Numbers:
    """Collects all that the page says.

    Args:
        plan: The comparison.
        title: Its name.
        command: The command line that makes it.
        tasks: All runs.
        rows: The finished ones, at least one.
        entries: From `lightning_priors.compare.report.summarise`.

    Returns:
        Plain values. The configs are in the order of their rank: by the mean of the first metric of the columns.
    """
    columns = shown_columns(entries, plan.columns)
    main = next((name for name in columns if name.startswith("test/")), columns[0] if columns else "")
    details = {row.key: found for row in rows if (found := read_details(row.folder)) is not None}
    known = next(iter(details.values()), None)
    configs = [_config(name, plan, tasks, rows, entries, details) for name in _ranked(plan, entries, main)]
    reference = next(iter(plan.runs))
    return {
        "title": title,
        "main": main,
        "columns": columns,
        "metrics": [name for name in columns if "/" in name],
        "reference": reference,
        "verdict": verdict(entries, main, reference),
        "splits": plan.splits,
        "seeds": list(plan.seeds),
        "asked": len(tasks),
        "finished": len(rows),
        "data": known and {"name": known["data"], "classes": known["classes"], "groups": known["groups"]},
        "test_images": known and known["test"]["images"],
        "configs": [{"rank": rank, **config} for rank, config in enumerate(configs, start=1)],
        "monitors": monitor_grid(entries, [name for name in columns if name.startswith("test/")]),
        "monitor": tasks[0].config["checkpoint"]["monitor"],
        "command": command,
        "written": date.today().isoformat(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "machine": machine(),
    }


def verdict(entries: Sequence[Entry], column: str, reference: str) -> list[str]:
    """Says in sentences which configs differ from the first one in a metric.

    Args:
        entries: From `lightning_priors.compare.report.summarise`.
        column: The metric.
        reference: Name of the first config.

    Returns:
        What the first one has, and a sentence for each kind of outcome that occurs.

    >>> from lightning_priors.compare.report import summarise
    >>> rows = [Row("plain", seed, {"test/acc": 0.5}) for seed in range(6)]
    >>> rows += [Row("told", seed, {"test/acc": 0.7 + seed / 100}) for seed in range(6)]
    >>> verdict(summarise(rows, ["plain", "told"]), "test/acc", "plain")
    ['In test/acc plain has 0.500.', 'Higher: told (+0.225).']
    """
    of_column = [entry for entry in entries if entry.column == column]
    known = next((entry.spread for entry in of_column if entry.run == reference), None)
    said = [
        f"In {column} {reference} has {known.mean:.3f}." if known and known.runs else f"{reference} is not finished."
    ]
    others = sorted((entry for entry in of_column if entry.run != reference), key=lambda entry: -_or_least(entry))
    for kind, words in SENTENCES.items():
        named = [f"{entry.run} ({entry.difference.mean:+.3f})" for entry in others if outcome(entry) == kind]
        if named:
            said.append(f"{words}: {', '.join(named)}.")
    return said


SENTENCES: dict[Outcome, str] = {
    "higher": "Higher",
    "lower": "Lower",
    "looks higher": "They look higher, but so few splits or seeds can show no difference",
    "looks lower": "They look lower, but so few splits or seeds can show no difference",
    "no difference": "No difference is shown",
    "no interval": "Too few splits or seeds for an interval",
}


def machine() -> dict[str, str]:
    """Describes the hardware that the report is written on, without its name.

    >>> sorted(machine())
    ['accelerator', 'cores', 'processor', 'system']
    """
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "accelerator": gpu,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _ranked(plan: Plan, entries: Sequence[Entry], main: str) -> list[str]:
    means = {entry.run: _or_least(entry) for entry in entries if entry.column == main}
    return sorted(plan.runs, key=lambda name: -means.get(name, -math.inf))


def _or_least(entry: Entry) -> float:
    return -math.inf if math.isnan(entry.spread.mean) else entry.spread.mean


def _config(
    name: str,
    plan: Plan,
    tasks: Sequence[Task],
    rows: Sequence[Row],
    entries: Sequence[Entry],
    details: Mapping[tuple[str, int, str], Details],
) -> Numbers:
    """What the page says of one config."""
    own = [row for row in rows if row.run == name]
    known = [details[row.key] for row in own if row.key in details]
    task = next(task for task in tasks if task.run == name)
    return {
        "name": name,
        "needs": known[0]["needs"] if known else [],
        "annotated_fraction": known[0]["annotated_fraction"] if known else 1.0,
        "values": {entry.column: _value(entry) for entry in entries if entry.run == name and "@" not in entry.column},
        "runs": [{"split": row.split, "seed": row.seed, "values": _plain(row.values)} for row in own],
        "curve": curve([read_metrics(Path(row.folder)) for row in own], task.config["checkpoint"]["monitor"]),
        "by_group": _mean_by_name([each["test"]["by_group"] or each["test"]["by_class"] for each in known]),
        "backgrounds": _backgrounds(known),
        "confusion": _summed([each["confusion"] for each in known]),
        "options": [*plan.runs[name].configs, *plan.runs[name].options],
        "configuration": yaml.safe_dump(task.config, sort_keys=False, allow_unicode=True),
    }


def _value(entry: Entry) -> Numbers:
    difference = entry.difference
    return {
        "runs": entry.spread.runs,
        **_plain({"mean": entry.spread.mean, "std": entry.spread.std}),
        "pairs": difference.pairs,
        **_plain({"difference": difference.mean, "low": difference.low, "high": difference.high, "p": entry.p}),
        "note": difference.note,
        "outcome": outcome(entry),
    }


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    """Without what JSON does not have, and without what another monitor would have selected."""
    return {name: value if math.isfinite(value) else None for name, value in values.items() if "@" not in name}


def curve(tables: Sequence[Sequence[Mapping[str, float]]], column: str) -> list[tuple[int, float]]:
    """Averages a metric over runs, epoch by epoch.

    Args:
        tables: For each run the lines of its ``metrics.csv``.
        column: The metric.

    Returns:
        The epochs in which a run has it, each with the mean over the runs that have it.

    >>> curve([[{"epoch": 0, "val/acc": 0.5}], [{"epoch": 0, "val/acc": 0.75}, {"epoch": 1}]], "val/acc")
    [(0, 0.625)]
    """
    found: dict[int, list[float]] = {}
    for lines in tables:
        for line in lines:
            if column in line:
                found.setdefault(int(line["epoch"]), []).append(line[column])
    return [(epoch, fmean(found[epoch])) for epoch in sorted(found)]


def _mean_by_name(of_runs: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """Accuracy of each group, or class, as a mean over the runs."""
    names = dict.fromkeys(each["name"] for groups in of_runs for each in groups)
    return {
        name: fmean(each["accuracy"] for groups in of_runs for each in groups if each["name"] == name) for name in names
    }


def _backgrounds(known: Sequence[Details]) -> dict[str, float] | None:
    """Accuracy with the own, no and another background, as a mean over the runs."""
    measured = [each["test"]["backgrounds"] for each in known if each["test"]["backgrounds"] is not None]
    kinds = ("original", "alone", "exchanged")
    return {kind: fmean(each[kind]["accuracy"] for each in measured) for kind in kinds} if measured else None


def _summed(tables: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Counts of answers, summed over the runs."""
    found: dict[tuple[str, str], list[int]] = {}
    for table in tables:
        for line in table:
            key = line["class"], line["group"]
            before = found.get(key, [0] * len(line["answers"]))
            found[key] = [one + other for one, other in zip(before, line["answers"], strict=True)]
    return [{"class": key[0], "group": key[1], "answers": answers} for key, answers in found.items()]
