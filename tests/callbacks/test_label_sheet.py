"""The sheet of the images most typical of each generated class."""

import numpy as np
import torch

from lightning_priors.callbacks import draw_label_sheet
from lightning_priors.callbacks.label_sheet import GAP, HEADING, THUMBNAIL
from lightning_priors.metrics import Typical


def filled(values):
    """Typical images of one brightness each, in units of the normalisation."""
    image = torch.tensor(values)[:, None, None, None].expand(len(values), 3, THUMBNAIL, THUMBNAIL)
    return Typical([1.0] * len(values), list(range(len(values))), image)


def test_each_image_lies_in_the_row_of_its_class_in_order():
    typical = [filled([-2.0, 2.0]), filled([]), filled([0.0])]
    figure = draw_label_sheet(typical, [0.7, 0.3, 1.0], [2, 1], ["$kakapo$", "other"])
    (axes,) = figure.axes
    sheet = axes.images[0].get_array()
    step = THUMBNAIL + GAP
    tops = [HEADING, HEADING + step, 2 * (HEADING + step)]

    def brightness(row, column):
        patch = sheet[tops[row] : tops[row] + THUMBNAIL, column * step : column * step + THUMBNAIL]
        assert np.ptp(patch, axis=(0, 1)).max() == 0, "one picture fills its place"
        return int(patch[0, 0].sum())

    assert brightness(0, 0) < brightness(2, 0) < brightness(0, 1)
    assert brightness(1, 0) == brightness(2, 1) == 3 * 255, "no image, white paper"
    heights = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert list(heights) == ["$kakapo$", "1 of 2: 70 %", "2 of 2: 30 %", "other", "1 of 1: 100 %"]
    for row, text in enumerate(["1 of 2: 70 %", "2 of 2: 30 %", "1 of 1: 100 %"]):
        assert tops[row] < heights[text] < tops[row] + THUMBNAIL


def test_a_hundred_classes_are_drawn(tmp_path):
    path = tmp_path / "sheet.png"
    names = [f"class {number}" for number in range(20)]
    draw_label_sheet([filled([0.0] * 8)] * 100, [0.2] * 100, [5] * 20, names).savefig(path)
    assert path.stat().st_size > 10_000
