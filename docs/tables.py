"""Writes the tables in docs/results/*.md from the values beside them: `python docs/tables.py`.

A table stands between two comments of its page, the first of which has its name. What is around it is written by hand.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from lightning_priors.statistics import Difference, paired_difference, spread

RESULTS = Path(__file__).parent / "results"
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
Rows = Sequence[Mapping[str, Any]]

GLYPHS = {
    "test/acc": "accuracy",
    "test/auroc": "AUROC",
    "test/average_precision": "average precision",
    "test/f1_macro": "macro F1",
}
BIRDS = {
    "test/worst_group_acc": "worst group",
    "test/acc": "accuracy",
    "test/auroc": "AUROC",
    "test/average_precision": "average precision",
    "test/epg": "EPG",
}
NEEDS = {
    "masks": ("exchange", "cam_restriction", "combined"),
    "boxes": ("prior_attention", "global_local"),
    "groups in training": ("group_dro", "dfr_groups"),
    "groups in half of validation": ("dfr_validation",),
    "finer labels": ("auxiliary", "combined"),
}
NAMES = {
    "plain": "plain",
    "group_dro": "GroupDRO",
    "dfr_groups": "DFR by groups",
    "dfr_classes": "DFR by classes",
    "dfr_validation": "DFR on validation",
    "afr": "AFR",
    "exchange": "backgrounds exchanged",
    "cam_restriction": "`CAMRestriction`",
    "prior_attention": "`PriorAttention`",
    "global_local": "`GlobalLocal`",
    "auxiliary": "`Auxiliary`",
    "maxl": "`MAXL`",
    "combined": "`Combined`: restriction and species",
    "pretrained": "ImageNet weights, head alone",
}
ENDINGS = {"_tenth": ", a tenth annotated", "_pixels": ", beside exchanged backgrounds"}
"""What the ending of a run's name says of it."""

MAXL_COSTS = {
    "human labels, two heads": "human",
    "published, unrolled": "published, double backward",
    "published, first order": "published, first order",
    "published, MixFlow-MG": "published schedule, forward over reverse (MixFlow-MG)",
    "own generator, every step": "own VGG as generator, every step",
    "own generator, every step, halves": "**the same, half of each batch judging**",
    "own generator, every step, MixFlow-MG": "own VGG, every step, forward over reverse (MixFlow-MG)",
    "own generator, every 10th": "own VGG, every 10th step",
    "own generator, every 10th, halves": "**the same, half of each batch judging**",
    "feature head, every step": "head on the features, every step",
    "feature head, every step, halves": "the same, half of each batch judging",
    "feature head, every 10th": "**head on the features, every 10th step (default)**",
}


class Line(NamedTuple):
    """A line of a table of gains."""

    name: str
    run: str
    against: str = ""
    """The run that it is compared with, in place of the first one."""


def rows_of(name: str, **chosen: str) -> list[dict[str, Any]]:
    """Reads the rows of a file that have the chosen values."""
    rows = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return [row for row in rows if all(row.get(key) == value for key, value in chosen.items())]


def gains(rows: Rows, columns: Mapping[str, str], lines: Sequence[Line], head: str) -> str:
    """Lays out the first run with its mean ± standard deviation, and the gains of others in points.

    Args:
        rows: One for each run and seed.
        columns: The metrics and their names.
        lines: The first is the reference.
        head: The head of the first column.

    Returns:
        The Markdown table; a gain is bold where its 95 % interval leaves out zero.

    >>> rows = [{"run": run, "seed": seed, "a": value + seed / 100} for run, value in (("x", 0.5), ("y", 0.6))
    ...     for seed in range(3)]
    >>> print(gains(rows, {"a": "accuracy"}, [Line("none", "x"), Line("finer", "y")], "labels"))
    | labels | accuracy |
    |---|---|
    | none | 0.510 ± 0.010 |
    | finer | +10.0 |
    """
    reference, *others = lines
    table = [[head, *columns.values()]]
    table.append([reference.name, *(_spread(_values(rows, reference.run, column)) for column in columns)])
    for name, run, against in others:
        table.append([name, *(_points(_difference(rows, run, against or reference.run, column)) for column in columns)])
    return _markdown(table)


