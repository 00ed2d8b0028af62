"""Charts of the page, as SVG that takes the page's colours."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 340, 220, 40, 34, 18
RIGHT = 22  # room for half of the last number


def reliability(bins: Sequence[Mapping[str, Any]]) -> str:
    """Draws the accuracy of answers by how probable they were said to be; on the diagonal both agree.

    Args:
        bins: With ``from``, ``to``, ``images`` and ``accuracy``.

    Returns:
        An SVG element.

    >>> "<rect" in reliability([{"from": 0.5, "to": 1.0, "images": 3, "accuracy": 0.7}])
    True
    """
    bars = "".join(
        f'<rect class="bar" x="{_x(each["from"]) + 1:.1f}" y="{_y(each["accuracy"]):.1f}" '
        f'width="{_x(each["to"]) - _x(each["from"]) - 2:.1f}" height="{_y(0) - _y(each["accuracy"]):.1f}">'
        f"<title>{each['images']} images said with {each['from']:.0%} to {each['to']:.0%}: "
        f"{each['accuracy']:.0%} right</title></rect>"
        for each in bins
    )
    diagonal = f'<path class="diagonal" d="M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}"/>'
    return _chart(bars + diagonal, "Accuracy by confidence", "probability of the answer", "share that is right")


def histogram(counts: Mapping[str, Sequence[int]]) -> str:
    """Draws how many images have how much of the evidence inside the prior, right and wrong answers apart.

    Args:
        counts: By ``right`` and ``wrong`` the numbers of images, in bins of the same width.

    Returns:
        An SVG element. Each kind is drawn as a share of all of its images, so that few mistakes are seen too.

    >>> histogram({"right": [1, 3], "wrong": [0, 0]}).count("<rect")
    4
    """
    shares = {name: [count / max(sum(each), 1) for count in each] for name, each in counts.items()}
    greatest = max((share for each in shares.values() for share in each), default=1) or 1
    bars = ""
    for number, (name, each) in enumerate(shares.items()):
        for place, share in enumerate(each):
            wide = (_x(1) - _x(0)) / len(each)
            top = _y(share / greatest)
            bars += (
                f'<rect class="{escape(name)}" x="{_x(0) + place * wide + 1 + number * (wide / 2 - 1):.1f}" '
                f'y="{top:.1f}" width="{wide / 2 - 1:.1f}" height="{_y(0) - top:.1f}">'
                f"<title>{counts[name][place]} {escape(name)} answers</title></rect>"
            )
    return _chart(bars, "Evidence inside the prior", "share of the evidence inside the prior", "images", scale=greatest)


def _chart(inside: str, title: str, x_label: str, y_label: str, scale: float = 1.0) -> str:
    """The axes about bars."""
    ticks = "".join(
        f'<text x="{_x(value):.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{value:.0%}</text>'
        f'<text x="{LEFT - 4}" y="{_y(value) + 4:.1f}" text-anchor="end">{value * scale:.0%}</text>'
        f'<path class="grid" d="M{LEFT} {_y(value):.1f}H{WIDTH - RIGHT}"/>'
        for value in (0, 0.5, 1)
    )
    names = (
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text x="0" y="11">{escape(y_label)}</text>'
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
        f"{ticks}{inside}{names}</svg>"
    )


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP - 6)
