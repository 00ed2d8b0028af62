"""The summary of the runs: a list of entries, and its forms as CSV, Markdown and text."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from lightning_priors.compare.rows import Row
from lightning_priors.compare.statistics import CONFIDENCE, Difference, Spread, paired_difference, spread
from lightning_priors.errors import nearest

SECONDS, RELATIVE = "seconds_per_step", "relative_seconds_per_step"

Grid = list[list[str]]
"""The cells of a table, the header first."""


class Entry(NamedTuple):
    """One number of one config, over its seeds."""

    run: str
    column: str
    spread: Spread
    difference: Difference
    """To the first config, seed by seed."""


def summarise(rows: Iterable[Row], runs: Sequence[str]) -> list[Entry]:
    """Computes mean, spread and paired difference to the first config, for every config and column.

    Besides the columns of the rows there is ``relative_seconds_per_step``: a run's seconds per step over those of the
    first config's run with the same seed.

    Args:
        rows: The finished runs, in any order.
        runs: The names of the configs, the reference first. Rows of others are left out.

    Returns:
        The entries by config, then column. What a seed lacks is left out of its column.

    >>> rows = [Row("plain", 0, {"test/acc": 0.5}), Row("told", 0, {"test/acc": 0.75})]
    >>> [(entry.run, entry.spread.mean, entry.difference.mean) for entry in summarise(rows, ["plain", "told"])]
    [('plain', 0.5, 0.0), ('told', 0.75, 0.25)]
    """
    rows = _with_relative_seconds([row for row in rows if row.run in runs], runs[0])
    table = {(row.run, row.seed): row.values for row in rows}
    seeds = sorted({row.seed for row in rows})
    columns = list(dict.fromkeys(name for row in rows for name in row.values))

    def over_seeds(run: str, column: str) -> list[float]:
        return [table.get((run, seed), {}).get(column, math.nan) for seed in seeds]

    return [
        Entry(
            run,
            column,
            spread(over_seeds(run, column)),
            paired_difference(over_seeds(run, column), over_seeds(runs[0], column)),
        )
        for run in runs
        for column in columns
    ]


def summary_csv(entries: Iterable[Entry]) -> str:
    """Writes the summary as CSV, one line for each config and column, at full precision; empty without a number.

    >>> print(summary_csv(summarise([Row("plain", 0, {"test/acc": 0.5})], ["plain"])).splitlines()[1])
    plain,test/acc,1,0.5,,1,0.0,,,1 pair: no interval
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "column", "seeds", "mean", "std", "pairs", "difference", "low", "high", "note"])
    for run, column, values, difference in entries:
        writer.writerow([run, column, *map(_cell, values), *map(_cell, difference)])
    return text.getvalue()


def value_grid(entries: Sequence[Entry], columns: Sequence[str]) -> Grid:
    """Lays out a line for each config: how many seeds it has, then mean ± standard deviation of each column.

    Args:
        entries: From `summarise`.
        columns: The columns to show, in this order; those that no run has are left out.

    Returns:
        The cells, the header first.

    >>> rows = [Row("plain", 0, {"test/acc": 0.5}), Row("plain", 1, {"test/acc": 0.7})]
    >>> value_grid(summarise(rows, ["plain"]), ["test/acc"])
    [['run', 'seeds', 'test/acc'], ['plain', '2', '0.600 ± 0.141']]
    """
    found, runs, shown = _arranged(entries, columns)
    grid = [["run", "seeds", *shown]]
    for run in runs:
        seeds = max(entry.spread.seeds for entry in entries if entry.run == run)
        grid.append([run, str(seeds), *(_spread_text(found[run, column]) for column in shown)])
    return grid


def difference_grid(entries: Sequence[Entry], columns: Sequence[str]) -> tuple[Grid, list[str]]:
    """Lays out a line for each config but the first: the difference to the first, with its interval.

    Args:
        entries: From `summarise`.
        columns: The columns to show, in this order; those that no run has are left out.

    Returns:
        The cells, the header first, and the notes that say why an interval is missing, with the marks of their cells.

    >>> rows = [Row("plain", 0, {"test/acc": 0.5}), Row("told", 0, {"test/acc": 0.75})]
    >>> difference_grid(summarise(rows, ["plain", "told"]), ["test/acc"])
    ([['minus plain', 'test/acc'], ['told', '+0.250 *']], ['* 1 pair: no interval'])
    """
    found, runs, shown = _arranged(entries, columns)
    grid, marks = [[f"minus {runs[0]}", *shown]], {"": ""}
    for run in runs[1:]:
        cells = [run]
        for column in shown:
            note = found[run, column].difference.note
            marks.setdefault(note, "*" * len(marks))
            cells.append(f"{_difference_text(found[run, column])} {marks[note]}".rstrip())
        grid.append(cells)
    return grid, [f"{mark} {note}" for note, mark in marks.items() if note]


