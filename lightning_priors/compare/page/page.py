"""The report of a comparison as one HTML file that needs nothing else."""

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from lightning_priors.compare.page.charts import Interval, Point, curves, dots, forest, scatter
from lightning_priors.compare.page.numbers import Numbers
from lightning_priors.compare.page.pictures import Compared
from lightning_priors.compare.page.template import PAGE
from lightning_priors.compare.report import HOW_TO_READ, RELATIVE
from lightning_priors.explain.backgrounds import WHAT_IS_DONE

EVIDENCE = "test/epg"


def page(numbers: Numbers, pictures: Sequence[Compared] = (), sheets: Mapping[str, Path] | None = None) -> str:
    """Writes the page.

    Args:
        numbers: From `lightning_priors.compare.page.numbers.numbers`; each number on the page names its place there.
        pictures: Test images under every config.
        sheets: For each config with a label generator the picture of its labels.

    Returns:
        HTML. Whatever comes from the data or a plan is escaped.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    configs = numbers["configs"]
    classes = numbers["data"]["classes"] if numbers["data"] else []
    return environment.from_string(PAGE).render(
        numbers=numbers,
        charts=charts(numbers),
        pictures=pictures,
        sheets={name: data_uri(path) for name, path in (sheets or {}).items()},
        groups=list(dict.fromkeys(name for config in configs for name in config["by_group"])),
        backgrounds=any(config["backgrounds"] for config in configs),
        columns_of_runs=list(
            dict.fromkeys(name for config in configs for run in config["runs"] for name in run["values"])
        ),
        warm=classes[1] if len(classes) == 2 else "the answer",
        cold=f"for {classes[0]}" if len(classes) == 2 else "against it",
        how_to_read=HOW_TO_READ,
        what_is_done=WHAT_IS_DONE,
        needs=needs_in_words,
        spread=lambda place, column: _spread(configs[place], place, column),
        difference=lambda place, column: _difference(configs[place], place, column),
        value=lambda key, number: _data(key, number, f"{number:.3f}"),
        plain=lambda number: "" if number is None else f"{number:.4g}",
    )


def charts(numbers: Numbers) -> dict[str, Any]:
    """Draws the charts.

    Args:
        numbers: As for `page`.

    Returns:
        SVG elements: ``forest`` and ``dots`` by metric, a list ``scatter``, and ``curves``.
    """
    configs, reference, main = numbers["configs"], numbers["reference"], numbers["main"]
    metrics = numbers["metrics"]
    points = [(EVIDENCE, main), (RELATIVE, main)]
    drawn = [_scatter(configs, x, y, reference) for x, y in points if x != y]
    rising = {config["name"]: config["curve"] for config in configs if config["curve"]}
    ordered = {name: rising[name] for name in [reference, *rising] if name in rising}
    return {
        "forest": {name: _forest(configs, name, reference) for name in metrics},
        "dots": {
            name: Markup(
                dots(
                    {
                        config["name"]: [
                            (run["split"], run["values"][name])
                            for run in config["runs"]
                            if run["values"].get(name) is not None
                        ]
                        for config in configs
                    },
                    name,
                )
            )
            for name in metrics
        },
        "scatter": [chart for chart in drawn if chart],
        "curves": Markup(curves(ordered, numbers["monitor"])) if ordered else "",
    }


def needs_in_words(config: Mapping[str, Any]) -> str:
    """Says what a config's training has to know beside the labels.

    >>> needs_in_words({"needs": ["masks or boxes"], "annotated_fraction": 0.1})
    'masks or boxes, of 10 % of the images'
    """
    if not config["needs"]:
        return "nothing"
    share, words = config["annotated_fraction"], ", ".join(config["needs"])
    spatial = any(kind in words for kind in ("masks", "boxes", "keypoints"))
    return f"{words}, of {100 * share:g} % of the images" if share < 1 and spatial else words


def data_uri(path: Path) -> str:
    """Reads a PNG file as the address that a page can hold it under."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _forest(configs: Sequence[Mapping[str, Any]], column: str, reference: str) -> Markup | str:
    lines = []
    for config in configs:
        value = config["values"].get(column)
        if config["name"] != reference and value is not None and value["difference"] is not None:
            shown = value["outcome"] in ("higher", "lower")
            lines.append(Interval(config["name"], value["difference"], value["low"], value["high"], shown))
    return Markup(forest(lines, column, reference)) if lines else ""


def _scatter(configs: Sequence[Mapping[str, Any]], x: str, y: str, reference: str) -> Markup | str:
    points = []
    for config in configs:
        values = [config["values"].get(name, {}).get("mean") for name in (x, y)]
        if None not in values:
            points.append(Point(config["rank"], values[0], values[1], config["name"] == reference))
    return Markup(scatter(points, x, y)) if len(points) > 1 else ""


def _spread(config: Mapping[str, Any], place: int, column: str) -> Markup | str:
    value = config["values"].get(column)
    if value is None or value["mean"] is None:
        return "–"
    digits = _digits(column, value["mean"])
    mean = _data(f"configs.{place}.values.{column}.mean", value["mean"], f"{value['mean']:.{digits}f}")
    if value["std"] is None:
        return mean
    return mean + Markup(' <span class="spread">± {}</span>').format(f"{value['std']:.{digits}f}")


def _difference(config: Mapping[str, Any], place: int, column: str) -> Markup | str:
    value = config["values"].get(column)
    if value is None or value["difference"] is None:
        return "–"
    mean = _data(f"configs.{place}.values.{column}.difference", value["difference"], f"{value['difference']:+.3f}")
    if value["low"] is None:
        return mean
    return mean + Markup(' <span class="spread">{}</span>').format(f"[{value['low']:+.3f}, {value['high']:+.3f}]")


def _digits(column: str, mean: float) -> int:
    """Three for metrics; three significant digits for times and sizes."""
    return 3 if "/" in column or not mean else max(0, 2 - math.floor(math.log10(abs(mean))))


def _data(key: str, number: float, text: str) -> Markup:
    """A number with its place in the JSON."""
    return Markup('<data value="{}" data-key="{}">{}</data>').format(repr(number), escape(key), text)
