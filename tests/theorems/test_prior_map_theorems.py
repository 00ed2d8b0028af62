"""What holds exactly between annotations and prior maps."""

import pytest
import torch

from lightning_priors.functional.prior_maps import boxes_to_grid, keypoints_to_grid, prior_map, resize_to_grid

SIDE = 24


def random_batch(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, SIDE, (5, 3, 2, 2), generator=generator).sort(2).values
    corners[:, :, 1] += 1
    return {
        "image": torch.zeros(5, 3, SIDE, SIDE),
        "mask": torch.rand(5, SIDE, SIDE, generator=generator, dtype=torch.float64),
        "mask_valid": torch.ones(5, dtype=torch.bool),
        "part_boxes": corners.flatten(2).double(),
        "part_valid": torch.rand(5, 3, generator=generator) < 0.7,
        "keypoints": torch.rand(5, 3, 2, generator=generator, dtype=torch.float64) * SIDE,
        "keypoint_valid": torch.rand(5, 3, generator=generator) < 0.7,
    }


def flipped(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    x1, y1, x2, y2 = batch["part_boxes"].unbind(-1)
    x, y = batch["keypoints"].unbind(-1)
    return batch | {
        "mask": batch["mask"].flip(2),
        "part_boxes": torch.stack([SIDE - x2, y1, SIDE - x1, y2], -1),
        "keypoints": torch.stack([SIDE - x, y], -1),
    }


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (24, 24), (30, 11)])
@pytest.mark.parametrize("kind", ["mask", "part_boxes", "keypoints"])
@pytest.mark.parametrize(("dilation", "hard"), [(0.0, False), (0.4, False), (0.0, True)])
def test_flipping_the_picture_flips_the_prior(kind, size, dilation, hard):
    batch = random_batch()
    prior, valid = prior_map(batch, size, prefer=kind, dilation=dilation, hard=hard)
    mirrored, mirrored_valid = prior_map(flipped(batch), size, prefer=kind, dilation=dilation, hard=hard)
    torch.testing.assert_close(mirrored, prior.flip(2))
    assert torch.equal(mirrored_valid, valid)


@pytest.mark.parametrize("kind", ["mask", "part_boxes", "keypoints"])
@pytest.mark.parametrize("seed", range(3))
def test_priors_are_shares(kind, seed):
    prior, valid = prior_map(random_batch(seed), (5, 7), prefer=kind, dilation=0.3)
    assert (prior >= 0).all()
    assert (prior <= 1).all()
    assert torch.equal(prior.flatten(1).any(1), valid)


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (24, 24), (30, 11)])
def test_the_prior_of_a_box_is_that_of_its_mask(size):
    batch = random_batch()
    box = batch["part_boxes"][:, :1]
    mask = torch.zeros(5, SIDE, SIDE, dtype=torch.float64)
    for row, (x1, y1, x2, y2) in enumerate(box[:, 0].long().tolist()):
        mask[row, y1:y2, x1:x2] = 1
    valid = torch.ones(5, 1, dtype=torch.bool)
    torch.testing.assert_close(boxes_to_grid(box, valid, (SIDE, SIDE), size), resize_to_grid(mask, size))


def test_moving_the_picture_by_whole_cells_moves_the_prior():
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, 3:9, 2:10] = torch.rand(6, 8)
    box, point = torch.tensor([[[2.0, 3.0, 10.0, 9.0]]]), torch.tensor([[[5.0, 7.0]]])
    one = torch.tensor([[True]])
    before = [
        resize_to_grid(mask, (6, 6)),
        boxes_to_grid(box, one, (SIDE, SIDE), (6, 6)),
        keypoints_to_grid(point, one, (SIDE, SIDE), (6, 6)),
    ]
    right, down = 8, 4  # pixels; cells are 4 x 4
    after = [
        resize_to_grid(mask.roll((down, right), (1, 2)), (6, 6)),
        boxes_to_grid(box + torch.tensor([right, down, right, down]), one, (SIDE, SIDE), (6, 6)),
        keypoints_to_grid(point + torch.tensor([right, down]), one, (SIDE, SIDE), (6, 6)),
    ]
    for still, moved in zip(before, after, strict=True):
        torch.testing.assert_close(moved[:, 1:, 2:], still[:, :-1, :-2])


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (30, 11)])
def test_the_grid_keeps_the_share_of_target(size):
    mask = random_batch()["mask"]
    torch.testing.assert_close(resize_to_grid(mask, size).mean((1, 2)), mask.mean((1, 2)))


@pytest.mark.parametrize("kind", ["mask", "part_boxes", "keypoints"])
def test_each_image_has_its_own_prior(kind):
    batch = random_batch()
    prior, valid = prior_map(batch, (5, 7), prefer=kind, dilation=0.3)
    for row in range(5):
        alone = {name: values[row : row + 1] for name, values in batch.items()}
        single, single_valid = prior_map(alone, (5, 7), prefer=kind, dilation=0.3)
        torch.testing.assert_close(single[0], prior[row])
        assert single_valid[0] == valid[row]


def test_resizing_passes_gradients():
    mask = random_batch()["mask"][:1, :6, :7].clone().requires_grad_()
    inside = (0.1 + 0.8 * mask.detach()).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: resize_to_grid(m, (2, 3)), inside)
