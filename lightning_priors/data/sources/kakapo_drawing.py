"""The pictures of `Kakapo`, drawn in layers: background, mist, bird, twigs, light and noise.

All coordinates are in the unit square, and polygons are filled at three times the size of the picture and then
reduced. So a scene looks the same at every size, except for its noise.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lightning_priors.data.sources.kakapo_birds import Bird, Species, hatch
from lightning_priors.data.sources.kakapo_shapes import Colour, Patch, oval, scattered, tinted, turned

Pixels = NDArray[np.float32]
Streams = tuple[np.random.Generator, np.random.Generator, np.random.Generator]
SUPERSAMPLING = 3
MIST = 0.9
"""Opacity of the mist around a bird, which hides the background along the bird's outline."""
MIST_END = 1.4
"""Distance at which the mist ends, in half sides of the box around the bird; it fades from 1 on."""
_MIST_COLOURS: tuple[Colour, ...] = ((176, 178, 176), (150, 140, 128), (196, 200, 206), (206, 196, 176))
NOISE = 4.0
"""Standard deviation of the noise; grey levels reach to 255."""
PLACES = (("forest", "grass"), ("sky", "water"))
"""The kinds of background on land (place 0, where kakapos live) and in the open (place 1)."""


class Layers(NamedTuple):
    """The layers of a picture of S x S pixels, with values in [0, 255]."""

    ground: Pixels
    """(S, S, 3), the background with the mist around the bird."""
    bird: Pixels
    """(S, S, 4), colour times opacity, and opacity."""
    front: Pixels
    """(S, S, 4), twigs and leaves before the bird, in the form of `bird`."""
    light: Pixels
    """(S, S, 3), factors of the brightness."""
    noise: Pixels
    """(S, S, 3), which is added last."""


class Picture(NamedTuple):
    """One picture and its annotation."""

    pixels: NDArray[np.uint8]
    """(S, S, 4): red, green, blue, and the visible bird's part of the pixel, 255 = all of it."""
    head_box: NDArray[np.float32]
    """(4,), x0, y0, x1, y1 in pixels."""
    keypoints: NDArray[np.float32]
    """(3, 2), x, y in pixels: tip of the beak, eye, crown."""
    keypoint_seen: NDArray[np.bool_]
    """(3,), false if a twig hides the point."""


def paint(patches: Iterable[Patch], size: int) -> Pixels:
    """Fills polygons on a transparent layer.

    Args:
        patches: Polygons in the unit square, in the order of painting.
        size: Height and width S of the layer in pixels.

    Returns:
        (S, S, 4) in [0, 255]: colour times opacity, and opacity.

    >>> left_half = np.array(((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)))
    >>> paint([Patch(left_half, (200, 100, 0))], size=4)[0, :, 3].tolist()
    [255.0, 255.0, 0.0, 0.0]
    """
    # "RGBa" has colour times opacity, so that `reduce` weighs each colour by the part of the pixel that it covers
    canvas = Image.new("RGBa", (size * SUPERSAMPLING,) * 2)
    draw = ImageDraw.Draw(canvas)
    for outline, colour in patches:
        corners = outline * (size * SUPERSAMPLING) - 0.5  # Pillow counts from the centre of a pixel
        draw.polygon(corners.ravel().tolist(), fill=(*colour, 255))
    return np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float32)


def _blotches(rng: np.random.Generator, size: int, rows: int, columns: int) -> Pixels:
    """Draws smooth noise (S, S, 1), about normal, by enlarging a small random grid."""
    grid = Image.fromarray(rng.normal(0.0, 1.0, (rows, columns)).astype(np.float32))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))[..., None]


def _downwards(top: Colour, bottom: Colour, size: int) -> Pixels:
    """Draws a vertical gradient from one colour to another, (S, S, 3)."""
    share = np.linspace(0.0, 1.0, size, dtype=np.float32)[:, None, None]
    colours = (1.0 - share) * np.array(top, dtype=np.float32) + share * np.array(bottom, dtype=np.float32)
    return np.repeat(colours, size, axis=1)


def _slivers(
    rng: np.random.Generator, count: int, shape: tuple[float, float], angles: tuple[float, float], colours: list[Colour]
) -> list[Patch]:
    """Draws narrow ovals all over the picture: leaves, blades of grass, glints.

    Args:
        rng: Source of all randomness.
        count: Number of ovals.
        shape: Largest half length and half width.
        angles: Smallest and largest direction in radians.
        colours: The possible colours.
    """
    scales, turns, centres = rng.uniform(0.5, 1.0, count), rng.uniform(*angles, count), rng.random((count, 2))
    slivers = scattered(oval(0.0, 0.0, shape[0], shape[1], 8), scales, turns, centres)
    chosen = rng.integers(len(colours), size=count).tolist()
    return [Patch(sliver, colours[colour]) for sliver, colour in zip(slivers, chosen, strict=True)]


