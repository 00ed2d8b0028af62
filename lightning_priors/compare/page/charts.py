"""The charts of the report: drawn by matplotlib, as SVG that takes the page's colours."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

TEXT, QUIET, LINE, MARK, FIRST = "#010101", "#020202", "#030303", "#040404", "#050505"
COLOURS = {TEXT: "--text", QUIET: "--quiet", LINE: "--line", MARK: "--bar", FIRST: "--first"}
"""What stands for a colour of the page, which is another one in the dark."""

WIDTH, ROW = 5.2, 0.27
"""Inches: the width of a chart, the height of a line in it."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": QUIET,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": QUIET,
    "ytick.labelcolor": TEXT,
    "text.color": TEXT,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
}
MARKERS = "osD^vP*X"
"""One for each split, over and over."""


class Interval(NamedTuple):
    """A line of `forest`."""

    name: str
    mean: float
    low: float | None
    """None where there is no interval."""
    high: float | None
    shown: bool
    """Whether the difference is shown by the test; it is filled then."""


class Point(NamedTuple):
    """A point of `scatter`: its number stands in it."""

    number: int
    x: float
    y: float
    first: bool
    """Whether it is the config that the others are compared with."""


def forest(lines: Sequence[Interval], column: str, reference: str) -> str:
    """Draws differences with their intervals.

    Args:
        lines: A config each, the first on top.
        column: The metric.
        reference: What is subtracted.

    Returns:
        An SVG element.

    >>> "told" in forest([Interval("told", 0.1, 0.05, 0.15, True)], "test/acc", "plain")
    True
    """

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=QUIET, linewidth=1, linestyle=(0, (4, 3)))
        for place, line in enumerate(lines):
            if line.low is not None and line.high is not None:
                axes.plot([line.low, line.high], [place, place], color=MARK, linewidth=1.6, solid_capstyle="butt")
            face = MARK if line.shown else "none"
            axes.plot(line.mean, place, "o", color=MARK, markersize=6, markerfacecolor=face, markeredgewidth=1.4)
        _named(axes, [line.name for line in lines])
        axes.set_xlabel(f"{column}, minus {reference}")

    return _drawn(draw, len(lines) * ROW + 0.6, f"Differences in {column}")


def dots(values: Mapping[str, Sequence[tuple[int, float]]], column: str) -> str:
    """Draws every run as a dot, and the mean of each config.

    Args:
        values: For each config, the first on top, its runs: the number of the split, and the value.
        column: The metric.

    Returns:
        An SVG element; runs of the same split have the same mark.

    >>> "plain" in dots({"plain": [(0, 0.5), (1, 0.75)]}, "test/acc")
    True
    """

    def draw(axes: Axes) -> None:
        for place, runs in enumerate(values.values()):
            numbers = [value for _, value in runs]
            if numbers:
                mean = sum(numbers) / len(numbers)
                axes.plot([mean, mean], [place - 0.32, place + 0.32], color=TEXT, linewidth=1.6)
            for split, value in runs:
                axes.plot(value, place, MARKERS[split % len(MARKERS)], color=MARK, markersize=4.5, alpha=0.75)
        _named(axes, list(values))
        axes.set_xlabel(column)

    return _drawn(draw, len(values) * ROW + 0.6, f"Every run: {column}")


def scatter(points: Sequence[Point], x: str, y: str) -> str:
    """Draws numbered points.

    Args:
        points: A config each.
        x: What is to the right.
        y: What is above.

    Returns:
        An SVG element.

    >>> ">12<" in scatter([Point(12, 0.5, 0.75, False)], "cost", "gain").replace(" ", "")
    True
    """

    def draw(axes: Axes) -> None:
        for point in points:
            colour = FIRST if point.first else MARK
            axes.plot(point.x, point.y, "o", color=colour, markersize=13, markerfacecolor="none", markeredgewidth=1.2)
            axes.text(point.x, point.y, str(point.number), ha="center", va="center_baseline", fontsize=8)
        axes.margins(0.12)
        axes.grid()
        axes.tick_params(labelcolor=QUIET, length=0)
        axes.set_xlabel(x)
        axes.set_ylabel(y)

    return _drawn(draw, 3.4, f"{y} against {x}")


def curves(values: Mapping[str, Sequence[tuple[int, float]]], column: str) -> str:
    """Draws how a validation metric rises, a small chart for each config, with that of the first one behind it.

    Args:
        values: For each config the epoch and the mean over its runs.
        column: The metric.

    Returns:
        An SVG element.

    >>> ">told<" in curves({"plain": [(0, 0.5)], "told": [(0, 0.5), (1, 0.75)]}, "val/acc").replace(" ", "")
    True
    """
    names, columns = list(values), min(3, len(values))
    rows = -(-len(names) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure((WIDTH, 1.25 * rows + 0.3), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(names):
                axes.set_visible(False)
                continue
            for name, colour in ((names[0], FIRST), (names[place], MARK)):
                axes.plot(*zip(*values[name], strict=True), color=colour, linewidth=1.5, marker="o", markersize=2.5)
            axes.set_title(names[place], fontsize=8, loc="left", color=TEXT)
            axes.tick_params(labelcolor=QUIET, labelsize=7, length=2)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(axis="y")
        figure.supxlabel("epoch", fontsize=8, color=QUIET)
        return _svg(figure, f"{column} by epoch")


def _named(axes: Axes, names: Sequence[str]) -> None:
    """Lines from top to bottom with their names."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)


def _drawn(draw: Callable[[Axes], Any], height: float, label: str) -> str:
    with mpl.rc_context(STYLE):
        figure = Figure((WIDTH, height), layout="constrained")
        draw(figure.subplots())
        return _svg(figure, label)


def _svg(figure: Figure, label: str) -> str:
    """The figure as an element of the page: its width is the page's, its colours and letters too."""
    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": label}):  # identifiers of two charts on a page differ, and stay the same
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style)[ >].*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)  # as older versions of matplotlib write it
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # the same in every chart
    for stands_for, name in COLOURS.items():
        text = text.replace(stands_for, f"var({name})")
    head = re.search(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', text)
    assert head is not None, "matplotlib writes the size of the drawing"
    opening = f'<svg viewBox="{head.group(1)}" role="img" aria-label="{escape(label)}">'
    return opening + text[head.end() :]
