"""The summary of the runs: a list of entries, and its forms as CSV, Markdown and text."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Literal, NamedTuple

from lightning_priors.compare.rows import AT, Row
from lightning_priors.errors import nearest
from lightning_priors.names import in_markdown
from lightning_priors.statistics import CONFIDENCE, LEVEL, Difference, Spread, holm, paired_difference, spread

SECONDS, RELATIVE = "seconds_per_step", "relative_seconds_per_step"

Grid = list[list[str]]
"""The cells of a table, the header first."""


class Entry(NamedTuple):
    """One number of one config, over its splits and seeds."""

    run: str
    column: str
    spread: Spread
    difference: Difference
    """To the first config, split by split and seed by seed."""
    p: float
    """Of that difference, corrected for the number of configs that are compared with the first one."""


def summarise(rows: Iterable[Row], runs: Sequence[str]) -> list[Entry]:
    """Computes mean, spread and paired difference to the first config, for every config and column.

    Besides the columns of the rows there is ``relative_seconds_per_step``: a run's seconds per step over those of the
    first config's run with the same split and seed.

    Args:
        rows: The finished runs, in any order.
        runs: The names of the configs, the reference first. Rows of others are left out.

    Returns:
        The entries by config, then column. What a run lacks is left out of its column.

    >>> rows = [Row("plain", 0, {"test/acc": 0.5}), Row("told", 0, {"test/acc": 0.75})]
    >>> [(entry.run, entry.spread.mean, entry.difference.mean) for entry in summarise(rows, ["plain", "told"])]
    [('plain', 0.5, 0.0), ('told', 0.75, 0.25)]
    """
    rows = _with_relative_seconds([row for row in rows if row.run in runs], runs[0])
    table = {(row.run, row.split, row.seed): row.values for row in rows}
    places = sorted({(row.split, row.seed) for row in rows})
    columns = list(dict.fromkeys(name for row in rows for name in row.values))

    def over(run: str, column: str) -> list[float]:
        return [table.get((run, *place), {}).get(column, math.nan) for place in places]

    found = {}
    for column in columns:
        reference, splits = over(runs[0], column), [split for split, _ in places]
        differences = [paired_difference(over(run, column), reference, splits) for run in runs]
        corrected = [math.nan, *holm([difference.p for difference in differences[1:]])]
        for run, difference, p in zip(runs, differences, corrected, strict=True):
            found[run, column] = Entry(run, column, spread(over(run, column)), difference, p)
    return [found[run, column] for run in runs for column in columns]


def summary_csv(entries: Iterable[Entry]) -> str:
    """Writes the summary as CSV, one line for each config and column, at full precision; empty without a number.

    >>> print(summary_csv(summarise([Row("plain", 0, {"test/acc": 0.5})], ["plain"])).splitlines()[1])
    plain,test/acc,1,0.5,,1,0.0,,,1 pair: no interval,1,,
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["pairs", "difference", "low", "high", "note", "units", "p", "corrected_p"]
    writer.writerow(["run", "column", "runs", "mean", "std", *names])
    for run, column, values, difference, p in entries:
        writer.writerow([run, column, *map(_cell, values), *map(_cell, difference), _cell(p)])
    return text.getvalue()


def value_grid(entries: Sequence[Entry], columns: Sequence[str]) -> Grid:
    """Lays out a line for each config: how many runs it has, then mean ± standard deviation of each column.

    Args:
        entries: From `summarise`.
        columns: The columns to show, in this order; those that no run has are left out.

    Returns:
        The cells, the header first.

    >>> rows = [Row("plain", 0, {"test/acc": 0.5}), Row("plain", 1, {"test/acc": 0.7})]
    >>> value_grid(summarise(rows, ["plain"]), ["test/acc"])
    [['run', 'runs', 'test/acc'], ['plain', '2', '0.600 ± 0.141']]
    """
    found, runs, shown = _arranged(entries, columns)
    grid = [["run", "runs", *shown]]
    for run in runs:
        runs_of_it = max(entry.spread.runs for entry in entries if entry.run == run)
        grid.append([run, str(runs_of_it), *(_spread_text(found[run, column]) for column in shown)])
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