def _over(ground: Pixels, layer: Pixels) -> Pixels:
    """Puts a layer (S, S, 4) with opacity over an opaque one (S, S, 3)."""
    covered: Pixels = ground * (1.0 - layer[..., 3:] / 255.0) + layer[..., :3]
    return covered


def _forest(rng: np.random.Generator, size: int) -> Pixels:
    """Draws brown earth with dead leaves and a few green ones."""
    ground = _downwards(tinted((70, 56, 40), rng), tinted((104, 78, 52), rng), size)
    ground = ground * (1.0 + 0.14 * _blotches(rng, size, 5, 5) + 0.12 * _blotches(rng, size, 18, 18))
    leaves: list[Colour] = [(132, 90, 48), (158, 112, 58), (86, 62, 42), (60, 44, 34), (92, 96, 48)]
    return _over(ground, paint(_slivers(rng, 45, (0.075, 0.03), (0.0, np.pi), leaves), size))


def _grass(rng: np.random.Generator, size: int) -> Pixels:
    """Draws grass."""
    ground = _downwards(tinted((110, 150, 66), rng), tinted((72, 112, 44), rng), size)
    ground = ground * (1.0 + 0.1 * _blotches(rng, size, 4, 4) + 0.08 * _blotches(rng, size, 6, 30))
    blades: list[Colour] = [(60, 104, 38), (92, 140, 52), (128, 162, 70), (156, 170, 84)]
    return _over(ground, paint(_slivers(rng, 70, (0.11, 0.012), (1.2, 1.95), blades), size))


def _sky(rng: np.random.Generator, size: int) -> Pixels:
    """Draws a blue sky with clouds."""
    ground = _downwards(tinted((84, 146, 214), rng), tinted((176, 210, 236), rng), size)
    cloud: Pixels = np.clip(0.5 * _blotches(rng, size, 4, 3) + 0.25 * _blotches(rng, size, 9, 6) - 0.1, 0.0, 0.8)
    return ground + (244.0 - ground) * cloud


def _water(rng: np.random.Generator, size: int) -> Pixels:
    """Draws waves with glints."""
    ground = _downwards(tinted((96, 158, 176), rng), tinted((38, 96, 130), rng), size)
    ground = ground * (1.0 + 0.1 * _blotches(rng, size, 26, 4) + 0.06 * _blotches(rng, size, 5, 3))
    glints: list[Colour] = [(176, 214, 222), (58, 120, 150), (214, 234, 236)]
    return _over(ground, paint(_slivers(rng, 26, (0.09, 0.009), (-0.08, 0.08), glints), size))


_GROUNDS = {"forest": _forest, "grass": _grass, "sky": _sky, "water": _water}


_TWIG = oval(0.0, 0.0, 0.6, 0.014, 8)
_LEAF = oval(0.06, 0.0, 0.06, 0.024, 10)
_LEAF_COLOURS: tuple[Colour, ...] = ((98, 124, 60), (150, 118, 60), (128, 132, 134))


def _twigs(rng: np.random.Generator) -> list[Patch]:
    """Draws no, one or two twigs with leaves, anywhere in the picture."""
    patches = []
    for _ in range(rng.integers(0, 3)):
        leaf = tinted(_LEAF_COLOURS[rng.integers(len(_LEAF_COLOURS))], rng)
        sides = np.where(rng.random(5) < 0.5, 0.9, -0.9)
        leaves = scattered(_LEAF, np.ones(5), sides, np.stack((rng.uniform(-0.5, 0.5, 5), np.zeros(5)), axis=1))
        turn, middle = rng.uniform(0.0, np.pi), rng.random(2)
        patches.append(Patch(turned(_TWIG, turn) + middle, tinted((88, 70, 54), rng)))
        patches += [Patch(turned(outline, turn) + middle, leaf) for outline in leaves]
    return patches


def _mist(rng: np.random.Generator, bird: Bird, size: int) -> Pixels:
    """Draws a pale oval around the bird, (S, S, 4); its colour does not depend on the place."""
    points = np.concatenate([patch.outline for patch in bird.body + bird.head])
    low, high = points.min(axis=0), points.max(axis=0)
    centre, reach = (low + high) / 2, (high - low) / 2
    middle = (np.arange(size) + 0.5) / size
    across, down = (middle - centre[0]) / reach[0], (middle - centre[1]) / reach[1]
    distance = np.sqrt(across[None, :] ** 2 + down[:, None] ** 2)
    opacity = (MIST * np.clip((MIST_END - distance) / (MIST_END - 1.0), 0.0, 1.0)).astype(np.float32)[..., None]
    colour = np.array((*tinted(_MIST_COLOURS[rng.integers(len(_MIST_COLOURS))], rng), 255), dtype=np.float32)
    mist: Pixels = opacity * colour
    return mist


