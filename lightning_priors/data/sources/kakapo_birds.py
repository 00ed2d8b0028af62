"""The birds of `Kakapo`, which share a plump body and differ at the head.

Coordinates on a head are in units of its radius, from its centre; the bird looks to the right.
"""

from typing import NamedTuple

import numpy as np

from lightning_priors.data.sources.kakapo_shapes import (
    Colour,
    Outline,
    Patch,
    oval,
    polygon,
    rounded,
    scattered,
    tinted,
    turned,
)


class Species(NamedTuple):
    """The head of one species and its possible plumages."""

    name: str
    plumages: tuple[str, ...]
    head: Outline
    beak: tuple[Patch, ...]
    eye: tuple[Patch, ...]
    markings: tuple[Patch, ...] = ()
    crest: tuple[Patch, ...] = ()


EYE = (0.35, -0.2)
BEAK_BASE = (0.6, 0.0)
EXTENT = (0.6, 0.95)
"""Smallest and largest length of a bird's longer side, as a fraction of the picture."""
SHARED_PLUMAGE = 0.45
"""Fraction of other birds with a plumage of the kakapo, so that green alone does not show a kakapo."""


class Bird(NamedTuple):
    """One bird in the unit square of its picture."""

    body: list[Patch]
    head: list[Patch]
    keypoints: Outline
    """(3, 2): tip of the beak, eye, crown."""


_DARK = (34, 30, 34)


def _round_eye(iris: Colour, ring: Colour | None = None, size: float = 0.17) -> tuple[Patch, ...]:
    """Draws an eye at `EYE`: ring, iris, pupil, glint."""
    x, y = EYE
    patches = [Patch(oval(x, y, 1.75 * size, 1.75 * size), ring)] if ring else []
    patches.append(Patch(oval(x, y, size, size, 14), iris))
    patches.append(Patch(oval(x + 0.02, y, 0.6 * size, 0.6 * size, 10), (18, 16, 20)))
    patches.append(Patch(oval(x + 0.06, y - 0.07, 0.22 * size, 0.22 * size, 6), (250, 250, 250)))
    return tuple(patches)


def _fan() -> tuple[Patch, ...]:
    """Draws the hoopoe's crest: five orange feathers with dark ends."""
    patches = []
    for angle in np.radians((-70.0, -95.0, -120.0, -145.0, -168.0)):
        for distance, colour in ((1.5, _DARK), (1.1, (232, 152, 84))):
            patches.append(Patch(turned(oval(distance, 0.0, 0.46, 0.17, 10), angle), colour))
    return tuple(patches)


def _whiskers() -> tuple[Patch, ...]:
    """Draws the fine dark lines that radiate over the kakapo's face disc."""
    spoke = polygon((0.28, 0.0), (0.66, 0.03), (0.66, -0.03))
    return tuple(Patch(turned(spoke, a) + np.array((0.4, 0.1)), (150, 130, 74)) for a in np.linspace(0.6, 5.8, 11))


# the colours of back, wing and belly
PLUMAGES: dict[str, tuple[Colour, Colour, Colour]] = {
    "moss": ((106, 130, 52), (82, 106, 42), (156, 164, 86)),
    "fern": ((74, 134, 62), (54, 106, 52), (144, 172, 98)),
    "olive": ((124, 122, 58), (98, 96, 46), (172, 162, 98)),
    "tawny": ((152, 114, 68), (118, 84, 50), (204, 174, 126)),
    "umber": ((98, 74, 54), (72, 54, 42), (150, 122, 94)),
    "slate": ((98, 108, 122), (74, 84, 98), (160, 166, 174)),
    "charcoal": ((56, 56, 64), (40, 40, 48), (92, 90, 94)),
    "ivory": ((214, 210, 198), (168, 166, 164), (236, 232, 224)),
}

