"""A contact sheet of generated classes: the images most typical of each."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_priors.callbacks.drawing import QUIET, Pixels, pictures
from lightning_priors.metrics import Typical

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THUMBNAIL, GAP, HEADING = 48, 4, 22
"""Pixels of the sheet: the side of an image, the space between two, the line above a primary class's rows."""
NAME_WIDTH = 130
"""Pixels of the sheet for the text beside a row."""


def draw_label_sheet(
    typical: Sequence[Typical], shares: Sequence[float], sub_classes: Sequence[int], class_names: Sequence[str]
) -> "Figure":
    """Draws a row of images for each generated class, most typical first, grouped by primary class.

    Args:
        typical: The images of each of the A generated classes, `THUMBNAIL` pixels wide.
        shares: A numbers, the share of its primary class's images that each generated class has.
        sub_classes: Number of sub-classes psi of each of the C primary classes.
        class_names: C names.

    Returns:
        A figure with a single pair of axes, which count in pixels of the sheet.

    >>> import torch
    >>> one = Typical([0.9], [7], torch.zeros(1, 3, THUMBNAIL, THUMBNAIL))
    >>> none = Typical([], [], torch.zeros(0, 3, THUMBNAIL, THUMBNAIL))
    >>> figure = draw_label_sheet([one, one, none], [1.0, 0.9, 0.1], [1, 2], ["kakapo", "other"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['kakapo', '1 of 1: 100 %', 'other', '1 of 2: 90 %', '2 of 2: 10 %']
    """
    from matplotlib.figure import Figure

    columns = max(1, *(len(of_class.indices) for of_class in typical))
    step = THUMBNAIL + GAP
    size = len(class_names) * HEADING + len(typical) * step, columns * step
    sheet = np.full((*size, 3), 255, dtype=np.uint8)
    figure = Figure(figsize=((NAME_WIDTH + size[1] + GAP) / 100, (size[0] + GAP) / 100), dpi=100, facecolor="white")
    left = NAME_WIDTH / (NAME_WIDTH + size[1] + GAP)
    axes = figure.add_axes((left, 0, 1 - left, 1))
    top, row = 0, 0
    for name, count in zip(class_names, sub_classes, strict=True):
        axes.text(
            -NAME_WIDTH + GAP, top + HEADING / 2, name, va="center", fontsize=8, fontweight="bold", parse_math=False
        )
        top += HEADING
        for number in range(1, count + 1):
            text = f"{number} of {count}: {100 * shares[row]:.0f} %"
            axes.text(-NAME_WIDTH + 3 * GAP, top + THUMBNAIL / 2, text, va="center", fontsize=7, color=QUIET)
            _lay(sheet, pictures(typical[row].image), top)
            top, row = top + step, row + 1
    axes.imshow(sheet, aspect="auto")
    axes.set_xlim(-0.5, size[1] + GAP - 0.5)
    axes.set_ylim(size[0] + GAP - 0.5, -0.5)
    axes.set_axis_off()
    return figure


def _lay(sheet: Pixels, images: Pixels, top: int) -> None:
    """Lays images (n, S, S, 3) side by side onto a sheet."""
    for column, image in enumerate(images):
        left = column * (THUMBNAIL + GAP)
        sheet[top : top + THUMBNAIL, left : left + THUMBNAIL] = image
