"""The drawn panels say what the numbers say."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import lightning_priors.callbacks
from lightning_priors.batch import IMAGE_MEAN, IMAGE_STD
from lightning_priors.callbacks.drawing import (
    COLD,
    RIGHT,
    WARM,
    WRONG,
    Evidence,
    draw_comparison,
    draw_panel,
    inside_share,
    pictures,
    shown_map,
    tint,
)
from lightning_priors.functional.cam import evidence_map
from lightning_priors.metrics import EnergyPointingGame
from lightning_priors.nn import Classifier

NAMES = ["kakapo", "other bird"]


def make_batch(count: int = 2, size: int = 32, **optional):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(count, 3, size, size, generator=generator)
    return {"image": image, "label": torch.arange(count) % 2, "index": torch.arange(count)} | optional


def with_masks(mask):
    return make_batch(len(mask), mask.shape[1], mask=mask, mask_valid=torch.ones(len(mask), dtype=torch.bool))


def make_evidence(count: int = 2, classes: int = 2, cells: int = 4, further=None) -> Evidence:
    cam = torch.randn(count, classes, cells, cells, generator=torch.Generator().manual_seed(1))
    bias = torch.linspace(-0.5, 0.7, classes)
    return Evidence(cam.mean((2, 3)) + bias, cam, further or {})


def two_sided(left: float, right: float) -> Evidence:
    """One image whose signed map has one value in its left half and one in its right."""
    cam = torch.zeros(1, 2, 2, 2)
    cam[0, 1] = torch.tensor([[left, right], [left, right]])
    return Evidence(cam.mean((2, 3)), cam, {})


def axes_of(figure, label):
    return next(axes for axes in figure.axes if axes.get_label() == label)


def colours(figure, label):
    return axes_of(figure, label).images[0].get_array().astype(int)


def texts(figure, label):
    return [text.get_text() for text in axes_of(figure, label).texts]


def outline(figure, label):
    """The points (n, 2) of the mask's outline."""
    axes = axes_of(figure, label)
    return np.concatenate([path.vertices for collection in axes.collections for path in collection.get_paths()])


def test_pictures_undo_the_normalisation():
    original = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    restored = pictures((original / 255 - mean) / std)
    np.testing.assert_array_equal(restored, original.permute(0, 2, 3, 1).numpy())


def test_pictures_beyond_black_and_white_are_clipped_not_wrapped():
    assert pictures(torch.full((1, 3, 1, 1), 99.0)).tolist() == [[[[255, 255, 255]]]]
    assert pictures(torch.full((1, 3, 1, 1), -99.0)).tolist() == [[[[0, 0, 0]]]]


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_tint_is_blue_where_negative_red_where_positive_and_nothing_at_zero(grey):
    values = torch.linspace(-1, 1, 21).unsqueeze(0)
    red, _, blue = tint(np.full((1, 21, 3), grey), values, scale=1.0)[0].astype(int).T
    assert (blue[:9] > red[:9]).all()
    assert (red[12:] > blue[12:]).all()
    assert red[10] == blue[10] == grey
    excess = blue - red
    assert (np.diff(excess) <= 0).all()  # the stronger the evidence, the stronger the colour


def test_tint_saturates_at_its_scale_and_bears_a_scale_of_zero():
    ground = np.full((1, 2, 3), 200)
    np.testing.assert_array_equal(*tint(ground, torch.tensor([[1.0, 5.0]]), scale=1.0)[0])
    np.testing.assert_array_equal(tint(ground, torch.zeros(1, 2), scale=0.0), ground)


def test_evidence_for_class_0_is_drawn_blue_and_for_class_1_red():
    batch = make_batch(1)
    batch["image"][:, 0] += 2  # a reddish picture must not make the evidence look warm
    shown = colours(draw_panel(batch, two_sided(-3.0, 3.0), NAMES), "evidence 0")
    red, blue = shown[..., 0], shown[..., 2]
    assert (blue[:, :12] > red[:, :12]).all()
    assert (red[:, 20:] > blue[:, 20:]).all()


def test_the_foot_names_the_class_of_each_colour():
    scale = axes_of(draw_panel(make_batch(), make_evidence(), NAMES), "scale")
    left, right = scale.texts
    assert (left.get_text(), right.get_text()) == ("evidence for kakapo", "evidence for other bird")
    assert left.get_color() == tuple(value / 255 for value in COLD)
    assert right.get_color() == tuple(value / 255 for value in WARM)
    many = axes_of(draw_panel(make_batch(), make_evidence(classes=3), ["a", "b", "c"]), "scale")
    assert [text.get_text() for text in many.texts] == ["against the prediction", "for the prediction"]