def _light(rng: np.random.Generator, size: int) -> Pixels:
    """Draws the light (S, S, 3): bright or dim, warm or cold, weaker to one side."""
    warmth, brightness, slope = rng.normal(0.0, 0.05), rng.uniform(0.7, 1.15), rng.uniform(-0.18, 0.18, 2)
    way = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    fall = brightness + slope[0] * way[:, None, None] + slope[1] * way[None, :, None]
    tint: Pixels = (fall * np.array((1.0 + warmth, 1.0, 1.0 - warmth))).astype(np.float32)
    return tint


def draw_layers(streams: Streams, species: Species, kind: str, size: int) -> tuple[Layers, Bird]:
    """Draws one scene, layer by layer.

    Args:
        streams: Sources of randomness for the background, for the bird and for all else. They are separate so that
            the same bird can stand in another place.
        species: One of `SPECIES`.
        kind: One of `PLACES`: forest, grass, sky or water.
        size: Height and width S in pixels.

    Returns:
        The layers, and the bird with coordinates in the unit square.

    >>> from lightning_priors.data.sources.kakapo_birds import SPECIES
    >>> streams = tuple(np.random.default_rng(stream) for stream in range(3))
    >>> layers, bird = draw_layers(streams, SPECIES[0], "forest", size=32)
    >>> layers.ground.shape, layers.bird.shape
    ((32, 32, 3), (32, 32, 4))
    """
    of_ground, of_bird, of_rest = streams
    bird = hatch(of_bird, species)
    layers = Layers(
        ground=_over(_GROUNDS[kind](of_ground, size), _mist(of_rest, bird, size)),
        bird=paint(bird.body + bird.head, size),
        front=paint(_twigs(of_rest), size),
        light=_light(of_rest, size),
        noise=NOISE * of_rest.standard_normal((size, size, 3), dtype=np.float32),
    )
    return layers, bird


def compose(layers: Layers) -> NDArray[np.uint8]:
    """Puts the layers over each other.

    Args:
        layers: The layers of one scene, S x S pixels.

    Returns:
        (S, S, 4): red, green, blue, and the visible bird's part of the pixel, 255 = all of it.

    >>> grey = np.full((1, 1, 3), 100.0, dtype=np.float32)
    >>> half_white = np.full((1, 1, 4), 127.5, dtype=np.float32)
    >>> nothing = np.zeros((1, 1, 4), dtype=np.float32)
    >>> compose(Layers(grey, half_white, nothing, np.ones_like(grey), np.zeros_like(grey))).tolist()
    [[[178, 178, 178, 128]]]
    """
    scene = _over(_over(layers.ground, layers.bird), layers.front) * layers.light + layers.noise
    visible = layers.bird[..., 3:] * (1.0 - layers.front[..., 3:] / 255.0)
    pixels = np.concatenate((scene, visible), axis=2)
    rounded: NDArray[np.uint8] = np.clip(np.rint(pixels), 0.0, 255.0).astype(np.uint8)
    return rounded


def draw(streams: Streams, species: Species, kind: str, size: int) -> Picture:
    """Draws one picture and annotates it.

    Args:
        streams: Sources of randomness, as for `draw_layers`.
        species: One of `SPECIES`.
        kind: One of `PLACES`: forest, grass, sky or water.
        size: Height and width S in pixels.

    Returns:
        The picture. Its head box includes beak and crest, even if a twig hides them.

    >>> from lightning_priors.data.sources.kakapo_birds import SPECIES
    >>> streams = tuple(np.random.default_rng(stream) for stream in range(3))
    >>> draw(streams, SPECIES[0], "grass", size=32).pixels.shape
    (32, 32, 4)
    """
    layers, bird = draw_layers(streams, species, kind, size)
    points = np.concatenate([patch.outline for patch in bird.head]) * size
    margin = 1.0 / SUPERSAMPLING  # a polygon also fills the pixels that its edge touches, before the reduction
    box = np.clip(np.concatenate((points.min(axis=0) - margin, points.max(axis=0) + margin)), 0.0, size)
    columns, rows = np.clip(bird.keypoints * size, 0, size - 1).astype(np.int64).T
    return Picture(
        pixels=compose(layers),
        head_box=box.astype(np.float32),
        keypoints=(bird.keypoints * size).astype(np.float32),
        keypoint_seen=layers.front[rows, columns, 3] < 127.5,
    )
