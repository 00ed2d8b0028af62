"""Pictures of what a network looked at: pure functions from tensors to matplotlib figures.

Negative evidence is drawn cold (blue) and positive evidence warm (red), on a scale that is symmetric about zero. With
two classes these are the evidence for class 0 and for class 1. Nothing here touches matplotlib's global state: a figure
is an object that is saved, ``figure.savefig(path)``, and forgotten.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_priors.batch import IMAGE_MEAN, IMAGE_STD, PriorBatch
from lightning_priors.functional.cam import evidence_map, signed_cam, upsample
from lightning_priors.functional.guidance import energy_inside
from lightning_priors.functional.prior_maps import KINDS, PriorKind, prior_map

if TYPE_CHECKING:  # matplotlib takes half a second to import, and most runs never draw
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Colour = tuple[int, int, int]
Pixels = NDArray[np.uint8]

COLD: Colour = (25, 95, 190)
WARM: Colour = (205, 30, 35)
ATTENTION: Colour = (120, 20, 160)
OUTLINE = "#ffe14d"
RIGHT, WRONG, QUIET = "#1a7f37", "#c4161c", "#555555"

SIDE, GAP, MARGIN = 2.2, 0.14, 0.16
"""Inches: the height of a picture, the space between two, the space about all."""
HEADING, ROW_TITLE, FOOT = 0.3, 0.42, 0.52
"""Inches: the line of column names, the two lines above a picture, the colour bar."""


class Evidence(NamedTuple):
    """What a network said about some images, and what it looked at; on the CPU, in float32."""

    logits: Tensor
    """(B, K)."""
    cam: Tensor
    """(B, K, h, w), with ``cam.mean((2, 3)) + b == logits``."""
    further: dict[str, Tensor]
    """Maps of another kind by their name, such as attention; (B, h', w'), zero where nothing was looked at."""


def pictures(image: Tensor) -> Pixels:
    """Undoes the normalisation of a batch.

    Args:
        image: (B, 3, H, W), normalised as `lightning_priors.batch` says.

    Returns:
        (B, H, W, 3) uint8.

    >>> pictures(torch.zeros(1, 3, 1, 1)).tolist()
    [[[[124, 116, 104]]]]
    """
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    image = (image.detach().cpu().float() * std + mean).clamp(0, 1) * 255
    return image.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def tint(
    background: NDArray[np.generic], values: Tensor, scale: float, positive: Colour = WARM, negative: Colour = COLD
) -> Pixels:
    """Lays a map over a picture: one colour for each sign, the more opaque the greater the value.

    Args:
        background: (H, W, 3) in [0, 255].
        values: (H, W) map.
        scale: The size of a value that is drawn at full strength; greater ones look the same.
        positive: Colour of positive values.
        negative: Colour of negative values.

    Returns:
        (H, W, 3) uint8.

    >>> tint(np.full((1, 3, 3), 255), torch.tensor([[-2.0, 0.0, 2.0]]), scale=2.0).tolist()
    [[[71, 127, 203], [255, 255, 255], [215, 75, 79]]]
    """
    values = values.nan_to_num().unsqueeze(-1)  # the picture of a network that has diverged is worth seeing
    strength = (0.8 * (values.abs() / max(scale, 1e-12)).clamp(max=1) ** 0.75).numpy()
    colour = torch.where(values > 0, torch.tensor(positive), torch.tensor(negative)).numpy()
    mixed: Pixels = np.rint(background * (1 - strength) + colour * strength).astype(np.uint8)
    return mixed


def overlay(picture: Pixels, cells: Tensor) -> Pixels:
    """Lays a map over a picture that has lost its own colours; the greatest value is drawn at full strength.

    Args:
        picture: (H, W, 3) uint8.
        cells: (h, w) map, interpolated to the picture's size.

    Returns:
        (H, W, 3) uint8.

    >>> overlay(np.zeros((1, 2, 3), np.uint8), torch.tensor([[0.0, 1.0]])).tolist()
    [[[64, 64, 64], [177, 37, 41]]]
    """
    return tint(_pale(picture), _enlarged(cells, picture), _scale(cells))


def shown_map(evidence: Evidence) -> tuple[Tensor, Tensor]:
    """Chooses the one map per image that is drawn, and the number that it adds up to.

    Returns:
        Maps (B, h, w) and values (B,): for two classes the signed map and the log-odds of class 1, for more the
        predicted class's map and its logit. ``value - map.mean()`` is the bias.

    >>> logits, cam = torch.tensor([[1.0, 4.0]]), torch.tensor([[[[1.0]], [[3.5]]]])
    >>> shown_map(Evidence(logits, cam, {}))
    (tensor([[[2.5000]]]), tensor([3.]))
    """
    logits, cam = evidence.logits, evidence.cam
    if logits.shape[1] == 2:
        return signed_cam(cam), logits[:, 1] - logits[:, 0]
    value, predicted = logits.max(1)
    return cam[torch.arange(len(cam)), predicted], value


def identity_text(cells: Tensor, value: Tensor, meaning: str) -> str:
    r"""Writes down the sum that a map's numbers make, so that it can be checked by eye.

    Args:
        cells: (h, w) map.
        value: () what its mean and the bias add up to.
        meaning: What the value is.

    >>> identity_text(torch.tensor([[-1.0, -2.0]]), torch.tensor(-1.25), "log-odds of other")
    'mean -1.50 + b 0.25 = -1.25\nlog-odds of other'
    """
    mean, total = float(cells.mean()), float(value)
    return f"mean {mean:z.2f} + b {total - mean:z.2f} = {total:z.2f}\n{meaning}"


def inside_share(batch: PriorBatch, evidence: Evidence) -> list[float | None]:
    """Computes for each image the share of the evidence for its label inside the prior, as ``epg`` measures it.

    Returns:
        B shares in [0, 1]; None for an image without an annotation.

    >>> batch = {"image": torch.zeros(1, 3, 1, 2), "label": torch.tensor([1]),
    ...          "mask": torch.tensor([[[1.0, 0.0]]]), "mask_valid": torch.tensor([True])}
    >>> inside_share(batch, Evidence(torch.zeros(1, 2), torch.tensor([[[[0.0, 0.0]], [[3.0, 1.0]]]]), {}))
    [0.75]
    """
    if not any(kind in batch for kind in KINDS):
        return [None] * len(batch["image"])
    size = (batch["image"].shape[2], batch["image"].shape[3])
    prior, valid = prior_map(batch, size)
    share = energy_inside(upsample(evidence_map(evidence.cam, batch["label"]), size), prior)
    return [float(value) if known else None for value, known in zip(share, valid, strict=True)]


def draw_panel(batch: PriorBatch, evidence: Evidence, class_names: Sequence[str]) -> "Figure":
    """Draws a row for each image: the picture with its prior, the evidence over it, further maps, and its numbers.

    All rows share one scale, that of the greatest value.

    Args:
        batch: The images on the CPU; masks, part boxes and keypoints are outlined where the data has them.
        evidence: What the network made of them.
        class_names: K names.

    Returns:
        A figure; the pictures' axes count in pixels, with the first pixel's centre at (0, 0).

    >>> batch = {"image": torch.zeros(1, 3, 8, 8), "label": torch.tensor([0]), "index": torch.tensor([0])}
    >>> figure = draw_panel(batch, Evidence(torch.zeros(1, 2), torch.zeros(1, 2, 2, 2), {}), ["kakapo", "other"])
    >>> [axes.get_label() for axes in figure.axes]
    ['picture 0', 'evidence 0', 'cells 0', 'scale']
    """
    images, (maps, values) = pictures(batch["image"]), shown_map(evidence)
    scale = _scale(maps)
    inside, predicted = inside_share(batch, evidence), evidence.logits.argmax(1)
    headings = ["picture and prior", "evidence", *evidence.further, "evidence, cell by cell"]
    labels = ["picture", "evidence", *evidence.further, "cells"]
    figure, axes = _grid(len(images), labels, headings, images.shape[1:3])
    for row, image in enumerate(images):
        first, second, *others, last = axes[row]
        _show(first, image, batch, row, everything=True)
        _name(first, batch, evidence, row, class_names)
        _show(second, tint(_pale(image), _enlarged(maps[row], image), scale), batch, row)
        _title(second, "\n" + _inside_text(inside[row]), QUIET)
        for axis, further in zip(others, evidence.further.values(), strict=True):
            cells, top = further[row], _scale(further[row])
            _show(axis, tint(_pale(image), _enlarged(cells, image), top, positive=ATTENTION), batch, row)
            _title(axis, f"\n{float(cells.min()):.2f} to {top:.2f}", QUIET)
        _show_cells(last, maps[row], scale)
        two = len(class_names) == 2
        meaning = (
            f"log-odds of {_short(class_names[1])}" if two else f"logit of {_short(class_names[int(predicted[row])])}"
        )
        _title(last, identity_text(maps[row], values[row], meaning), QUIET)
    _colour_bar(figure, f"-{scale:.3g}", f"{scale:.3g}", class_names)
    return figure


def draw_prediction(picture: Pixels, evidence: Evidence, class_names: Sequence[str]) -> "Figure":
    """Draws a picture of which nobody has told the class, and beside it the evidence over it.

    Args:
        picture: (H, W, 3) uint8, in its own size.
        evidence: What the network made of it; B = 1.
        class_names: K names.

    Returns:
        A figure; the pictures' axes count in pixels, with the first pixel's centre at (0, 0).

    >>> evidence = Evidence(torch.zeros(1, 2), torch.zeros(1, 2, 2, 3), {})
    >>> figure = draw_prediction(np.zeros((6, 9, 3), np.uint8), evidence, ["kakapo", "other"])
    >>> [axes.get_label() for axes in figure.axes]
    ['picture 0', 'evidence 0', 'scale']
    """
    maps, _ = shown_map(evidence)
    figure, ((first, second),) = _grid(1, ["picture", "evidence"], ["picture", "evidence"], picture.shape[:2])
    probability, predicted = evidence.logits[0].softmax(0).max(0)
    _show(first, picture)
    _title(first, f"\n{_short(class_names[int(predicted)])} {float(probability):.2f}", "black", bold=True)
    _show(second, overlay(picture, maps[0]))
    _colour_bar(figure, "strongest", "strongest", class_names)
    return figure


def draw_comparison(batch: PriorBatch, evidence: Mapping[str, Evidence], class_names: Sequence[str]) -> "Figure":
    """Draws side by side what several networks looked at in the same images; one row for each image.

    Networks differ in the size of their evidence, not only in its place, so each has its own scale.

    Args:
        batch: The images on the CPU; masks, part boxes and keypoints are outlined where the data has them.
        evidence: What each network made of them, by the network's name.
        class_names: K names.

    Returns:
        A figure; the pictures' axes count in pixels, with the first pixel's centre at (0, 0).

    >>> batch = {"image": torch.zeros(1, 3, 8, 8), "label": torch.tensor([0]), "index": torch.tensor([0])}
    >>> nothing = Evidence(torch.zeros(1, 2), torch.zeros(1, 2, 2, 2), {})
    >>> figure = draw_comparison(batch, {"plain": nothing, "restricted": nothing}, ["kakapo", "other"])
    >>> [axes.get_label() for axes in figure.axes]
    ['picture 0', 'plain 0', 'restricted 0', 'scale']
    """
    images = pictures(batch["image"])
    figure, axes = _grid(len(images), ["picture", *evidence], ["picture and prior", *evidence], images.shape[1:3])
    for row, image in enumerate(images):
        _show(axes[row][0], image, batch, row, everything=True)
        _title(axes[row][0], "\n" + _short(class_names[int(batch["label"][row])]), "black", bold=True)
    for column, each in enumerate(evidence.values(), start=1):
        maps, inside = shown_map(each)[0], inside_share(batch, each)
        for row, image in enumerate(images):
            axis = axes[row][column]
            colours = tint(_pale(image), _enlarged(maps[row], image), _scale(maps))
            _show(axis, colours, batch, row)
            text, right = _prediction(batch, each, row, class_names)
            _title(axis, f"{text}\n", RIGHT if right else WRONG, bold=True)
            _title(axis, "\n" + _inside_text(inside[row]), QUIET)
    _colour_bar(figure, "strongest", "strongest", class_names)
    return figure


def draw_priors(rows: Mapping[str, PriorBatch], class_names: Sequence[str]) -> "Figure":
    """Draws pictures with all their annotations, as the training sees them; one row for each way to transform them.

    Args:
        rows: Batches of the same pictures, by what was done with them.
        class_names: One name per class.

    Returns:
        A figure.

    >>> batch = {"image": torch.zeros(2, 3, 8, 8), "label": torch.tensor([0, 1])}
    >>> figure = draw_priors({"as they are": batch, "augmented": batch}, ["kakapo", "other"])
    >>> [axes.get_label() for axes in figure.axes]
    ['0 0', '1 0', '0 1', '1 1']
    """
    first = next(iter(rows.values()))
    names = [_short(class_names[int(label)]) for label in first["label"]]
    columns = [str(number) for number in range(len(names))]
    figure, axes = _grid(len(rows), columns, names, first["image"].shape[2:])
    for row, (name, batch) in enumerate(rows.items()):
        for column, image in enumerate(pictures(batch["image"])):
            _show(axes[row][column], image, batch, column, everything=True)
        _title(axes[row][0], f"\n{name}", QUIET)
    return figure


def _grid(
    rows: int, labels: Sequence[str], headings: Sequence[str], image_size: Sequence[int]
) -> tuple["Figure", list[list["Axes"]]]:
    """An empty figure with one pair of axes for each row and column, all of a picture's shape."""
    from matplotlib.figure import Figure

    width = SIDE * image_size[1] / image_size[0]
    total_width = 2 * MARGIN + len(labels) * width + (len(labels) - 1) * GAP
    total_height = HEADING + rows * (ROW_TITLE + SIDE) + FOOT
    figure = Figure(figsize=(total_width, total_height), dpi=120, facecolor="white")
    left = [MARGIN + column * (width + GAP) for column in range(len(labels))]
    for x, heading in zip(left, headings, strict=True):
        y = 1 - 0.08 / total_height
        figure.text(x / total_width, y, heading, fontsize=9.5, va="top", color="black", parse_math=False)
    axes = []
    for row in range(rows):
        bottom = total_height - HEADING - (row + 1) * (ROW_TITLE + SIDE)
        boxes = [(x / total_width, bottom / total_height, width / total_width, SIDE / total_height) for x in left]
        axes.append([figure.add_axes(box, label=f"{name} {row}") for box, name in zip(boxes, labels, strict=True)])
    return figure, axes


