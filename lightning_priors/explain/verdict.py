"""The one sentence on top of the page."""

from collections.abc import Mapping
from typing import Any


def verdict(run: Mapping[str, Any]) -> str:
    """Says in plain English where a classifier looks and whom it fails.

    Args:
        run: The numbers of `lightning_priors.explain.report.report`.

    >>> numbers = {"accuracy": 0.8, "worst_class": {"name": "owl", "accuracy": 0.6, "images": 5}, "worst_group": None,
    ...            "evidence": {"pointing_game": 0.41, "epg": 0.3, "covered": 0.2}, "backgrounds": None}
    >>> verdict(numbers)
    'It is right in 80 % of the pictures, looks at the target in 41 % of them, and fails owl most: 60 % right.'
    """
    parts = [f"It is right in {_percent(run['accuracy'])} of the pictures"]
    if run["evidence"]:
        parts.append(f"looks at the target in {_percent(run['evidence']['pointing_game'])} of them")
    worst = run["worst_group"] or run["worst_class"]
    if worst and worst["accuracy"] < 1:
        parts.append(f"fails {worst['name']} most: {_percent(worst['accuracy'])} right")
    line = f"{', '.join(parts[:-1])}, and {parts[-1]}" if len(parts) > 1 else parts[0]
    return f"{line}.{_on_backgrounds(run['backgrounds'])}"


def _on_backgrounds(backgrounds: Mapping[str, Any] | None) -> str:
    if not backgrounds:
        return ""
    changed, right = _percent(backgrounds["changed"]), _percent(backgrounds["exchanged"]["accuracy"])
    return f" Before the backgrounds of other pictures {changed} of its answers change, and {right} are right."


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