SPECIES: tuple[Species, ...] = (
    Species(
        name="kakapo",
        plumages=("moss", "moss", "fern", "olive"),
        head=oval(0.0, 0.0, 1.08, 1.04),
        beak=(
            Patch(
                rounded((0.5, -0.08), (0.85, -0.2), (1.2, 0.0), (1.26, 0.35), (1.06, 0.62), (0.96, 0.4), (0.6, 0.46)),
                (158, 156, 150),
            ),
            Patch(polygon((0.62, 0.24), (0.98, 0.3), (0.96, 0.36), (0.62, 0.3)), (98, 96, 92)),
        ),
        eye=_round_eye((60, 44, 30), size=0.15),
        markings=(
            Patch(oval(0.36, 0.1, 0.74, 0.8), (128, 112, 62)),
            Patch(oval(0.4, 0.1, 0.66, 0.72), (206, 190, 128)),
            *_whiskers(),
        ),
    ),
    Species(
        name="parrot",
        plumages=("fern", "moss", "slate"),
        head=oval(0.0, 0.0, 1.0, 1.0),
        beak=(
            Patch(rounded((0.55, 0.2), (1.0, 0.25), (1.1, 0.55), (0.9, 0.72), (0.6, 0.55)), (70, 60, 60)),
            Patch(
                rounded((0.5, -0.4), (0.95, -0.5), (1.42, -0.2), (1.5, 0.4), (1.3, 0.8), (1.16, 0.35), (0.6, 0.3)),
                (214, 78, 44),
            ),
        ),
        eye=_round_eye((230, 180, 60), ring=(240, 236, 226), size=0.15),
    ),
    Species(
        name="owl",
        plumages=("tawny", "umber", "olive"),
        head=oval(0.0, 0.0, 1.08, 1.04),
        beak=(Patch(rounded((0.72, 0.0), (0.95, 0.02), (1.1, 0.3), (0.98, 0.6), (0.84, 0.4)), (66, 58, 50)),),
        eye=_round_eye((244, 150, 30), ring=_DARK, size=0.2),
        markings=(
            Patch(oval(0.36, 0.05, 0.78, 0.84), (84, 64, 48)),
            Patch(oval(0.4, 0.05, 0.66, 0.74), (230, 220, 198)),
        ),
        crest=(
            Patch(polygon((0.55, -0.7), (0.4, -1.6), (0.0, -0.9)), (84, 64, 48)),
            Patch(polygon((-0.3, -0.8), (-0.65, -1.55), (-0.8, -0.55)), (84, 64, 48)),
        ),
    ),
    Species(
        name="gull",
        plumages=("ivory", "slate"),
        head=oval(0.0, 0.0, 1.02, 0.9),
        beak=(
            Patch(
                rounded((0.6, -0.2), (1.3, -0.2), (1.8, -0.04), (1.86, 0.28), (1.6, 0.26), (1.3, 0.3), (0.6, 0.24)),
                (240, 196, 50),
            ),
            Patch(oval(1.5, 0.18, 0.12, 0.1, 8), (206, 40, 36)),
        ),
        eye=_round_eye((244, 236, 190), ring=(206, 60, 40), size=0.12),
    ),
    Species(
        name="duck",
        plumages=("umber", "tawny", "moss"),
        head=oval(0.0, 0.0, 1.02, 0.98),
        beak=(
            Patch(
                rounded((0.55, -0.12), (1.1, 0.0), (1.7, 0.1), (2.1, 0.12), (2.14, 0.4), (1.7, 0.48), (0.6, 0.44)),
                (236, 146, 40),
            ),
            Patch(polygon((0.7, 0.24), (1.95, 0.28), (1.95, 0.34), (0.7, 0.3)), (170, 96, 26)),
        ),
        eye=_round_eye((40, 28, 24), size=0.14),
        markings=(
            Patch(rounded((0.95, -0.32), (0.2, -0.48), (-0.9, -0.3), (-0.8, -0.08), (0.6, -0.02)), (52, 40, 34)),
        ),
    ),
    Species(
        name="crow",
        plumages=("charcoal", "slate", "umber"),
        head=oval(0.0, 0.0, 1.02, 0.94),
        beak=(
            Patch(rounded((0.5, -0.3), (1.1, -0.34), (1.6, -0.1), (1.98, 0.24), (1.2, 0.3), (0.5, 0.36)), (30, 30, 36)),
            Patch(polygon((0.7, 0.06), (1.7, 0.16), (1.7, 0.2), (0.7, 0.11)), (90, 90, 98)),
        ),
        eye=_round_eye((150, 170, 186), size=0.13),
    ),
    Species(
        name="woodpecker",
        plumages=("charcoal", "fern", "ivory"),
        head=oval(0.0, 0.0, 1.0, 0.92),
        beak=(Patch(polygon((0.7, -0.16), (2.2, 0.02), (2.2, 0.1), (0.7, 0.24)), (84, 84, 92)),),
        eye=_round_eye((240, 220, 120), size=0.13),
        markings=(Patch(rounded((0.9, 0.2), (0.2, 0.1), (-0.9, 0.2), (-0.7, 0.5), (0.5, 0.45)), (236, 232, 222)),),
        crest=(
            Patch(
                rounded((0.75, -0.5), (0.3, -1.15), (-0.6, -1.5), (-1.5, -1.1), (-1.0, -0.6), (0.0, -0.55)),
                (210, 34, 34),
            ),
        ),
    ),
    Species(
        name="hoopoe",
        plumages=("tawny", "ivory", "olive"),
        head=oval(0.0, 0.0, 0.98, 0.88),
        beak=(
            Patch(
                rounded((0.6, -0.16), (1.5, -0.1), (2.2, 0.34), (2.36, 0.6), (2.1, 0.46), (1.45, 0.14), (0.6, 0.18)),
                (58, 50, 52),
            ),
        ),
        eye=_round_eye((40, 26, 22), size=0.13),
        crest=_fan(),
    ),
    Species(
        name="heron",
        plumages=("slate", "ivory", "charcoal"),
        head=oval(0.0, 0.0, 1.08, 0.78),
        beak=(Patch(polygon((0.6, -0.22), (2.7, 0.1), (0.6, 0.34)), (226, 174, 56)),),
        eye=_round_eye((246, 216, 60), size=0.13),
        crest=(
            Patch(
                rounded((0.85, -0.5), (0.0, -0.8), (-1.2, -0.75), (-2.4, -0.3), (-1.2, -0.42), (0.0, -0.4)),
                _DARK,
            ),
        ),
    ),
)

