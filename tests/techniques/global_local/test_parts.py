"""Boxes of parts, the part that is found, and the maps put back."""

import warnings

import pytest
import scipy.ndimage
import torch

from lightning_priors.techniques.global_local.parts import (
    covered_boxes,
    ellipse_windows,
    jitter_boxes,
    paste_maps,
    peak_boxes,
    spread_boxes,
    square_boxes,
)


def test_squares_have_the_centre_of_the_box_and_its_longer_side() -> None:
    boxes = torch.tensor([[2.0, 4.0, 10.0, 8.0], [0.0, 0.0, 0.0, 0.0]])
    squares = square_boxes(boxes, scale=2.0, minimum=3.0)
    torch.testing.assert_close((squares[:, :2] + squares[:, 2:]) / 2, (boxes[:, :2] + boxes[:, 2:]) / 2)
    torch.testing.assert_close(squares[:, 2:] - squares[:, :2], torch.tensor([[16.0, 16.0], [3.0, 3.0]]))


def test_jitter_stays_within_its_strength() -> None:
    torch.manual_seed(0)
    boxes = torch.tensor([[10.0, 20.0, 50.0, 40.0]]).expand(2000, 4)
    moved = jitter_boxes(boxes, 0.2)
    sides = moved[:, 2:] - moved[:, :2]
    ratio = sides / torch.tensor([40.0, 20.0])
    torch.testing.assert_close(ratio[:, 0], ratio[:, 1])
    assert ratio.log().abs().max() <= 0.2 + 1e-5
    assert ratio.log().abs().max() > 0.19
    shift = ((moved[:, :2] + moved[:, 2:]) / 2 - torch.tensor([30.0, 30.0])) / torch.tensor([40.0, 20.0])
    assert 0.19 < shift.abs().max() <= 0.2 + 1e-5
    assert shift.mean(0).abs().max() < 0.02


@pytest.mark.parametrize("sides", [(30.0, 30.0), (30.0, 12.0), (9.0, 45.0)])
def test_an_ellipse_has_its_area_and_touches_the_sides_of_the_box(sides: tuple[float, float]) -> None:
    box = torch.tensor([[5.0, 7.0, 5.0 + sides[0], 7.0 + sides[1]]], dtype=torch.float64)
    (window,) = ellipse_windows(box, size=400)
    share = [side / max(sides) for side in sides]
    assert window.mean().item() == pytest.approx(torch.pi / 4 * share[0] * share[1], rel=1e-2)
    for axis, part in ((0, share[0]), (1, share[1])):
        assert window.amax(axis).sum().item() == pytest.approx(400 * part, abs=4)
    for mirrored in (window.flip(0), window.flip(1)):
        assert torch.equal(mirrored, window)
    assert torch.equal(ellipse_windows(3 * box - 50, size=400)[0], window), "the size and the place do not matter"


def test_the_box_holds_the_region_of_the_peak_and_no_other() -> None:
    evidence = torch.zeros(1, 6, 8)
    evidence[0, 1:3, 1:4] = torch.tensor([[5.0, 9.0, 6.0], [5.0, 1.0, 1.0]])
    evidence[0, 5, 7] = 8.0  # strong, but not connected with the peak
    box = peak_boxes(evidence, image_size=(60, 160), threshold=0.5)
    assert box.tolist() == [[20.0, 10.0, 80.0, 30.0]]


def test_a_winding_region_is_followed_to_its_end() -> None:
    spiral = torch.tensor([[9.0, 8, 8, 8], [0, 0, 0, 8], [8, 8, 0, 8], [8, 0, 0, 8], [8, 8, 8, 8]])
    assert peak_boxes(spiral[None], (5, 4)).tolist() == [[0.0, 0.0, 4.0, 5.0]]


def test_the_region_of_the_peak_is_what_scipy_labels() -> None:
    torch.manual_seed(0)
    for evidence in torch.randn(40, 9, 13):
        labels, _ = scipy.ndimage.label((evidence >= 0.1 * evidence.max()).numpy())
        place = divmod(int(evidence.argmax()), 13)
        rows, columns = scipy.ndimage.find_objects(labels)[labels[place] - 1]
        expected = [columns.start, rows.start, columns.stop, rows.stop]
        assert peak_boxes(evidence[None], (9, 13), 0.1)[0].tolist() == expected


class Peaks(torch.nn.Module):
    def forward(self, evidence: torch.Tensor) -> torch.Tensor:
        return peak_boxes(evidence, (43, 101), 0.1)