@pytest.mark.parametrize("classes", [2, 3])
def test_the_sum_in_the_title_is_the_networks_own(classes):
    torch.manual_seed(0)
    network = Classifier(classes).eval()
    with torch.no_grad():
        network.head.bias.copy_(torch.linspace(-1.3, 2.1, classes))
        logits, cam = network(torch.randn(3, 3, 32, 32))
    names, own_bias = ["ant", "bee", "cat"][:classes], network.head.bias.detach()
    figure = draw_panel(make_batch(3), Evidence(logits, cam, {}), names)
    for row in range(3):
        text = texts(figure, f"cells {row}")[-1]
        mean, bias, value = (float(number) for number in re.findall(r"-?\d+\.\d+", text))
        if classes == 2:
            probability = logits[row].softmax(0)[1].double()
            assert value == pytest.approx(float(torch.logit(probability)), abs=6e-3)
            assert bias == pytest.approx(float(own_bias[1] - own_bias[0]), abs=6e-3)
            assert text.endswith("log-odds of bee")
        else:
            predicted = int(logits[row].argmax())
            assert value == pytest.approx(float(logits[row, predicted]), abs=6e-3)
            assert bias == pytest.approx(float(own_bias[predicted]), abs=6e-3)
            assert text.endswith(f"logit of {names[predicted]}")
        assert mean + bias == pytest.approx(value, abs=0.016)  # three rounded numbers
        assert mean == pytest.approx(float(shown_map(Evidence(logits, cam, {}))[0][row].mean()), abs=6e-3)


def test_every_cell_has_its_number():
    evidence = make_evidence(cells=4)
    figure = draw_panel(make_batch(), evidence, NAMES)
    cells = axes_of(figure, "cells 1").texts[:-1]
    written = {text.get_position(): float(text.get_text()) for text in cells}
    assert len(written) == 16
    for (column, row), number in written.items():
        assert number == pytest.approx(float(shown_map(evidence)[0][1, row, column]), abs=5.1e-3)


def test_no_cell_shows_a_negative_zero():
    cam = torch.zeros(1, 2, 2, 2)
    cam[0, 1, 0, 0], cam[0, 1, 0, 1] = 5.0, -1e-4
    assert "-0.00" not in texts(draw_panel(make_batch(1), Evidence(torch.zeros(1, 2), cam, {}), NAMES), "cells 0")


def test_titles_say_true_and_predicted_class_and_whether_it_is_right():
    evidence = Evidence(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.zeros(2, 2, 1, 1), {})
    figure = draw_panel(make_batch(), evidence, NAMES)  # labels 0 and 1, both taken for 0
    assert texts(figure, "picture 0") == ["kakapo\n", "\npredicted kakapo 0.88"]
    assert texts(figure, "picture 1") == ["other bird\n", "\npredicted kakapo 0.88"]
    assert [axes_of(figure, f"picture {row}").texts[1].get_color() for row in range(2)] == [RIGHT, WRONG]