_BODY = rounded(
    *((0.52, -0.1), (0.42, -0.44), (0.05, -0.52), (-0.35, -0.38), (-0.62, -0.08), (-0.45, 0.25)),
    *((-0.1, 0.48), (0.28, 0.5), (0.5, 0.25)),
)
_BELLY = rounded((0.46, 0.0), (0.44, 0.28), (0.2, 0.46), (-0.15, 0.44), (-0.4, 0.2), (0.0, 0.2), (0.25, -0.05))
_WING = rounded((0.3, -0.3), (0.02, -0.38), (-0.4, -0.22), (-0.85, 0.06), (-0.35, 0.12), (0.12, 0.16), (0.32, -0.02))
_RAISED_WING = rounded((0.25, -0.2), (0.2, -0.8), (-0.15, -1.35), (-0.6, -1.5), (-0.5, -0.8), (-0.25, -0.2))
_TAIL = rounded((-0.35, -0.22), (-0.8, -0.1), (-1.0, 0.02), (-1.0, 0.2), (-0.75, 0.16), (-0.35, 0.12))
_ROOT_OF_TAIL = -0.35
_FLECK = oval(0.0, 0.0, 1.6, 1.0, 6)


def _moved(patches: list[Patch], angle: float, scale: float, shift: Outline) -> list[Patch]:
    """Rotates, scales and shifts patches."""
    points = turned(np.concatenate([outline for outline, _ in patches]), angle) * scale + shift
    moved, start = [], 0
    for outline, colour in patches:
        moved.append(Patch(points[start : start + len(outline)], colour))
        start += len(outline)
    return moved


def _body(rng: np.random.Generator, colours: tuple[Colour, Colour, Colour], height: float) -> list[Patch]:
    """Draws tail, body, belly, wing and mottles; the body lies along x."""
    back, wing, belly = colours
    shade: Colour = (int(0.62 * wing[0]), int(0.62 * wing[1]), int(0.62 * wing[2]))
    tail = _TAIL.copy()
    tail[:, 0] = _ROOT_OF_TAIL + (tail[:, 0] - _ROOT_OF_TAIL) * rng.uniform(0.5, 1.5)
    patches = [Patch(tail, wing), Patch(_BODY * (1.0, height), back), Patch(_BELLY * (1.0, height), belly)]
    raised = rng.random() < 0.25
    if raised:
        far = turned(_RAISED_WING * (1.0, 0.75), rng.uniform(0.6, 1.1))
        patches.insert(0, Patch(far, shade))
    wing_outline = turned(_RAISED_WING, rng.uniform(0.0, 0.6)) if raised else _WING * (1.0, height)
    patches.append(Patch(wing_outline, wing))
    patches += _mottles(rng, shade, belly, height)
    return patches


def _mottles(rng: np.random.Generator, dark: Colour, light: Colour, height: float) -> list[Patch]:
    """Draws dark and light flecks on back and flank."""
    count = int(rng.integers(6, 48))
    angle, radius = rng.uniform(0.0, 2.0 * np.pi, count), np.sqrt(rng.random(count))
    centres = np.stack((0.42 * radius * np.cos(angle) - 0.04, 0.4 * height * radius * np.sin(angle)), axis=1)
    flecks = scattered(_FLECK, rng.uniform(0.018, 0.042, count), np.zeros(count), centres)
    return [Patch(fleck, light if i % 3 == 0 else dark) for i, fleck in enumerate(flecks)]


