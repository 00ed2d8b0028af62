"""The learned locator of parts."""

import pytest
import torch

from lightning_priors.nn import PartLocator

GRID, SIZE = torch.Size([4, 6]), (64, 96)


@pytest.fixture
def boxes() -> torch.Tensor:
    torch.manual_seed(0)
    start = torch.rand(5, 2, 2, dtype=torch.float64) * torch.tensor([80.0, 50.0])
    return torch.cat([start, start + 1 + torch.rand(5, 2, 2, dtype=torch.float64) * 12], 2)


def test_places_and_boxes_are_inverse(boxes) -> None:
    cell, place = PartLocator._to_places(boxes, GRID, SIZE)
    torch.testing.assert_close(PartLocator._to_boxes(place, cell, GRID, SIZE), boxes)
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    assert torch.equal(cell % 6, (centre[..., 0] // 16).long())
    assert torch.equal(cell // 6, (centre[..., 1] // 16).long())


def test_it_learns_boxes_from_one_hot_features(boxes) -> None:
    """Features that name the cell and the image determine every box: the loss goes to zero."""
    locator = PartLocator(5 * 24, 2).double()
    torch.manual_seed(0)
    features = torch.eye(120, dtype=torch.float64).view(5, 24, 120).transpose(1, 2).reshape(5, 120, 4, 6)
    optimizer = torch.optim.LBFGS(locator.parameters(), max_iter=400, line_search_fn="strong_wolfe")
    valid = torch.ones(5, 2, dtype=torch.bool)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = locator.loss(features, boxes, valid, SIZE)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert locator.loss(features, boxes, valid, SIZE) < 1e-3
    torch.testing.assert_close(locator(features, SIZE), boxes, atol=0.05, rtol=0)


def test_an_absent_part_changes_nothing(boxes) -> None:
    locator, features = PartLocator(3, 2), torch.randn(5, 3, 4, 6)
    valid = torch.tensor([[True, False]]).expand(5, 2)
    losses = []
    for content in (0.0, 70.0):
        changed = torch.where(valid[..., None], boxes, content).float()
        loss = locator.loss(features, changed, valid, SIZE)
        losses.append((loss, *torch.autograd.grad(loss, list(locator.parameters()))))
    assert all(torch.equal(left, right) for left, right in zip(*losses, strict=True))
    nothing = locator.loss(features, boxes.float(), torch.zeros(5, 2, dtype=torch.bool), SIZE)
    assert nothing == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(nothing, list(locator.parameters())))


def test_found_boxes_shift_with_the_features() -> None:
    torch.manual_seed(0)
    locator = PartLocator(3, 1).eval()
    with torch.no_grad():
        locator.predict[-1].weight[0].abs_()  # so that whatever the first convolution sees speaks for a part
    features = torch.zeros(1, 3, 8, 8)
    features[..., 2:4, 2:4] = torch.randn(3, 2, 2) * 5
    moved = features.roll((1, 3), dims=(2, 3))
    background = locator._predictions(torch.zeros(1, 3, 8, 8))[0].max()
    assert locator._predictions(features)[0].max() > background, "the peak lies in the patch"
    found, shifted = locator(features, (64, 64)), locator(moved, (64, 64))
    torch.testing.assert_close(shifted, found + torch.tensor([24.0, 8.0, 24.0, 8.0]))


def test_loss_gradcheck(boxes) -> None:
    locator = PartLocator(2, 2).double()
    features = torch.randn(5, 2, 4, 6, dtype=torch.float64, requires_grad=True)
    valid = torch.rand(5, 2) > 0.3
    assert torch.autograd.gradcheck(lambda f: locator.loss(f, boxes, valid, SIZE), features)