def ranking(rows: Rows, columns: Mapping[str, str], needs: bool) -> str:
    """Lays out all runs, the best in the first column first, with the difference of that column to ``plain``.

    Args:
        rows: One for each run, split and seed.
        columns: The metrics and their names.
        needs: Whether to say what each needs, and how many parameters it has.

    Returns:
        The Markdown table.
    """
    first = next(iter(columns))
    runs = list(dict.fromkeys(row["run"] for row in rows))
    runs.sort(key=lambda run: -spread(list(_values(rows, run, first).values())).mean)
    head = ["", *([""] if needs else []), "runs", *columns.values(), *(["parameters"] if needs else [])]
    head.insert(4 if needs else 3, "difference to plain")
    if needs:
        head[1] = "needs"
    table = [head]
    for run in runs:
        cells = [_spread(_values(rows, run, column)) for column in columns]
        difference = "" if run == "plain" else _interval(_difference(rows, run, "plain", first))
        told = [_name(run), *([_needs(run)] if needs else []), str(len(_values(rows, run, first)))]
        size = [f"{fmean(_values(rows, run, 'parameters').values()) / 1e6:.1f} M"] if needs else []
        table.append([*told, cells[0], difference, *cells[1:], *size])
    return _markdown(table)


def beside(files: Mapping[str, str], against: str) -> str:
    """Lays out what priors add to exchanged backgrounds.

    Args:
        files: For each file of values the name of its setting.
        against: The run that they are compared with.

    Returns:
        The Markdown table of differences with their 95 % intervals.
    """
    columns = ("test/worst_group_acc", "test/acc", "test/auroc")
    table = [["", "technique", *(BIRDS[column] for column in columns)]]
    for file, setting in files.items():
        rows = rows_of(file)
        for run in ("global_local_pixels", "combined_pixels", "cam_restriction_pixels"):
            differences = [_interval(_difference(rows, run, against, column)) for column in columns]
            table.append([setting, NAMES[_base(run)], *differences])
    return _markdown(table)


def costs(rows: Rows) -> str:
    """Lays out what MAXL and its relatives cost, over plain training.

    Args:
        rows: What ``benchmarks/maxl_cost.py`` writes.

    Returns:
        The Markdown table.
    """
    ratios = {(row["variant"], row["unit"], row["batch"]): row["ratio"] for row in rows}
    columns = {"step, batch 32": ("milliseconds", 32), "step, batch 100": ("milliseconds", 100)}
    columns["memory, batch 100"] = ("megabytes", 100)
    table = [["auxiliary labels", *columns]]
    for variant, name in MAXL_COSTS.items():
        cells = [f"{ratios[variant, *measured]:.2f}" for measured in columns.values()]
        table.append([name, *(f"**{cell}**" if name.startswith("**") else cell for cell in cells)])
    return _markdown(table)


def _name(run: str) -> str:
    base = _base(run)
    return NAMES.get(base, base) + ENDINGS.get(run.removeprefix(base), "")


def _needs(run: str) -> str:
    techniques = (_base(run), *(["exchange"] if run.endswith("_pixels") else []))
    return ", ".join(what for what, runs in NEEDS.items() if any(each in runs for each in techniques))


def _base(run: str) -> str:
    return run.removesuffix("_tenth").removesuffix("_pixels")


def _values(rows: Rows, run: str, column: str) -> dict[tuple[int, int], float]:
    return {(row.get("split", 0), row["seed"]): row[column] for row in rows if row["run"] == run and column in row}


def _difference(rows: Rows, run: str, against: str, column: str) -> Difference:
    left, right = _values(rows, run, column), _values(rows, against, column)
    both = sorted(left.keys() & right.keys())
    splits = [split for split, _ in both]
    return paired_difference([left[place] for place in both], [right[place] for place in both], splits)


