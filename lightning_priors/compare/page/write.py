"""Writes the report of a comparison in all its forms."""

import json
from collections.abc import Sequence
from pathlib import Path

from lightning_priors.compare.page.numbers import numbers
from lightning_priors.compare.page.page import needs_in_words, page
from lightning_priors.compare.page.pictures import compared_pictures
from lightning_priors.compare.plan import Plan
from lightning_priors.compare.report import Entry, markdown, summary_csv
from lightning_priors.compare.resolve import Task
from lightning_priors.compare.rows import Row
from lightning_priors.whole_files import write_text


def write_report(
    plan: Plan, title: str, command: str, tasks: Sequence[Task], rows: Sequence[Row], entries: Sequence[Entry]
) -> list[Path]:
    """Writes the summary as CSV, Markdown, JSON and a page.

    Args:
        plan: The comparison.
        title: Its name.
        command: The command line that makes it.
        tasks: All runs.
        rows: The finished ones, at least one.
        entries: From `lightning_priors.compare.report.summarise`.

    Returns:
        The files: the table of runs, and those that are written here, the page last. Each is written beside its place
        first, so that a kill leaves the old file or the new one.
    """
    output = Path(plan.output)
    found = numbers(plan, title, command, tasks, rows, entries)
    needed = {config["name"]: needs_in_words(config) for config in found["configs"]}
    files = {
        "summary.csv": summary_csv(entries),
        "summary.md": markdown(title, entries, plan.columns, needed),
        "report.json": json.dumps(found, indent=1, ensure_ascii=False),
        "report.html": page(found, compared_pictures(tasks, rows, output), label_sheets(rows)),
    }
    for name, content in files.items():
        write_text(output / name, content)
    return [output / "runs.csv", *(output / name for name in files)]


def label_sheets(rows: Sequence[Row]) -> dict[str, Path]:
    """Finds the last picture of generated labels of each config that has one, in its first run.

    Args:
        rows: The finished runs.
    """
    found: dict[str, Path] = {}
    for row in rows:
        sheets = sorted(Path(row.folder, "panels").glob("labels_*.png"))
        if sheets:
            found.setdefault(row.run, sheets[-1])
    return found
