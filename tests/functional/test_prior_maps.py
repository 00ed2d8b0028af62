import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import grey_dilation

from lightning_priors.functional.prior_maps import (
    boxes_to_grid,
    dilate,
    harden,
    interval_cover,
    keypoints_to_grid,
    prior_map,
    resize_to_grid,
)

TRUE = torch.tensor([[True]])


def test_interval_cover_by_hand():
    start, end = torch.tensor([0.5, -3.0, 2.0, 9.0]), torch.tensor([2.25, 1.0, 1.0, 12.0])
    assert interval_cover(start, end, 4).tolist() == [[0.5, 1, 0.25, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_resize_to_grid_is_average_pooling_where_the_sizes_divide():
    mask = torch.rand(3, 12, 20)
    torch.testing.assert_close(resize_to_grid(mask, (4, 5)), F.adaptive_avg_pool2d(mask, (4, 5)))


@pytest.mark.parametrize(("height", "width", "size"), [(7, 10, (3, 4)), (5, 6, (5, 4)), (3, 4, (7, 5)), (9, 9, (1, 1))])
def test_resize_to_grid_is_the_exact_mean_for_any_sizes(height, width, size):
    mask = torch.rand(2, height, width, dtype=torch.float64)
    fine = mask.repeat_interleave(size[0], 1).repeat_interleave(size[1], 2)  # cells are now whole numbers of pixels
    torch.testing.assert_close(resize_to_grid(mask, size), F.avg_pool2d(fine, (height, width)))


def test_resize_to_grid_of_the_same_size_changes_nothing():
    mask = torch.rand(2, 13, 11)
    assert torch.equal(resize_to_grid(mask, (13, 11)), mask)


def test_resize_to_grid_is_not_rounded_under_autocast():
    mask = torch.rand(2, 12, 12)
    expected = resize_to_grid(mask, (5, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(resize_to_grid(mask, (5, 5)), expected)


def test_box_cover_by_hand():
    box = torch.tensor([[[1.0, 2.0, 4.0, 3.0]]])  # x 1..4, y 2..3 of a 4 x 4 picture; cells are 2 x 2 pixels
    assert boxes_to_grid(box, TRUE, (4, 4), (2, 2)).tolist() == [[[0.0, 0.0], [0.25, 0.5]]]


def test_boxes_are_joined_between_the_greatest_and_the_sum():
    boxes, valid = torch.rand(5, 3, 4) * 8, torch.ones(5, 3, dtype=torch.bool)
    boxes[..., 2:] += boxes[..., :2]
    joined = boxes_to_grid(boxes, valid, (16, 16), (4, 4))
    single = torch.stack([boxes_to_grid(boxes[:, k : k + 1], valid[:, :1], (16, 16), (4, 4)) for k in range(3)])
    assert (joined >= single.amax(0) - 1e-6).all()
    assert (joined <= single.sum(0) + 1e-6).all()
    assert (joined <= 1).all()


def test_disjoint_boxes_in_different_cells_are_joined_exactly():
    boxes = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 4.0, 3.0]]])
    cover = boxes_to_grid(boxes, torch.ones(1, 2, dtype=torch.bool), (4, 4), (2, 2))
    assert cover.tolist() == [[[0.25, 0.0], [0.0, 0.5]]]


def test_invalid_boxes_are_left_out_whatever_they_hold():
    boxes = torch.tensor([[[0.0, 0.0, 2.0, 2.0], [torch.nan, 0.0, torch.inf, 4.0]]])
    cover = boxes_to_grid(boxes, torch.tensor([[True, False]]), (4, 4), (2, 2))
    assert cover.tolist() == [[[1.0, 0.0], [0.0, 0.0]]]


def test_box_dilation_enlarges_the_sides_about_the_centre():
    box = torch.tensor([[[6.0, 6.0, 10.0, 8.0]]])  # 4 wide and 2 high: half as much again is 6 and 3
    dilated = torch.tensor([[[5.0, 5.5, 11.0, 8.5]]])
    torch.testing.assert_close(
        boxes_to_grid(box, TRUE, (16, 16), (16, 16), dilation=0.5), boxes_to_grid(dilated, TRUE, (16, 16), (16, 16))
    )


def test_keypoint_by_hand():
    point = torch.tensor([[[1.0, 3.0]]])  # cell (1, 0) of a 4 x 4 picture; the next cells begin 1 pixel away
    prior = keypoints_to_grid(point, TRUE, (4, 4), (2, 2), sigma=0.25)  # sigma is 1 pixel
    expected = torch.exp(-torch.tensor([[[0.5, 1.0], [0.0, 0.5]]]))
    torch.testing.assert_close(prior, expected)


def test_keypoints_take_the_greatest_and_leave_out_the_invalid():
    points = torch.tensor([[[1.0, 1.0], [15.0, 15.0], [1.0, 15.0]]])
    valid = torch.tensor([[True, True, False]])
    prior = keypoints_to_grid(points, valid, (16, 16), (4, 4), sigma=0.05)
    assert prior[0, 0, 0] == prior[0, 3, 3] == 1
    assert prior[0, 3, 0] < 1e-6


def test_small_sigma_on_a_coarse_grid_still_marks_the_cell():
    prior = keypoints_to_grid(torch.tensor([[[3.0, 60.0]]]), TRUE, (64, 64), (2, 2), sigma=1e-3)
    assert prior.tolist() == [[[0.0, 0.0], [1.0, 0.0]]]


