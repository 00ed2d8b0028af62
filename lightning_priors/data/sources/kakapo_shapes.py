"""Polygons and colours, of which the pictures of `Kakapo` consist.

An outline is a closed polygon, (N, 2) float, with x to the right and y down.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Outline = NDArray[np.float64]
Colour = tuple[int, int, int]
TINT = (12.0, 4.0, 4.0, 4.0)
"""Standard deviation of brightness, red, green and blue between birds of one plumage."""


class Patch(NamedTuple):
    """One filled polygon."""

    outline: Outline
    colour: Colour


def polygon(*points: tuple[float, float]) -> Outline:
    """Makes an outline (N, 2) of its N corners x, y.

    >>> polygon((0, 0), (1, 0), (0, 1)).shape
    (3, 2)
    """
    return np.asarray(points, dtype=np.float64)


def rounded(*points: tuple[float, float]) -> Outline:
    """Makes a smooth outline of a few points by cutting its corners twice (Chaikin's algorithm).

    Args:
        points: The N corners x, y.

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
    """Makes an ellipse as a polygon.

    Args:
        x: x of the centre.
        y: y of the centre.
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
    """Rotates an outline around the origin.

    Args:
        outline: (N, 2).
        angle: Angle in radians; positive is clockwise, as y points down.

    Returns:
        (N, 2).

    >>> turned(np.array([[1.0, 0.0]]), np.pi / 2).round().tolist()
    [[0.0, 1.0]]
    """
    cosine, sine = math.cos(angle), math.sin(angle)
    rotated: Outline = outline @ np.array(((cosine, sine), (-sine, cosine)))
    return rotated


def scattered(outline: Outline, scale: Outline, angle: Outline, centre: Outline) -> Outline:
    """Copies an outline to several places.

    Args:
        outline: (N, 2).
        scale: (M,), factor of the size of each copy.
        angle: (M,), rotation of each copy in radians.
        centre: (M, 2), centre of each copy.

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
    """Varies a colour: shifts its brightness and each of its channels a little.

    Args:
        colour: Red, green, blue in [0, 255].
        rng: Source of all randomness.

    Returns:
        Red, green, blue in [0, 255].

    >>> tinted((0, 128, 255), np.random.default_rng(0)) == (0, 128, 255)
    False
    """
    brightness, *channels = rng.normal(0.0, TINT).tolist()
    red, green, blue = (min(max(round(c + brightness + d), 0), 255) for c, d in zip(colour, channels, strict=True))
    return red, green, blue
