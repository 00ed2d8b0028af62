"""The page: one HTML file that needs nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from lightning_priors.explain.charts import histogram, reliability
from lightning_priors.explain.pictures import Shown
from lightning_priors.explain.template import PAGE
from lightning_priors.explain.verdict import verdict

MISSING = "–"


def page(numbers: Mapping[str, Any], pictures: Mapping[str, Sequence[Shown]]) -> str:
    """Writes the page.

    Args:
        numbers: All that stands in the JSON beside it; each number on the page names its place there.
        pictures: For each list of images in `numbers`, such as ``mistakes``, their pictures.

    Returns:
        HTML. Whatever comes from the data is escaped.
    """
    runs = [name for name in ("run", "against") if numbers[name] is not None]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(PAGE)
    return template.render(
        numbers=numbers,
        runs=runs,
        pictures=pictures,
        percent=lambda key: _number(numbers, key, lambda value: f"{100 * value:.1f}\u00a0%"),
        points=lambda key: _number(numbers, key, lambda value: f"{100 * value:+.1f}"),
        count=lambda key: _number(numbers, key, lambda value: f"{value:,}"),
        score=lambda key: _number(numbers, key, lambda value: f"{value:.3f}"),
        reliability=lambda bins: Markup(reliability(bins)),
        histogram=lambda counts: Markup(histogram(counts)),
        verdict=verdict,
        at=lambda key: found(numbers, key),
    )


def found(numbers: Mapping[str, Any], key: str) -> Any:
    """Looks up an entry of the JSON.

    Args:
        numbers: Its content.
        key: The names and places on the way there, joined by dots.

    >>> found({"run": {"by_class": [{"accuracy": 0.5}]}}, "run.by_class.0.accuracy")
    0.5
    """
    value: Any = numbers
    for step in key.split("."):
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value


def _number(numbers: Mapping[str, Any], key: str, text: Any) -> Markup:
    """A number with its place in the JSON; a dash where there is none."""
    value = found(numbers, key)
    if value is None:
        return Markup(MISSING)
    return Markup('<data value="{}" data-key="{}">{}</data>').format(repr(value), escape(key), text(value))