def blob(size: int = 32):
    """A disc with a bay, cut by the picture's left edge."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (((x - 6) ** 2 + (y - 14) ** 2 < 100) & ~((x > 9) & (y > 12) & (y < 17))).float()


@pytest.mark.parametrize("label", ["picture 0", "evidence 0"])
def test_the_outline_runs_along_the_masks_whole_border_and_nowhere_else(label):
    mask = blob()
    points = outline(draw_panel(with_masks(mask.unsqueeze(0)), make_evidence(1), NAMES), label)
    padded = np.pad(mask.numpy(), 1)  # the target ends at the picture's edge too

    def at(x, y):
        return padded[int(y) + 1, int(x) + 1]

    crossings = set()
    for x, y in points.tolist():
        lower, upper = (np.floor(x), np.floor(y)), (np.ceil(x), np.ceil(y))
        assert at(*lower) != at(*upper)  # between a pixel inside and its neighbour outside
        crossings.add((x, y))
    border_pairs = np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()
    assert len(crossings) == border_pairs


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_an_empty_and_a_full_mask_can_be_drawn(fill):
    figure = draw_panel(with_masks(torch.full((1, 8, 8), fill)), make_evidence(1), NAMES)
    assert bool(axes_of(figure, "picture 0").collections) == bool(fill)


def test_a_box_over_the_whole_picture_meets_its_edges_and_a_missing_one_is_not_drawn():
    boxes = torch.tensor([[[0.0, 0.0, 32.0, 32.0], [4.0, 8.0, 20.0, 16.0]], [[1.0, 1.0, 2.0, 2.0]] * 2])
    batch = make_batch(part_boxes=boxes, part_valid=torch.tensor([[True, True], [False, False]]))
    figure = draw_panel(batch, make_evidence(), NAMES)
    axes = axes_of(figure, "picture 0")
    whole, part = axes.patches
    assert whole.get_bbox().extents.tolist() == [-0.5, -0.5, 31.5, 31.5]
    assert (*axes.get_xlim(), *axes.get_ylim()) == (-0.5, 31.5, 31.5, -0.5)
    assert part.get_bbox().extents.tolist() == [3.5, 7.5, 19.5, 15.5]
    assert not axes_of(figure, "picture 1").patches


def test_keypoints_stand_where_they_are_and_missing_ones_nowhere():
    points = torch.tensor([[[3.0, 7.0], [20.0, 10.0]]])
    batch = make_batch(1, keypoints=points, keypoint_valid=torch.tensor([[False, True]]))
    (line,) = axes_of(draw_panel(batch, make_evidence(1), NAMES), "picture 0").lines
    assert line.get_xydata().tolist() == [[19.5, 9.5]]


def test_over_the_evidence_stands_only_the_annotation_that_it_is_measured_by():
    boxes, points = torch.tensor([[[4.0, 8.0, 20.0, 16.0]]]), torch.tensor([[[3.0, 7.0]]])
    batch = with_masks(blob().unsqueeze(0)) | {"part_boxes": boxes, "part_valid": torch.tensor([[True]])}
    batch |= {"keypoints": points, "keypoint_valid": torch.tensor([[True]])}

    def drawn(batch, label):
        axes = axes_of(draw_panel(batch, make_evidence(1), NAMES), label)
        return len(axes.collections), len(axes.patches), len(axes.lines)

    assert drawn(batch, "picture 0") == (1, 1, 1)
    assert drawn(batch, "evidence 0") == (1, 0, 0)
    without_mask = {key: value for key, value in batch.items() if "mask" not in key}
    assert drawn(without_mask, "evidence 0") == (0, 1, 0)
    only_points = {key: value for key, value in without_mask.items() if "part" not in key}
    assert drawn(only_points, "evidence 0") == (0, 0, 1)


def test_an_image_without_annotation_is_drawn_without_outline_and_says_so():
    batch = with_masks(torch.stack([blob(), blob()]))
    batch["mask_valid"] = torch.tensor([True, False])
    figure = draw_panel(batch, make_evidence(), NAMES)
    assert axes_of(figure, "picture 0").collections
    assert not axes_of(figure, "picture 1").collections
    assert texts(figure, "evidence 0")[0].endswith("% inside the prior")
    assert texts(figure, "evidence 1") == ["\nno prior"]


@pytest.mark.parametrize("prior", ["mask", "part_boxes"])
def test_the_share_inside_is_the_metrics(prior):
    batch = with_masks(torch.stack([blob(), blob().flip(0)]))
    boxes = torch.tensor([[[3.0, 4.0, 20.0, 30.0]], [[1.0, 1.0, 9.0, 31.0]]])
    if prior == "part_boxes":
        batch = make_batch(part_boxes=boxes, part_valid=torch.ones(2, 1, dtype=torch.bool))
        mask = torch.zeros(2, 32, 32)
        mask[0, 4:30, 3:20] = mask[1, 1:31, 1:9] = 1
    else:
        mask = batch["mask"]
    evidence, metric = make_evidence(), EnergyPointingGame()
    metric.update(evidence_map(evidence.cam, batch["label"]), mask, torch.ones(2, dtype=torch.bool))
    assert sum(inside_share(batch, evidence)) / 2 == pytest.approx(float(metric.compute()), abs=1e-6)


def test_a_mirrored_picture_has_a_mirrored_panel():
    batch, evidence = with_masks(blob().unsqueeze(0)), make_evidence(1, further={"attention": torch.rand(1, 4, 4)})
    mirrored = batch | {key: batch[key].flip(-1) for key in ("image", "mask")}
    other = Evidence(
        evidence.logits, evidence.cam.flip(-1), {name: maps.flip(-1) for name, maps in evidence.further.items()}
    )
    one, two = draw_panel(batch, evidence, NAMES), draw_panel(mirrored, other, NAMES)
    for label in ("picture 0", "evidence 0", "attention 0", "cells 0"):
        difference = np.abs(colours(one, label)[:, ::-1] - colours(two, label))
        assert difference.max() <= 1  # interpolation rounds
    points, reflected = outline(one, "picture 0"), outline(two, "picture 0")
    assert {(31 - x, y) for x, y in points.tolist()} == {(x, y) for x, y in reflected.tolist()}


def test_further_maps_have_a_column_each_and_leave_cold_and_warm_to_the_evidence():
    attention = torch.zeros(2, 4, 4)
    attention[:, :, 2:] = 0.25
    figure = draw_panel(make_batch(), make_evidence(further={"attention": attention}), NAMES)
    labels = [axes.get_label() for axes in figure.axes]
    assert labels[:4] == ["picture 0", "evidence 0", "attention 0", "cells 0"]
    assert "attention" in [text.get_text() for text in figure.texts]
    red, green, blue = np.moveaxis(colours(figure, "attention 0"), -1, 0)
    assert (red[:, :11] == blue[:, :11]).all()  # grey where nothing was looked at
    assert ((red > green) & (blue > green))[:, 20:].all()  # violet where something was
    assert texts(figure, "attention 0") == ["\n0.00 to 0.25"]


def test_a_comparison_shows_each_network_on_its_own_scale():
    evidence = make_evidence()
    larger = Evidence(evidence.logits, 10 * evidence.cam, {})
    figure = draw_comparison(with_masks(torch.stack([blob()] * 2)), {"plain": evidence, "restricted": larger}, NAMES)
    for row in range(2):
        np.testing.assert_array_equal(colours(figure, f"plain {row}"), colours(figure, f"restricted {row}"))
        assert texts(figure, f"plain {row}") == texts(figure, f"restricted {row}")
    assert [text.get_text() for text in figure.texts] == ["picture and prior", "plain", "restricted"]


def test_a_comparison_tells_right_from_wrong():
    evidence = Evidence(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.zeros(2, 2, 1, 1), {})
    figure = draw_comparison(make_batch(), {"plain": evidence}, NAMES)
    titles = [axes_of(figure, f"plain {row}").texts[0] for row in range(2)]
    assert [title.get_text() for title in titles] == ["kakapo 0.88\n"] * 2
    assert [title.get_color() for title in titles] == [RIGHT, WRONG]


def test_a_map_that_is_not_square_and_names_that_look_like_formulas(tmp_path):
    batch = make_batch(1) | {"image": torch.zeros(1, 3, 16, 48), "mask": torch.ones(1, 16, 48)}
    batch |= {"mask_valid": torch.tensor([True])}
    cam = torch.arange(12.0).view(1, 1, 2, 6).expand(1, 2, 2, 6) * torch.tensor([1.0, 2.0]).view(2, 1, 1)
    names = [r"$\frac{a", "a name that is far too long to stand above a picture"]
    figure = draw_panel(batch, Evidence(cam.mean((2, 3)), cam, {}), names)
    figure.savefig(tmp_path / "panel.png")
    assert len(texts(figure, "cells 0")) == 13
    assert axes_of(figure, "picture 0").get_position().width * figure.get_size_inches()[0] == pytest.approx(6.6)


def test_a_network_that_has_diverged_can_be_drawn(tmp_path):
    evidence = make_evidence()
    evidence.logits[0], evidence.cam[0] = torch.nan, torch.nan
    batch = with_masks(torch.stack([blob()] * 2))
    figure = draw_panel(batch, evidence, NAMES)
    figure.savefig(tmp_path / "panel.png")
    assert "nan" in texts(figure, "cells 0")
    sane = draw_panel(batch, make_evidence(), NAMES)
    assert texts(figure, "cells 1") == texts(sane, "cells 1")


def test_drawing_leaves_no_figure_behind(tmp_path):
    from matplotlib import pyplot

    draw_panel(make_batch(), make_evidence(), NAMES).savefig(tmp_path / "panel.png")
    assert pyplot.get_fignums() == []


def test_importing_the_callbacks_does_not_import_matplotlib_or_wandb():
    for path in Path(lightning_priors.callbacks.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] in ("matplotlib", "wandb")], path.name
