"""The heads of the auxiliary tasks."""

import pytest
import torch
import torch.nn.functional as F

from lightning_priors.nn import CAMHead
from lightning_priors.priors.auxiliary_tasks.heads import AuxiliaryHeads

SIZES = [4, 2, 3]


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(5, 6, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_each_head_is_a_cam_head_of_its_own(features) -> None:
    heads = AuxiliaryHeads(6, SIZES).double()
    logits = heads(features)
    assert logits.shape == (5, 3, 4)
    start = 0
    for task, size in enumerate(SIZES):
        head = CAMHead(6, size).double()
        head.weight.data, head.bias.data = heads.weight[start : start + size], heads.bias[start : start + size] + 1
        heads.bias.data[start : start + size] += 1
        torch.testing.assert_close(heads(features)[:, task, :size], head(features)[0])
        assert (logits[:, task, size:] == -torch.inf).all()
        start += size


def test_the_first_weights_are_drawn_as_those_of_a_linear_layer() -> None:
    heads = AuxiliaryHeads(16, [500, 500])
    assert heads.weight.abs().max() <= 1 / 4
    assert heads.weight.std().item() == pytest.approx(1 / 4 / 3**0.5, rel=0.05)


@pytest.mark.parametrize("branches", [False, True])
def test_making_them_leaves_the_random_generator_alone(branches: bool) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    heads = AuxiliaryHeads(6, SIZES, branches)
    assert torch.equal(torch.rand(4), expected)
    torch.manual_seed(4)
    assert not torch.equal(heads.weight, AuxiliaryHeads(6, SIZES, branches).weight), "they are drawn all the same"


def test_a_branch_is_a_layer_of_one_task_alone(features) -> None:
    heads = AuxiliaryHeads(6, SIZES, branches=True).double()
    before = heads(features)
    hidden = heads.branches[1](features).relu().mean((2, 3))
    torch.testing.assert_close(before[:, 1, :2], F.linear(hidden, heads.weight[4:6], heads.bias[4:6]))
    heads.branches[1].weight.data += 1
    after = heads(features)
    assert not torch.allclose(after[:, 1, :2], before[:, 1, :2])
    assert torch.equal(after[:, [0, 2]], before[:, [0, 2]])


@pytest.mark.parametrize("branches", [False, True])
def test_shares_scale_what_goes_back_into_the_features_and_nothing_else(features, branches: bool) -> None:
    heads = AuxiliaryHeads(6, SIZES, branches).double()
    features.requires_grad_()
    shares = torch.tensor([0.5, 0.0, 2.0], dtype=torch.float64)
    parameters = list(heads.parameters())
    for task, (size, share) in enumerate(zip(SIZES, shares, strict=True)):
        plain, scaled = (heads(features, s)[:, task, :size] for s in (None, shares))
        torch.testing.assert_close(scaled, plain, rtol=1e-14, atol=1e-15)
        left, right = (
            torch.autograd.grad(x.square().sum(), [features, *parameters], allow_unused=True) for x in (plain, scaled)
        )
        torch.testing.assert_close(right[0], share * left[0])
        for one, other in zip(left[1:], right[1:], strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(other, one)


@pytest.mark.parametrize("branches", [False, True])
def test_gradients(features, branches: bool) -> None:
    heads = AuxiliaryHeads(6, [2, 2], branches).double()
    assert torch.autograd.gradcheck(heads, (features[:2].requires_grad_(),))