def markdown(
    title: str, entries: Sequence[Entry], columns: Sequence[str], needed: Mapping[str, str] | None = None
) -> str:
    """Writes the summary as a Markdown page.

    Args:
        title: Its heading.
        entries: From `summarise`, at least one.
        columns: The columns to show.
        needed: What each config needs beside the labels, in words.

    Returns:
        Two tables and how to read them.
    """
    differences, notes = difference_grid(entries, columns)
    values = value_grid(entries, columns)
    if needed:
        values = [[*line, needed.get(line[0], "")] if place else [*line, "needs"] for place, line in enumerate(values)]
    parts = [f"# {in_markdown(title)}", _markdown_table(values), "Mean ± standard deviation over the runs."]
    if len(differences) > 1:
        parts += [_markdown_table(differences), HOW_TO_READ, *map(in_markdown, notes)]
        parts += ["\n".join(f"- {in_markdown(line)}" for line in in_words(entries, columns))]
    if monitors := monitor_grid(entries, columns):
        parts += [_markdown_table(monitors), "Means over all configs of what each monitor would have selected."]
    return "\n\n".join([*parts, *map(in_markdown, unknown_columns(entries, columns))]) + "\n"


def text(entries: Sequence[Entry], columns: Sequence[str]) -> str:
    """Writes the summary for the terminal: the same tables, aligned.

    >>> print(text(summarise([Row("plain", 0, {"test/acc": 0.5})], ["plain"]), ["test/acc"]))
    run    runs  test/acc
    plain  1     0.500
    """
    differences, notes = difference_grid(entries, columns)
    parts = [_aligned(value_grid(entries, columns))]
    if len(differences) > 1:
        said = in_words(entries, columns, only_judged=True)  # the notes speak of the others
        parts += ["\n".join([_aligned(differences), *notes]), *(["\n".join(said)] if said else [])]
    if monitors := monitor_grid(entries, columns):
        parts.append(_aligned(monitors))
    return "\n\n".join([*parts, *unknown_columns(entries, columns)])


def unknown_columns(entries: Sequence[Entry], columns: Sequence[str]) -> list[str]:
    """Names each column that is asked for and that no run has, one line each."""
    known = list(dict.fromkeys(entry.column for entry in entries))
    return [f"no run has {column!r}; {nearest(column, known)}" for column in columns if column not in known]


def in_words(entries: Sequence[Entry], columns: Sequence[str], only_judged: bool = False) -> list[str]:
    """Says of each config and each metric what the comparison shows.

    Args:
        entries: From `summarise`.
        columns: Those of them that are metrics are spoken of.
        only_judged: Whether to leave out what has no interval.

    Returns:
        A sentence each.

    >>> rows = [Row("plain", seed, {"test/acc": 0.5}) for seed in range(6)]
    >>> rows += [Row("told", seed, {"test/acc": 0.7 + seed / 100}) for seed in range(6)]
    >>> in_words(summarise(rows, ["plain", "told"]), ["test/acc"])
    ['told: test/acc is higher, +0.225 [+0.206, +0.244], p = 0.031']
    """
    found, runs, shown = _arranged(entries, [column for column in columns if "/" in column])
    told = [found[run, column] for run in runs[1:] for column in shown]
    if only_judged:
        told = [entry for entry in told if outcome(entry) != "no interval"]
    return [f"{entry.run}: {entry.column} {_verdict(entry)}" for entry in told]