def test_exported_the_box_is_the_same_for_any_number_of_maps() -> None:
    maps = {0: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        program = torch.export.export(Peaks(), (torch.randn(2, 9, 13),), dynamic_shapes=(maps,)).module()
    spiral = torch.tensor([[9.0, 8, 8, 8], [0, 0, 0, 8], [8, 8, 0, 8], [8, 0, 0, 8], [8, 8, 8, 8]])
    winding = torch.zeros(1, 9, 13)
    winding[0, 2:7, 5:9] = spiral
    for evidence in (torch.randn(1, 9, 13), torch.randn(30, 9, 13), winding, -torch.rand(3, 9, 13)):
        assert torch.equal(program(evidence), Peaks()(evidence))


def test_a_map_without_positive_evidence_gives_the_cell_of_its_maximum() -> None:
    evidence = -torch.arange(1.0, 13).view(1, 3, 4).flip(1)
    assert peak_boxes(evidence, (3, 4)).tolist() == [[0.0, 2.0, 1.0, 3.0]]


def test_the_box_of_a_rectangle_of_cells_is_that_rectangle() -> None:
    covered = torch.zeros(2, 5, 7, dtype=torch.float64)
    covered[0, 1:4, 2:4] = 0.3
    covered[1, 4, 0] = 2.0
    boxes = spread_boxes(covered, image_size=(50, 140))
    expected = torch.tensor([[40.0, 10, 80, 40], [0, 40, 20, 50]], dtype=torch.float64)
    torch.testing.assert_close(boxes, expected)
    assert spread_boxes(torch.zeros(1, 5, 7), (50, 140)).tolist() == [pytest.approx([0, 0, 140, 50])]


def test_many_cells_that_might_be_covered_do_not_outweigh_the_few_that_are() -> None:
    covered = torch.full((1, 1, 8, 8), 0.2)
    covered[0, 0, 1:3, 1:3] = 0.95
    (box,) = covered_boxes(covered.logit(), (64, 64))[0]
    centre = (box[:2] + box[2:]) / 2
    assert (centre - 16).abs().max() < 8, "within a cell of the middle of what is covered"


def test_the_box_of_a_map_is_flip_and_shift_equivariant() -> None:
    torch.manual_seed(0)
    covered = torch.zeros(20, 12, 12, dtype=torch.float64)
    covered[:, 3:8, 3:8] = torch.rand(20, 5, 5, dtype=torch.float64)
    boxes = spread_boxes(covered, (96, 96))
    mirrored = torch.stack([96 - boxes[:, 2], boxes[:, 1], 96 - boxes[:, 0], boxes[:, 3]], 1)
    torch.testing.assert_close(spread_boxes(covered.flip(2), (96, 96)), mirrored)
    moved = spread_boxes(covered.roll((2, -3), dims=(1, 2)), (96, 96))
    torch.testing.assert_close(moved, boxes + 8 * torch.tensor([-3.0, 2.0, -3.0, 2.0]).double())
    torch.testing.assert_close(spread_boxes(covered * 1e3, (96, 96)), boxes)


def test_found_boxes_are_flip_and_shift_equivariant() -> None:
    torch.manual_seed(0)
    patch = torch.rand(20, 5, 5)
    height, width, cell = 12, 12, 8
    evidence = torch.zeros(20, height, width)
    evidence[:, 3:8, 3:8] = patch
    boxes = peak_boxes(evidence, (height * cell, width * cell))
    mirrored = peak_boxes(evidence.flip(2), (height * cell, width * cell))
    torch.testing.assert_close(mirrored, torch.stack([96 - boxes[:, 2], boxes[:, 1], 96 - boxes[:, 0], boxes[:, 3]], 1))
    upside_down = peak_boxes(evidence.flip(1), (height * cell, width * cell))
    torch.testing.assert_close(upside_down[:, [1, 3]], 96 - boxes[:, [3, 1]])
    shifted = peak_boxes(evidence.roll((2, -3), dims=(1, 2)), (height * cell, width * cell))
    torch.testing.assert_close(shifted, boxes + cell * torch.tensor([-3.0, 2.0, -3.0, 2.0]))
    scaled = peak_boxes(evidence * 1e3, (height * cell, width * cell))
    assert torch.equal(scaled, boxes)


def test_pasted_maps_keep_their_mean_and_stand_in_their_box() -> None:
    torch.manual_seed(0)
    maps = torch.randn(3, 2, 4, 5, dtype=torch.float64)
    boxes = torch.tensor([[3.0, 5.0, 20.0, 19.0], [0.0, 0.0, 32.0, 24.0], [7.9, 8.0, 8.1, 8.3]]).double()
    owner = torch.tensor([0, 2, 2])
    canvas = paste_maps(maps, boxes, owner, 4, image_size=(24, 32), size=(6, 8))
    means = maps.mean((2, 3))
    expected = torch.stack([means[0], torch.zeros(2).double(), means[1] + means[2], torch.zeros(2).double()])
    torch.testing.assert_close(canvas.mean((2, 3)), expected)
    outside = torch.ones(6, 8, dtype=torch.bool)
    outside[1:5, 0:5] = False
    assert canvas[0][:, outside].abs().max() == 0


def test_pasting_a_whole_picture_of_the_same_size_changes_nothing() -> None:
    maps = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    box = torch.tensor([[0.0, 0.0, 60.0, 40.0]]).double().expand(2, 4)
    torch.testing.assert_close(paste_maps(maps, box, torch.arange(2), 2, (40, 60), (4, 6)), maps)


def test_what_was_cut_from_outside_lands_on_the_border() -> None:
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    canvas = paste_maps(maps, torch.tensor([[-10.0, -10.0, 10.0, 10.0]]), torch.tensor([0]), 1, (20, 20), (2, 2))
    assert canvas[0, 0].tolist() == [[10.0, 0.0], [0.0, 0.0]]
    assert canvas.mean() == pytest.approx(2.5)


def test_paste_gradcheck() -> None:
    boxes = torch.tensor([[1.0, 2.0, 9.0, 7.0]], dtype=torch.float64)
    maps = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: paste_maps(m, boxes, torch.tensor([0]), 1, (8, 10), (4, 5)), maps)
