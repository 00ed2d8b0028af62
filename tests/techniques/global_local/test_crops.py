"""Crops and the pictures that they belong to."""

import torch

from lightning_priors.techniques.global_local.crops import Crops, emptiest_quarters, mean_by_owner


def test_mean_by_owner_is_flat_in_the_order_of_the_crops() -> None:
    values, owner = torch.randn(6, 3), torch.tensor([0, 3, 3, 1, 0, 0])
    order = torch.randperm(6)
    torch.testing.assert_close(mean_by_owner(values, owner, 5), mean_by_owner(values[order], owner[order], 5))
    assert (mean_by_owner(values, owner, 5)[[2, 4]] == 0).all()


def test_crops_of_both_keep_their_pictures() -> None:
    first = Crops(torch.eye(4)[:1], torch.tensor([2]), 2 * torch.eye(4)[:1])
    second = Crops(torch.eye(4)[1:].double(), torch.tensor([0, 0, 1]), 2 * torch.eye(4)[1:].double())
    joined = first.and_also(second)
    assert torch.equal(joined.boxes, torch.eye(4))
    assert joined.owner.tolist() == [2, 0, 0, 1]
    assert torch.equal(joined.parts, 2 * torch.eye(4))


def test_the_quarter_is_the_one_with_the_fewest_pixels_of_the_box() -> None:
    height, width = 40, 60
    start = torch.rand(50, 2) * torch.tensor([40.0, 20.0])
    boxes = torch.cat([start, start + 1 + torch.rand(50, 2) * torch.tensor([20.0, 20.0])], 1).round()
    for box, (left, top, right, bottom) in zip(boxes, emptiest_quarters(boxes, (height, width)).int(), strict=True):
        inside = torch.zeros(height, width)
        inside[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = 1
        quarters = inside.view(2, height // 2, 2, width // 2).sum((1, 3))
        assert (right - left, bottom - top) == (width // 2, height // 2)
        assert inside[top:bottom, left:right].sum() <= quarters.min() + 1