def _spread(values: Mapping[tuple[int, int], float]) -> str:
    _, mean, std = spread(list(values.values()))
    if math.isnan(mean):
        return ""
    return f"{mean:.3f}" + ("" if math.isnan(std) else f" ± {std:.3f}")


def _points(difference: Difference) -> str:
    mean = f"{100 * difference.mean:+.1f}"
    if difference.note:
        return mean
    interval = f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
    return f"{_bold(mean, difference)} {interval}"


def _interval(difference: Difference) -> str:
    mean = f"{difference.mean:+.3f}"
    if difference.note:
        return mean
    return f"{_bold(mean, difference)} [{difference.low:+.2f}, {difference.high:+.2f}]"


def _bold(text: str, difference: Difference) -> str:
    return f"**{text}**" if difference.low * difference.high > 0 else text


def _markdown(table: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in table]
    return "\n".join([lines[0], "|" + "---|" * len(table[0]), *lines[1:]])


def _complexity() -> str:
    lines = [
        Line("none", "single"),
        Line("coarser: halves of the groups, 2 classes", "coarser"),
        Line("equal: the groups once more, 5 classes", "equal"),
        Line("crossing: other groups, 5 classes", "crossing"),
        Line("finer: the characters, 47 classes", "finer"),
        Line("finer at random, 47 classes", "random_finer"),
        Line("*finer less equal*", "finer", "equal"),
    ]
    return gains(rows_of("findings_glyphs", study="complexity_glyphs"), GLYPHS, lines, "auxiliary task")


def _several() -> str:
    lines = [
        Line("none", "single"),
        Line("coarser", "coarser"),
        Line("coarser and equal", "coarser+equal"),
        Line("finer", "finer"),
        Line("coarser and finer", "coarser+finer"),
        Line("coarser, equal and finer", "all"),
        Line("*coarser and finer, less finer alone*", "coarser+finer", "finer"),
        Line("*all three, less finer alone*", "all", "finer"),
    ]
    return gains(rows_of("findings_glyphs", study="several_glyphs"), GLYPHS, lines, "auxiliary tasks")


def _target() -> str:
    lines = [
        Line("none", "single"),
        Line("target kept", "kept"),
        Line("target excluded", "excluded"),
        Line("same labels at random", "random"),
        Line("*excluded less kept*", "excluded", "kept"),
    ]
    return gains(rows_of("findings_glyphs", study="target_glyphs"), GLYPHS, lines, "auxiliary task")


def _maxl() -> str:
    lines = [
        Line("none", "single"),
        Line("human", "human"),
        Line("random", "random"),
        Line("k-means", "kmeans"),
        Line("an untrained generator", "untrained"),
        Line("`MAXL`", "maxl"),
        Line("`PublishedMAXL`, double backward", "published"),
        Line("`PublishedMAXL`, first order", "published_first_order"),
    ]
    columns = {
        "test/acc": "accuracy",
        "test/auroc": "AUROC",
        "test/ap": "average precision",
        "test/f1_macro": "macro F1",
    }
    rows = rows_of("maxl_glyphs")
    plans = [row for row in rows if not (row["run"] == "single" and row["plan"].endswith("kmeans.yaml"))]
    return gains(plans, columns, lines, "labels")


TABLES: Mapping[str, Callable[[], str]] = {
    "complexity": _complexity,
    "several": _several,
    "target": _target,
    "maxl": _maxl,
    "birds_95": lambda: ranking(rows_of("birds_95"), BIRDS, needs=True),
    "birds_100": lambda: ranking(rows_of("birds_100"), BIRDS, needs=True),
    "birds_beside": lambda: beside({"birds_95": "95 %", "birds_100": "100 %"}, "exchange"),
    "maxl_cost": lambda: costs(rows_of("cost")),
    "kakapo": lambda: ranking(rows_of("kakapo"), BIRDS, needs=False),
}


def filled(page: str) -> str:
    """Returns a page with its tables as the values give them now."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", page)


if __name__ == "__main__":
    for path in sorted(RESULTS.glob("*.md")):
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
