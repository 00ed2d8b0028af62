"""Tests the findings about auxiliary tasks: runs their plans and writes tables, a picture and a sentence on each.

A seed chooses the training images (``--data.seed``) and the first weights. All configs share the images of a seed, so
their differences are paired. An interrupted run continues where it stopped, as `lightning-priors compare` does.

    python experiments/findings.py experiments/findings/complexity.yaml experiments/findings/several.yaml \
        --train-fraction 0.0017 0.0085 0.034 -- --data.source.source.root=../shared/data

These fractions of Fashion-MNIST are about 10, 50 and 200 images of each class. Options after ``--`` go to all runs and
win over the plan's.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_priors.compare.plan import Plan, read_plan, seed_list
from lightning_priors.compare.report import Entry, markdown, summarise, text
from lightning_priors.compare.resolve import Task, resolve
from lightning_priors.compare.rows import Row
from lightning_priors.compare.run import compare
from lightning_priors.statistics import CONFIDENCE, Difference, paired_difference

SINGLE, FINER = "single", "finer"
METRICS = ("test/acc", "test/auroc", "test/average_precision", "test/f1_macro", "test/balanced_acc", "test/acc_hard")


class Study(NamedTuple):
    """The results of a plan with one number of training images."""

    name: str
    """Such as "complexity 0.0085"."""
    rows: list[Row]
    entries: list[Entry]

    def differences(self, metric: str) -> dict[str, Difference]:
        """Gives the difference of each config to the first one of the plan."""
        return {e.run: e.difference for e in self.entries if e.column == metric and e.difference.pairs}

    def between(self, run: str, reference: str, metric: str) -> Difference:
        """Computes the difference of one config to another."""
        seeds = sorted({row.seed for row in self.rows})
        values = {(row.run, row.seed): row.values.get(metric, float("nan")) for row in self.rows}
        left, right = ([values.get((name, seed), float("nan")) for seed in seeds] for name in (run, reference))
        return paired_difference(left, right)


def tasks_of(plan: Plan) -> list[Task]:
    """Lists the runs of a plan, seed by seed; each seed draws its own training images."""
    return [
        task
        for seed in plan.seeds
        for task in resolve(replace(plan, seeds=(seed,), options=(*plan.options, f"--data.seed={seed}")))
    ]


def gains(difference: Difference) -> bool:
    """Tells whether the whole interval lies above zero."""
    return difference.low > 0


def shown(difference: Difference) -> str:
    """Writes a difference in percentage points, such as "+1.2 [+0.4, +2.0]"."""
    interval = difference.note or f"{100 * difference.low:+.1f}, {100 * difference.high:+.1f}"
    return f"{100 * difference.mean:+.1f} [{interval}]"


def first_finding(differences: Mapping[str, Difference]) -> str:
    """Says whether the primary task gains from the finer labels and from no others.

    >>> yes, no = Difference(5, 0.02, 0.01, 0.03, "", 5, 0.06), Difference(5, 0.0, -0.01, 0.01, "", 5, 1)
    >>> first_finding({"single": no, "coarser": no, "finer": yes})
    'holds: finer +2.0 [+1.0, +3.0] gains; coarser +0.0 [-1.0, +1.0] do not'
    """
    if math.isnan(differences[FINER].low):
        return f"cannot be told: {differences[FINER].note}"
    others = [name for name in differences if name not in (SINGLE, FINER)]
    holds = gains(differences[FINER]) and not any(gains(differences[name]) for name in others)
    winners = [name for name in (FINER, *others) if gains(differences[name])]
    losers = [name for name in (FINER, *others) if name not in winners]
    listed = [", ".join(f"{name} {shown(differences[name])}" for name in names) for names in (winners, losers)]
    parts = [f"{names} {verb}" for names, verb in zip(listed, ("gains", "do not"), strict=True) if names]
    return f"{'holds' if holds else 'does not hold'}: {'; '.join(parts)}"


def second_finding(differences: Mapping[str, Difference], to_finer: Mapping[str, Difference]) -> str:
    """Says whether further auxiliary tasks change nothing once the finest one is learned.

    Args:
        differences: Of each config to the single task.
        to_finer: Of each config that learns the finest task among others, to the config that learns it alone.

    >>> yes, no = Difference(5, 0.02, 0.01, 0.03, "", 5, 0.06), Difference(5, 0.0, -0.01, 0.01, "", 5, 1)
    >>> second_finding({"finer": yes, "all": yes}, {"all": no})
    'holds: finer +2.0 [+1.0, +3.0]; beside it all +0.0 [-1.0, +1.0]'
    """
    if math.isnan(differences[FINER].low):
        return f"cannot be told: {differences[FINER].note}"
    holds = gains(differences[FINER]) and all(value.low <= 0 <= value.high for value in to_finer.values())
    beside = ", ".join(f"{name} {shown(value)}" for name, value in to_finer.items())
    return f"{'holds' if holds else 'does not hold'}: finer {shown(differences[FINER])}; beside it {beside}"


def sentences(study: Study, metric: str) -> list[str]:
    """Says what a study shows about each finding that it has the configs for."""
    differences = study.differences(metric)
    said = []
    if {FINER, "coarser", "equal", "random_finer"} <= differences.keys():
        said.append(f"{study.name}, {metric}: finding 1 {first_finding(differences)}.")
    among: list[str] = [name for name in ("coarser+finer", "all") if name in differences]
    if among and FINER in differences:
        to_finer = {name: study.between(name, FINER, metric) for name in among}
        said.append(f"{study.name}, {metric}: finding 2 {second_finding(differences, to_finer)}.")
    if {"kept", "excluded"} <= differences.keys():
        taken_out = study.between("excluded", "kept", metric)
        listed = ", ".join(f"{name} {shown(value)}" for name, value in differences.items() if name != SINGLE)
        said.append(f"{study.name}, {metric}: {listed}; excluded minus kept {shown(taken_out)}.")
    return said


def draw(studies: Sequence[Study], metrics: Sequence[str]) -> Figure:
    """Draws the differences to the single task with their intervals: studies in rows, metrics in columns."""
    figure = Figure(figsize=(4.2 * len(metrics), 0.6 + 2.6 * len(studies)), dpi=120, layout="constrained")
    panels = figure.subplots(len(studies), len(metrics), squeeze=False)
    for study, line in zip(studies, panels, strict=True):
        for metric, axes in zip(metrics, line, strict=True):
            draw_differences(axes, study, metric)
    return figure


def draw_differences(axes: Axes, study: Study, metric: str) -> None:
    """Draws a line for each config, from top to bottom."""
    differences = {name: value for name, value in study.differences(metric).items() if name != SINGLE}
    for place, difference in enumerate(differences.values()):
        colour = "tab:green" if gains(difference) else "tab:red" if difference.high < 0 else "tab:gray"
        axes.plot([100 * difference.low, 100 * difference.high], [place, place], color=colour, linewidth=2)
        axes.plot(100 * difference.mean, place, "o", color=colour)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(differences)), list(differences))
    axes.invert_yaxis()
    axes.set_title(f"{study.name}, {metric}", fontsize=9)
    axes.set_xlabel(f"points more than {SINGLE}, {CONFIDENCE:.0%} interval", fontsize=8)


def run_study(plan: Plan, name: str, output: Path) -> tuple[Study | None, dict[str, str]]:
    """Runs a plan and writes its table; gives the results, if any, and the error of each run that failed."""
    rows, failures = compare(tasks_of(plan), output)
    if not rows:
        return None, failures
    study = Study(name, rows, summarise(rows, list(plan.runs)))
    (output / "summary.md").write_text(markdown(name, study.entries, plan.columns), encoding="utf-8")
    print(f"\n{text(study.entries, plan.columns)}\n")
    return study, failures


def report(studies: Sequence[Study], output: Path) -> None:
    """Prints and writes what the studies show, draws it, and writes the values of all runs."""
    found = [metric for metric in METRICS if any(study.differences(metric) for study in studies)]
    said = [sentence for study in studies for metric in found for sentence in sentences(study, metric)]
    values = [
        {"study": study.name, "run": row.run, "seed": row.seed}
        | {metric: round(row.values[metric], 4) for metric in found if metric in row.values}
        for study in studies
        for row in study.rows
    ]
    paths = [output / f"findings.{suffix}" for suffix in ("md", "json", "png")]
    paths[0].write_text("".join(f"- {sentence}\n" for sentence in said), encoding="utf-8")
    paths[1].write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    draw(studies, found).savefig(paths[2])
    print("\n".join([*said, *map(str, paths)]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plans", nargs="+", metavar="PLAN")
    parser.add_argument("--train-fraction", nargs="+", type=float, help="several in place of the plan's")
    parser.add_argument("--seeds", metavar="0,1,2", help="other seeds than the plan's")
    parser.add_argument("--output", type=Path, default=Path("runs/findings"))
    options, further = parser.parse_known_args()
    studies: list[Study] = []
    failures: dict[str, str] = {}
    for path in options.plans:
        plan = read_plan(path)
        if options.seeds is not None:
            plan = replace(plan, seeds=seed_list(options.seeds))
        plan = replace(plan, options=(*plan.options, *(option for option in further if option != "--")))
        for fraction in options.train_fraction or [None]:
            name, given = Path(path).stem, plan
            if fraction is not None:
                name = f"{name} {fraction:g}"
                given = replace(plan, options=(*plan.options, f"--data.train_fraction={fraction}"))
            study, failed = run_study(given, name, options.output / name.replace(" ", "-"))
            failures |= {f"{name}, {run}": line for run, line in failed.items()}
            studies += [study] if study is not None else []
    if studies:
        report(studies, options.output)
    for run, line in failures.items():
        print(f"failed: {run}: {line}")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
