"""Polygons and colours from which the pictures of `Kakapo` are made; no pixels.

Every outline is a closed polygon, (N, 2) float, x to the right and y down.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Outline = NDArray[np.float64]
Colour = tuple[int, int, int]
TINT = (12.0, 4.0, 4.0, 4.0)
"""Standard deviation between individuals of brightness, red, green and blue."""


class Patch(NamedTuple):
    """One filled polygon; a bird is a list of them, painted in order."""

    outline: Outline
    colour: Colour


def polygon(*points: tuple[float, float]) -> Outline:
    """A polygon with these corners, (N, 2).

    >>> polygon((0, 0), (1, 0), (0, 1)).shape
    (3, 2)
    """
    return np.asarray(points, dtype=np.float64)


def rounded(*points: tuple[float, float]) -> Outline:
    """Cuts the corners of a closed polygon twice (Chaikin), so that a few points make a smooth outline.

    Args:
        points: The N corners, xy.

    Returns:
        The outline, (4 N, 2).

    >>> rounded((0, 0), (1, 0), (1, 1), (0, 1)).shape
    (16, 2)
    """
    outline = np.asarray(points, dtype=np.float64)
    for _ in range(2):
        following = np.roll(outline, -1, axis=0)
        outline = np.stack((0.75 * outline + 0.25 * following, 0.25 * outline + 0.75 * following), axis=1)
        outline = outline.reshape(-1, 2)
    return outline


def oval(x: float, y: float, width: float, height: float, corners: int = 20) -> Outline:
    """An ellipse as a polygon.

    Args:
        x: Centre.
        y: Centre.
        width: Half axis along x.
        height: Half axis along y.
        corners: Number N of points.

    Returns:
        The outline, (N, 2).

    >>> oval(0.0, 0.0, 2.0, 1.0, corners=4).round().tolist()
    [[2.0, 0.0], [0.0, 1.0], [-2.0, 0.0], [-0.0, -1.0]]
    """
    angle = np.linspace(0.0, 2.0 * np.pi, corners, endpoint=False)
    return np.stack((x + width * np.cos(angle), y + height * np.sin(angle)), axis=1)


def turned(outline: Outline, angle: float) -> Outline:
    """Rotates around the origin.

    Args:
        outline: (N, 2).
        angle: Radians; positive is clockwise, as y points down.

    Returns:
        (N, 2).

    >>> turned(np.array([[1.0, 0.0]]), np.pi / 2).round().tolist()
    [[0.0, 1.0]]
    """
    cosine, sine = math.cos(angle), math.sin(angle)
    rotated: Outline = outline @ np.array(((cosine, sine), (-sine, cosine)))
    return rotated


def scattered(outline: Outline, scale: Outline, angle: Outline, centre: Outline) -> Outline:
    """Many copies of one outline.

    Args:
        outline: (N, 2).
        scale: (M,), size of each copy.
        angle: (M,), its turn in radians.
        centre: (M, 2), its place.

    Returns:
        (M, N, 2).

    >>> copies = scattered(np.array([[1.0, 0.0]]), np.array([2.0]), np.array([np.pi / 2]), np.array([[5.0, 5.0]]))
    >>> copies.round().tolist()
    [[[5.0, 7.0]]]
    """
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    rotation = np.stack((cosine, sine, -sine, cosine), axis=1).reshape(-1, 2, 2)
    copies: Outline = outline @ rotation + centre[:, None]
    return copies


def tinted(colour: Colour, rng: np.random.Generator) -> Colour:
    """The colour of one individual: brightness and each channel shifted a little.

    Args:
        colour: Red, green, blue in [0, 255].
        rng: Source of the shift.

    Returns:
        Red, green, blue in [0, 255].

    >>> tinted((0, 128, 255), np.random.default_rng(0)) == (0, 128, 255)
    False
    """
    brightness, *channels = rng.normal(0.0, TINT).tolist()
    red, green, blue = (min(max(round(c + brightness + d), 0), 255) for c, d in zip(colour, channels, strict=True))
    return red, green, blue