def markdown(title: str, entries: Sequence[Entry], columns: Sequence[str]) -> str:
    """Writes the summary as a Markdown page.

    Args:
        title: Its heading.
        entries: From `summarise`, at least one.
        columns: The columns to show.

    Returns:
        Two tables and how to read them.
    """
    differences, notes = difference_grid(entries, columns)
    parts = [f"# {title}", _markdown_table(value_grid(entries, columns)), "Mean ± standard deviation over the seeds."]
    if len(differences) > 1:
        parts += [_markdown_table(differences), HOW_TO_READ, *(note.replace("*", "\\*") for note in notes)]
    return "\n\n".join([*parts, *unknown_columns(entries, columns)]) + "\n"


def text(entries: Sequence[Entry], columns: Sequence[str]) -> str:
    """Writes the summary for the terminal: the same tables, aligned.

    >>> print(text(summarise([Row("plain", 0, {"test/acc": 0.5})], ["plain"]), ["test/acc"]))
    run    seeds  test/acc
    plain  1      0.500
    """
    differences, notes = difference_grid(entries, columns)
    parts = [_aligned(value_grid(entries, columns))]
    if len(differences) > 1:
        parts.append("\n".join([_aligned(differences), *notes]))
    return "\n\n".join([*parts, *unknown_columns(entries, columns)])


def unknown_columns(entries: Sequence[Entry], columns: Sequence[str]) -> list[str]:
    """Names each column that is asked for and that no run has, one line each."""
    known = list(dict.fromkeys(entry.column for entry in entries))
    return [f"no run has {column!r}; {nearest(column, known)}" for column in columns if column not in known]


HOW_TO_READ = (
    f"Differences seed by seed, with their {CONFIDENCE:.0%} percentile bootstrap interval over the seeds. The interval "
    "from n seeds lies within the range of the n differences, and that range covers their median in 1 - 2^(1-n) of all "
    "comparisons: 75% for three seeds, 94% for five."
)


def _with_relative_seconds(rows: list[Row], reference: str) -> list[Row]:
    base = {row.seed: row.values.get(SECONDS, math.nan) for row in rows if row.run == reference}
    ratios = [row.values.get(SECONDS, math.nan) / base.get(row.seed, math.nan) for row in rows]
    return [
        replace(row, values=row.values | ({RELATIVE: ratio} if SECONDS in row.values else {}))
        for row, ratio in zip(rows, ratios, strict=True)
    ]


def _arranged(
    entries: Sequence[Entry], columns: Sequence[str]
) -> tuple[dict[tuple[str, str], Entry], list[str], list[str]]:
    """The entries by config and column, the configs, and those of the columns that there are."""
    found = {(entry.run, entry.column): entry for entry in entries}
    known = {entry.column for entry in entries}
    return found, list(dict.fromkeys(entry.run for entry in entries)), [name for name in columns if name in known]


def _decimals(entry: Entry) -> int:
    """Three for metrics; three significant digits for times and sizes."""
    if "/" in entry.column or not entry.spread.mean or math.isnan(entry.spread.mean):
        return 3
    return max(0, 2 - math.floor(math.log10(abs(entry.spread.mean))))


def _spread_text(entry: Entry) -> str:
    decimals, (_, mean, std) = _decimals(entry), entry.spread
    if math.isnan(mean):
        return "-"
    return f"{mean:.{decimals}f}" + ("" if math.isnan(std) else f" ± {std:.{decimals}f}")


def _difference_text(entry: Entry) -> str:
    decimals, difference = _decimals(entry), entry.difference
    if math.isnan(difference.mean):
        return "-"
    interval = f" [{difference.low:+.{decimals}f}, {difference.high:+.{decimals}f}]"
    return f"{difference.mean:+.{decimals}f}" + ("" if difference.note else interval)


def _aligned(grid: Grid) -> str:
    widths = [max(map(len, cells)) for cells in zip(*grid, strict=True)]
    lines = ("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)) for line in grid)
    return "\n".join(line.rstrip() for line in lines)


def _markdown_table(grid: Grid) -> str:
    header, *lines = grid
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("*", "\\*") for cell in row) + " |" for row in rows
    )


def _cell(value: object) -> object:
    return "" if isinstance(value, float) and math.isnan(value) else value