def _show(
    axes: "Axes", pixels: Pixels, batch: PriorBatch | None = None, row: int = 0, everything: bool = False
) -> None:
    """Shows a picture with the outlines of all annotations that it has, or of the one that makes its prior map."""
    height, across = pixels.shape[:2]
    axes.set_axis_off()
    axes.imshow(pixels, interpolation="bilinear")
    kinds = [kind for kind in KINDS if batch is not None and kind in batch]
    for kind in kinds if everything else kinds[:1]:
        assert batch is not None
        _outline(axes, batch, row, kind, width=1.4 if everything else 0.9)
    axes.set_xlim(-0.5, across - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def _outline(axes: "Axes", batch: PriorBatch, row: int, kind: PriorKind, width: float) -> None:
    """Draws the outline of one kind of annotation; nothing for an image that has none."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import AbstractPathEffect, withStroke

    halo: list[AbstractPathEffect] = [withStroke(linewidth=2.2 * width, foreground=(0, 0, 0, 0.55))]
    if kind == "mask" and batch["mask_valid"][row] and batch["mask"][row].max() > 0.5:
        # a frame of zeros closes the outline of a target that the picture's edge cuts
        padded = np.pad(batch["mask"][row].float().numpy(), 1)
        height, across = padded.shape
        x, y = np.arange(across) - 1, np.arange(height) - 1
        axes.contour(x, y, padded, [0.5], colors=OUTLINE, linewidths=width).set_path_effects(halo)
    elif kind == "part_boxes":
        for x1, y1, x2, y2 in batch["part_boxes"][row][batch["part_valid"][row]].tolist():
            corner = (x1 - 0.5, y1 - 0.5)  # boxes count from the picture's edge, axes from the first pixel's centre
            box = Rectangle(corner, x2 - x1, y2 - y1, fill=False, edgecolor=OUTLINE, linewidth=width)
            box.set_path_effects(halo)
            axes.add_patch(box)
    elif kind == "keypoints" and batch["keypoint_valid"][row].any():
        x, y = (batch["keypoints"][row][batch["keypoint_valid"][row]] - 0.5).T.numpy()
        axes.plot(x, y, "o", mfc="none", mec=OUTLINE, mew=width, ms=6, path_effects=halo)


def _show_cells(axes: "Axes", cells: Tensor, scale: float) -> None:
    """Shows a map as a matrix: each cell in its colour, with its number."""
    axes.set_axis_off()
    axes.imshow(tint(np.full((*cells.shape, 3), 255), cells, scale), aspect="auto")
    decimals = 2 if scale < 10 and max(cells.shape) <= 8 else 1 if scale < 100 else 0
    texts = [[f"{value:z.{decimals}f}" for value in row] for row in cells.tolist()]
    longest = max(len(text) for row in texts for text in row)
    size = min(9.0, 72 * SIDE / max(cells.shape) * 1.45 / max(longest, 3))
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            strong = abs(float(cells[row, column])) > 0.6 * scale
            axes.text(
                column, row, text, ha="center", va="center", fontsize=size, color="white" if strong else "#222222"
            )


def _colour_bar(figure: "Figure", least: str, greatest: str, class_names: Sequence[str]) -> None:
    """A line at the foot that says which colour speaks for what."""
    width, height = figure.get_size_inches()
    long = min(2.6, 0.3 * width)
    axes = figure.add_axes((0.5 - long / 2 / width, 0.26 / height, long / width, 0.1 / height), label="scale")
    axes.imshow(tint(np.full((1, 201, 3), 255), torch.linspace(-1, 1, 201).unsqueeze(0), scale=1.0), aspect="auto")
    axes.set_yticks([])
    axes.set_xticks([0, 100, 200], [least, "0", greatest], fontsize=7)
    axes.tick_params(length=2, pad=2)
    if len(class_names) == 2:
        cold, warm = (f"evidence for {_short(name)}" for name in class_names)
    else:
        cold, warm = "against the prediction", "for the prediction"
    for text, x, shift, side, colour in ((cold, 0, -7, "right", COLD), (warm, 1, 7, "left", WARM)):
        axes.annotate(
            text, (x, 0.5), xycoords="axes fraction", xytext=(shift, 0), textcoords="offset points", ha=side,
            va="center", fontsize=8.5, color=tuple(value / 255 for value in colour), parse_math=False,
        )  # fmt: skip


def _name(axes: "Axes", batch: PriorBatch, evidence: Evidence, row: int, class_names: Sequence[str]) -> None:
    """The true class, and below it the predicted one."""
    text, right = _prediction(batch, evidence, row, class_names)
    _title(axes, _short(class_names[int(batch["label"][row])]) + "\n", "black", bold=True)
    _title(axes, f"\npredicted {text}", RIGHT if right else WRONG)


def _prediction(batch: PriorBatch, evidence: Evidence, row: int, class_names: Sequence[str]) -> tuple[str, bool]:
    """The predicted class with its probability, and whether it is right."""
    probability, predicted = evidence.logits[row].softmax(0).max(0)
    return f"{_short(class_names[int(predicted)])} {float(probability):.2f}", bool(predicted == batch["label"][row])


def _title(axes: "Axes", lines: str, colour: str, bold: bool = False) -> None:
    """Two lines above a picture, flush left; class names may hold characters that mean mathematics to matplotlib."""
    axes.annotate(
        lines, (0, 1), xycoords="axes fraction", xytext=(0, 3), textcoords="offset points", va="bottom",
        fontsize=8, color=colour, fontweight="bold" if bold else "normal", linespacing=1.2, parse_math=False,
    )  # fmt: skip


def _inside_text(share: float | None) -> str:
    return "no prior" if share is None else f"true class: {100 * share:.0f} % inside the prior"


def _pale(image: Pixels) -> NDArray[np.float64]:
    """A picture without its own colours, which would mix with those of the evidence, and somewhat lighter."""
    grey = image @ np.array([0.299, 0.587, 0.114])
    return np.repeat(0.75 * grey[..., None] + 0.25 * 255, 3, axis=2)


def _enlarged(cells: Tensor, image: Pixels) -> Tensor:
    """A map (h, w) at the size of a picture."""
    return upsample(cells.unsqueeze(0), (image.shape[0], image.shape[1]))[0]


def _scale(maps: Tensor) -> float:
    """The size of the greatest value."""
    return float(maps.nan_to_num().abs().amax())


def _short(name: str) -> str:
    """A class name that fits above a picture."""
    return name if len(name) <= 18 else name[:17] + "…"