def monitor_grid(entries: Sequence[Entry], columns: Sequence[str]) -> Grid:
    """Lays out a line for each monitor: what the checkpoints that it selects score, as a mean over all configs.

    Args:
        entries: From `summarise`.
        columns: Those of them that are test metrics are shown.

    Returns:
        The cells, the header first; empty where no other monitor was tried.

    >>> values = {"test/acc": 0.5, "test/acc@val/acc": 0.5, "test/acc@val/loss": 0.25}
    >>> monitor_grid(summarise([Row("plain", 0, values)], ["plain"]), ["test/acc"])
    [['selected by', 'test/acc'], ['val/acc', '0.500'], ['val/loss', '0.250']]
    """
    found, runs, shown = _arranged(entries, columns)
    shown = [name for name in shown if any(column.startswith(f"{name}{AT}") for _, column in found)]
    monitors = list(dict.fromkeys(column.partition(AT)[2] for _, column in found if AT in column))
    grid = [["selected by", *shown]]
    for monitor in monitors:
        means = [[found[run, f"{name}{AT}{monitor}"].spread.mean for run in runs] for name in shown]
        grid.append([monitor, *("-" if math.isnan(sum(of_runs)) else f"{fmean(of_runs):.3f}" for of_runs in means)])
    return grid if shown else []


Outcome = Literal["unknown", "no interval", "higher", "lower", "looks higher", "looks lower", "no difference"]


def outcome(entry: Entry) -> Outcome:
    """Tells what the comparison shows of a config in a column.

    Args:
        entry: From `summarise`.

    Returns:
        "higher" or "lower" if the corrected test says so; "looks higher" or "looks lower" if the interval leaves 0 out
        and so few units can give no small p; else why nothing is shown.

    >>> rows = [Row("plain", 0, {"test/acc": 0.5}), Row("told", 0, {"test/acc": 0.75})]
    >>> outcome(summarise(rows, ["plain", "told"])[1])
    'no interval'
    """
    difference = entry.difference
    if math.isnan(difference.mean):
        return "unknown"
    if difference.note:
        return "no interval"
    higher = difference.mean > 0
    if entry.p <= LEVEL:
        return "higher" if higher else "lower"
    if difference.least_p > LEVEL and difference.low * difference.high > 0:
        return "looks higher" if higher else "looks lower"
    return "no difference"


def shown_columns(entries: Sequence[Entry], columns: Sequence[str]) -> list[str]:
    """Chooses those of the columns that some run has.

    >>> shown_columns(summarise([Row("plain", 0, {"test/acc": 0.5})], ["plain"]), ["test/epg", "test/acc"])
    ['test/acc']
    """
    return _arranged(entries, columns)[2]


def _verdict(entry: Entry) -> str:
    found, difference, text = outcome(entry), entry.difference, _difference_text(entry)
    if found == "unknown":
        return "is not known"
    if found == "no interval":
        return f"differs by {text}: {difference.note}, nothing is shown"
    if found in ("higher", "lower"):
        return f"is {found}, {text}, p = {entry.p:.2g}"
    if found == "no difference":
        return f"shows no difference, {text}, p = {entry.p:.2g}"
    reason = f"so few units can give no p below {difference.least_p:.2g}"
    return f"{found}, {text}, but {difference.units} units show no difference: {reason}"


HOW_TO_READ = (
    f"Differences between runs of the same split and seed, with their {CONFIDENCE:.0%} interval: a percentile "
    "bootstrap over the splits, or over the seeds of one split, widened for few of them as Student's t is. p is that "
    "of a test that changes the signs of the same units, corrected by Holm for all configs of a column; n units can "
    "give none below 2^(1-n): 0.25 for three, 0.062 for five, 0.031 for six."
)


def _with_relative_seconds(rows: list[Row], reference: str) -> list[Row]:
    base = {(row.split, row.seed): row.values.get(SECONDS, math.nan) for row in rows if row.run == reference}
    ratios = [row.values.get(SECONDS, math.nan) / base.get((row.split, row.seed), math.nan) for row in rows]
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
    return "\n".join("| " + " | ".join(map(in_markdown, row)) + " |" for row in rows)


def _cell(value: object) -> object:
    return "" if isinstance(value, float) and math.isnan(value) else value