def _legs(rng: np.random.Generator, tilt: float, height: float) -> list[Patch]:
    """Draws two legs with toes, which point straight down for any tilt of the body."""
    colour = tinted(((150, 110, 60), (90, 84, 80), (206, 120, 50))[rng.integers(3)], rng)
    length = 0.36 * height + rng.uniform(0.08, 0.3)
    patches = []
    for x in (-0.12, 0.14):
        hip_x, hip_y = turned(np.array(((x, 0.1),)), tilt)[0].tolist()
        foot = hip_y + length
        patches.append(
            Patch(polygon((hip_x, hip_y), (hip_x + 0.05, hip_y), (hip_x + 0.05, foot), (hip_x, foot)), colour)
        )
        patches.append(Patch(polygon((hip_x - 0.05, foot), (hip_x + 0.18, foot), (hip_x, foot - 0.06)), colour))
    return patches


def _head(rng: np.random.Generator, species: Species, crown: Colour) -> tuple[list[Patch], Outline]:
    """Draws the head in its own units; also returns its keypoints (3, 2): tip of the beak, eye, crown."""
    crest_height, beak_length = rng.uniform(0.75, 1.15), rng.uniform(0.85, 1.15)
    beak = [Patch((outline - BEAK_BASE) * (beak_length, 1.0) + BEAK_BASE, colour) for outline, colour in species.beak]
    crest = [Patch(outline * (1.0, crest_height), colour) for outline, colour in species.crest]
    painted = [*crest, Patch(species.head, crown), *species.markings, *beak]
    patches = [Patch(outline, tinted(colour, rng)) for outline, colour in painted] + list(species.eye)
    edge = np.concatenate([outline for outline, _ in beak])
    tip, top = edge[edge[:, 0].argmax()], species.head[species.head[:, 1].argmin()]
    return patches, np.stack((tip, EYE, top))


def _framed(bird: Bird, rng: np.random.Generator) -> Bird:
    """Lets the bird face left or right and places all of it in the unit square."""
    patches = bird.body + bird.head
    lengths = [len(outline) for outline, _ in patches]
    points = np.concatenate([outline for outline, _ in patches] + [bird.keypoints])
    if rng.random() < 0.5:
        points = points * (-1.0, 1.0)
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    scale = rng.uniform(*EXTENT) / extent.max()
    points = (points - low) * scale + rng.random(2) * (1.0 - scale * extent)
    *outlines, keypoints = np.split(points, np.cumsum(lengths))
    framed = [Patch(outline, colour) for outline, (_, colour) in zip(outlines, patches, strict=True)]
    return Bird(framed[: len(bird.body)], framed[len(bird.body) :], keypoints)


def hatch(rng: np.random.Generator, species: Species) -> Bird:
    """Draws one bird of a species with random plumage, pose, size and place.

    Args:
        rng: Source of all randomness.
        species: One of `SPECIES`.

    Returns:
        The patches in the order of painting, body before head, and the keypoints of the head, all in the unit square.

    >>> bird = hatch(np.random.default_rng(0), SPECIES[0])
    >>> bird.keypoints.shape, bool((bird.keypoints >= 0).all() and (bird.keypoints <= 1).all())
    ((3, 2), True)
    """
    shared = rng.random() < SHARED_PLUMAGE
    names = SPECIES[0].plumages if shared else species.plumages
    back, wing, belly = (tinted(colour, rng) for colour in PLUMAGES[names[rng.integers(len(names))]])
    height, tilt = rng.uniform(0.62, 0.95), -np.radians(rng.uniform(5.0, 50.0))
    radius, reach = rng.uniform(0.27, 0.35), rng.uniform(0.08, 0.4)
    lean, nod = -np.radians(rng.uniform(35.0, 90.0)), np.radians(rng.uniform(-22.0, 22.0))
    chest = turned(np.array(((0.3, -0.22 * height),)), tilt)[0]
    centre = chest + reach * np.array((np.cos(lean), np.sin(lean)))
    across = np.array((-np.sin(lean), np.cos(lean)))
    neck = np.stack((chest - 0.24 * across, centre - 0.7 * radius * across, centre + 0.7 * radius * across))
    neck = np.concatenate((neck, (chest + 0.24 * across)[None]))
    body = _moved(_body(rng, (back, wing, belly), height), tilt, 1.0, np.zeros(2))
    head, keypoints = _head(rng, species, tinted(back, rng))
    upright = Bird(
        body=[*_legs(rng, tilt, height), *body, Patch(neck, back)],
        head=_moved(head, nod, radius, centre),
        keypoints=turned(keypoints, nod) * radius + centre,
    )
    return _framed(upright, rng)
