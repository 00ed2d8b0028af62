"""Finding parts by what they cover."""

import pytest
import torch

from lightning_priors.nn import RegionFinder
from lightning_priors.techniques.global_local.parts import coverage_loss, covered_boxes

GRID, SIZE = torch.Size([4, 6]), (64, 96)


@pytest.fixture
def boxes() -> torch.Tensor:
    torch.manual_seed(0)
    start = torch.rand(5, 2, 2, dtype=torch.float64) * torch.tensor([80.0, 50.0])
    return torch.cat([start, start + 1 + torch.rand(5, 2, 2, dtype=torch.float64) * 12], 2)


def test_it_learns_boxes_from_one_hot_features() -> None:
    """Features that name the cell and the image determine every box, to the cell: so are those that it finds."""
    torch.manual_seed(0)
    finder = RegionFinder(5 * 24, 2).double()
    corner = torch.stack([torch.randint(0, 4, (5, 2)), torch.randint(0, 2, (5, 2))], 2)
    sides = torch.stack([torch.randint(1, 3, (5, 2)), torch.randint(1, 3, (5, 2))], 2)
    boxes = 16.0 * torch.cat([corner, corner + sides], 2).double()
    features = torch.eye(120, dtype=torch.float64).view(5, 24, 120).transpose(1, 2).reshape(5, 120, 4, 6)
    optimizer = torch.optim.LBFGS(finder.parameters(), max_iter=400, line_search_fn="strong_wolfe")
    valid = torch.ones(5, 2, dtype=torch.bool)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = coverage_loss(finder(features), boxes, valid, SIZE)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert coverage_loss(finder(features), boxes, valid, SIZE) < 1e-3
    torch.testing.assert_close(covered_boxes(finder(features), SIZE), boxes, atol=0.05, rtol=0)


def test_the_loss_is_that_of_each_part_alone(boxes) -> None:
    """Parts do not hide each other, and a part that is covered as is said costs no more than its own entropy."""
    finder, features = RegionFinder(3, 2).double().eval(), torch.randn(5, 3, 4, 6, dtype=torch.float64)
    valid = torch.ones(5, 2, dtype=torch.bool)
    each = []
    for part in range(2):
        alone = torch.zeros_like(valid)
        alone[:, part] = True
        each.append(coverage_loss(finder(features), boxes, alone, SIZE))
    torch.testing.assert_close(coverage_loss(finder(features), boxes, valid, SIZE), torch.stack(each).mean())


def test_an_absent_part_changes_nothing(boxes) -> None:
    finder, features = RegionFinder(3, 2), torch.randn(5, 3, 4, 6)
    valid = torch.tensor([[True, False]]).expand(5, 2)
    losses = []
    for content in (0.0, 70.0):
        changed = torch.where(valid[..., None], boxes, content).float()
        loss = coverage_loss(finder(features), changed, valid, SIZE)
        losses.append((loss, *torch.autograd.grad(loss, list(finder.parameters()))))
    assert all(torch.equal(left, right) for left, right in zip(*losses, strict=True))
    nothing = coverage_loss(finder(features), boxes.float(), torch.zeros(5, 2, dtype=torch.bool), SIZE)
    assert nothing == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(nothing, list(finder.parameters())))


def test_found_boxes_shift_with_the_features() -> None:
    torch.manual_seed(0)
    finder = RegionFinder(3, 1).eval()
    with torch.no_grad():
        # so that whatever the first convolution sees speaks for a part, and the rest does not
        finder.predict[-1].weight[0].abs_().mul_(1e3)
        finder.predict[-1].bias.fill_(-100)
    features = torch.zeros(1, 3, 8, 8)
    features[..., 2:4, 2:4] = torch.randn(3, 2, 2) * 5
    moved = features.roll((1, 3), dims=(2, 3))
    found, shifted = (covered_boxes(finder(part), (64, 64)) for part in (features, moved))
    torch.testing.assert_close(shifted, found + torch.tensor([24.0, 8.0, 24.0, 8.0]))
    assert ((found[..., :2] < 32) & (found[..., 2:] > 16)).all(), "the box lies on the patch"


def test_loss_gradcheck(boxes) -> None:
    finder = RegionFinder(2, 2).double()
    features = torch.randn(5, 2, 4, 6, dtype=torch.float64, requires_grad=True)
    valid = torch.rand(5, 2) > 0.3
    assert torch.autograd.gradcheck(lambda f: coverage_loss(finder(f), boxes, valid, SIZE), features)