def test_sigma_must_be_positive():
    with pytest.raises(ValueError, match="positive fraction"):
        keypoints_to_grid(torch.zeros(1, 1, 2), TRUE, (4, 4), (2, 2), sigma=0.0)


@pytest.mark.parametrize("margin", [0, 1, 2])
def test_whole_margins_are_grey_dilation(margin):
    prior = torch.rand(2, 6, 7)
    ours = dilate(prior, torch.full((2, 2), float(margin)))
    for before, after in zip(prior, ours, strict=True):
        window = (2 * margin + 1, 2 * margin + 1)
        np.testing.assert_allclose(after.numpy(), grey_dilation(before.numpy(), window, mode="nearest"))


def test_each_image_has_its_own_margin():
    prior = torch.zeros(2, 1, 5)
    prior[:, :, 2] = 1
    assert dilate(prior, torch.tensor([[0.0, 0.25], [0.0, 2.0]])).tolist() == [
        [[0.0, 0.25, 1.0, 0.25, 0.0]],
        [[1.0, 1.0, 1.0, 1.0, 1.0]],
    ]


def test_dilated_mask_of_a_box_on_the_grid_is_the_dilated_box():
    mask = torch.zeros(1, 32, 32)
    mask[:, 8:16, 12:20] = 1
    box = torch.tensor([[[12.0, 8.0, 20.0, 16.0]]])
    from_mask, _ = prior_map({"mask": mask, "mask_valid": torch.tensor([True])}, (8, 8), dilation=0.6)
    torch.testing.assert_close(from_mask, boxes_to_grid(box, TRUE, (32, 32), (8, 8), dilation=0.6))


def test_harden_cuts_at_half_of_the_maximum_and_keeps_empty_maps_empty():
    prior = torch.tensor([[[0.1, 0.2, 0.05]], [[1.0, 0.49, 0.5]], [[0.0, 0.0, 0.0]]])
    assert harden(prior).tolist() == [[[1.0, 1.0, 0.0]], [[1.0, 0.0, 1.0]], [[0.0, 0.0, 0.0]]]


def full_batch() -> dict[str, torch.Tensor]:
    mask = torch.zeros(2, 16, 16)
    mask[:, :8, :8] = 1
    return {
        "image": torch.zeros(2, 3, 16, 16),
        "mask": mask,
        "mask_valid": torch.tensor([True, False]),
        "part_boxes": torch.tensor([[[0.0, 0.0, 4.0, 4.0]], [[8.0, 8.0, 16.0, 16.0]]]),
        "part_valid": torch.tensor([[True], [True]]),
        "keypoints": torch.tensor([[[15.0, 1.0]], [[1.0, 1.0]]]),
        "keypoint_valid": torch.tensor([[False], [True]]),
    }


def test_prior_map_uses_the_kind_that_is_asked_for():
    batch = full_batch()
    mask, mask_valid = prior_map(batch, (4, 4))
    boxes, box_valid = prior_map(batch, (4, 4), prefer="part_boxes")
    points, point_valid = prior_map(batch, (4, 4), prefer="keypoints", sigma=0.05)
    assert (mask_valid.tolist(), box_valid.tolist(), point_valid.tolist()) == (
        [True, False],
        [True, True],
        [False, True],
    )
    assert (mask[0].sum(), boxes[0].sum(), boxes[1].sum()) == (4, 1, 4)
    assert points[1].argmax() == 0


def test_prior_map_never_mixes_kinds_between_images():
    prior, valid = prior_map(full_batch(), (4, 4), prefer="mask")
    assert not valid[1]
    assert prior[1].sum() == 0  # image 1 has a box, but the kind is masks


def test_prior_map_takes_the_next_kind_where_the_data_lacks_the_preferred():
    batch = full_batch()
    del batch["mask"], batch["mask_valid"]
    prior, valid = prior_map(batch, (4, 4), prefer="mask")
    expected, _ = prior_map(batch, (4, 4), prefer="part_boxes")
    assert torch.equal(prior, expected)
    assert valid.all()


def test_an_empty_map_is_not_valid():
    prior, valid = prior_map({"mask": torch.zeros(1, 4, 4), "mask_valid": torch.tensor([True])}, (2, 2))
    assert not valid.any()
    assert not prior.any()


def test_a_box_outside_the_picture_is_not_valid():
    batch = {
        "image": torch.zeros(1, 3, 8, 8),
        "part_boxes": torch.tensor([[[9.0, 9.0, 12.0, 12.0]]]),
        "part_valid": TRUE,
    }
    assert not prior_map(batch, (2, 2))[1].any()


def test_hard_and_dilated_prior_map():
    hard, _ = prior_map(full_batch(), (4, 4), prefer="part_boxes", dilation=1.0, hard=True)
    assert hard[0].tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]  # covers 1, 0.5 and 0.25


def test_prior_map_says_what_is_missing():
    with pytest.raises(ValueError, match="needs one of mask, part_boxes, keypoints; the batch has image, label"):
        prior_map({"image": torch.zeros(1), "label": torch.zeros(1)}, (2, 2))
    with pytest.raises(ValueError, match="dilation"):
        prior_map(full_batch(), (2, 2), dilation=-0.1)
