"""How good must masks be? Trains with masks that are wrong by known amounts, and without any.

The plan has two runs: without masks, and with them. The second one is done with the true masks and with masks of each
kind and amount of `NOISE`, whose intersection over union with the true ones is measured on the training images.
Validation and test images keep their true masks, so that what is measured on them can be compared.

    python experiments/mask_noise.py experiments/mask_noise.yaml ../shared/data/stampbirds

Options after ``--`` go to all runs and win over the plan's. An interrupted sweep continues where it stopped.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_priors.compare.plan import Plan, read_plan, seed_list
from lightning_priors.compare.resolve import Task, resolve
from lightning_priors.compare.rows import Row
from lightning_priors.compare.run import compare
from lightning_priors.data.sources import NoisyMasks, Source, Waterbirds
from lightning_priors.data.sources.noisy_masks import MaskNoise
from lightning_priors.data.sources.wrapper import read_each
from lightning_priors.errors import PriorError

TRUE = "true"
NOISE: Mapping[MaskNoise, tuple[float, ...]] = {
    "boxes": (0.0,),
    "dilated": (0.25, 0.5, 1.0),
    "shifted": (0.25, 0.5, 1.0),
    "exchanged": (0.25, 0.5, 1.0),
}
METRICS = {
    "test/acc": "test accuracy",
    "test/worst_group_acc": "accuracy of the worst group",
    "test/epg": "evidence on the bird (EPG)",
}


@dataclass(frozen=True)
class Level:
    """What training with one kind and amount of wrong masks gave."""

    name: str
    kind: str
    """Empty for training without masks."""
    amount: float
    iou: float | None
    """Mean intersection over union of the training masks with the true ones; None without masks."""
    values: dict[str, list[float]]
    """The metrics, one number for each seed."""


def levels() -> list[tuple[str, MaskNoise, float]]:
    """Lists the masks by name; the true ones first.

    >>> levels()[:3]
    [('true', 'shifted', 0.0), ('boxes', 'boxes', 0.0), ('dilated_0.25', 'dilated', 0.25)]
    """
    wrong = [(f"{kind}_{amount:g}" if amount else str(kind), kind, amount) for kind in NOISE for amount in NOISE[kind]]
    return [(TRUE, "shifted", 0.0), *wrong]


def mean_iou(source: Source, kind: MaskNoise, amount: float) -> float:
    """Measures how much of the wrong and the true masks of the training images is common to both."""
    noisy, training = NoisyMasks(source, kind, amount), source.indices("train")
    kept = [read_each(each, training, lambda sample: sample["mask"] >= 0.5) for each in (source, noisy)]
    true, wrong = ([masks[index] for index in training] for masks in kept)
    return fmean(float((t & w).sum() / (t | w).sum().clamp(min=1)) for t, w in zip(true, wrong, strict=True))


def tasks_of(plan: Plan) -> list[Task]:
    """Lists the runs, seed by seed: first without masks, then with each of the masks."""
    without, masked = plan.runs.values()
    found = resolve(replace(plan, runs={without.name: without}))
    for name, kind, amount in levels():
        noise = (f"--data.source.init_args.kind={kind}", f"--data.source.init_args.amount={amount}")
        found += resolve(replace(plan, runs={name: replace(masked, name=name)}, options=(*plan.options, *noise)))
    return sorted(found, key=lambda task: plan.seeds.index(task.seed))


def collect(plan: Plan, rows: Sequence[Row], source: Source) -> list[Level]:
    """Puts the rows of all seeds together, and measures the masks."""
    without = next(iter(plan.runs))
    known = [(without, "", 0.0), *levels()]
    found = []
    for name, kind, amount in known:
        own = sorted((row for row in rows if row.run == name), key=lambda row: row.seed)
        if own:
            values = {metric: [row.values[metric] for row in own] for metric in METRICS}
            iou = mean_iou(source, kind, amount) if kind else None
            found.append(Level(name, kind, amount, iou, values))
    return found


def table(found: Sequence[Level]) -> str:
    """Writes a Markdown table: mean ± standard deviation over the seeds.

    >>> print(table([Level("plain", "", 0.0, None, {name: [0.5, 0.7] for name in METRICS})]).splitlines()[2])
    | plain | - | 2 | 0.600 ± 0.141 | 0.600 ± 0.141 | 0.600 ± 0.141 |
    """
    lines = [f"| masks | IoU | seeds | {' | '.join(METRICS.values())} |", "|---|" + "---:|" * (2 + len(METRICS))]
    for level in found:
        seeds = len(next(iter(level.values.values())))
        cells = [f"{fmean(v):.3f}" + (f" ± {stdev(v):.3f}" if seeds > 1 else "") for v in level.values.values()]
        iou = "-" if level.iou is None else f"{level.iou:.2f}"
        lines.append(f"| {level.name} | {iou} | {seeds} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def draw(found: Sequence[Level]) -> Figure:
    """Draws each metric against the quality of the masks."""
    figure = Figure(figsize=(4.2 * len(METRICS), 3.6), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(METRICS), squeeze=False)[0]
    for axes, (metric, title) in zip(panels, METRICS.items(), strict=True):
        draw_metric(axes, found, metric)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("IoU of the training masks with the true ones", fontsize=9)
    panels[0].legend(fontsize=8)
    return figure


def draw_metric(axes: Axes, found: Sequence[Level], metric: str) -> None:
    """Draws a line for each kind from the true masks on, and one across for training without masks."""
    for level in found:
        if level.iou is None:
            axes.axhline(fmean(level.values[metric]), color="black", linestyle="--", label="no masks")
    for kind in NOISE:
        own = [level for level in found if level.name == TRUE or level.kind == kind]
        points = sorted((level.iou, fmean(level.values[metric])) for level in own if level.iou is not None)
        axes.plot(*zip(*points, strict=True), marker="o", label=kind)
        for level in own:
            axes.scatter([level.iou] * len(level.values[metric]), level.values[metric], s=6, color="gray", zorder=0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", metavar="PLAN")
    parser.add_argument("root", type=Path, metavar="ROOT", help="the folder with metadata.csv")
    parser.add_argument("--seeds", metavar="0,1,2", help="other seeds than the plan's")
    parser.add_argument("--output", default="runs/mask_noise")
    options, further = parser.parse_known_args()
    try:
        plan = read_plan(options.plan)
        if len(plan.runs) != 2:
            raise PriorError(f"{options.plan} needs two runs, without masks and with them, not {len(plan.runs)}")
        where = f"--data.source.source.init_args.root={options.root}"
        given = (*plan.options, where, *(option for option in further if option != "--"))
        seeds = plan.seeds if options.seeds is None else seed_list(options.seeds)
        plan = replace(plan, options=given, seeds=seeds, output=options.output)
        rows, failures = compare(tasks_of(plan), Path(plan.output))
    except PriorError as error:
        parser.exit(2, f"error: {error}\n")
    if rows:
        found = collect(plan, rows, Waterbirds(str(options.root)))
        text = json.dumps([asdict(level) for level in found], indent=1)
        (Path(plan.output) / "mask_noise.json").write_text(text + "\n", encoding="utf-8")
        (Path(plan.output) / "mask_noise.md").write_text(table(found), encoding="utf-8")
        draw(found).savefig(Path(plan.output) / "mask_noise.png")
        print(f"\n{table(found)}\n{Path(plan.output) / 'mask_noise.png'}")
    for run, line in failures.items():
        print(f"failed: {run}: {line}")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
