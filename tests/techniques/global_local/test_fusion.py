"""Fusion of two branches."""

from typing import get_args

import pytest
import torch

from lightning_priors.nn import CAMHead
from lightning_priors.techniques.global_local import Fusion
from lightning_priors.techniques.global_local.fusion import FusionKind

KINDS = get_args(FusionKind)


@pytest.fixture
def branches() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(5, width, dtype=torch.float64) for width in (4, 3, 6, 3)]


def make(kind: FusionKind) -> Fusion:
    torch.manual_seed(1)
    fusion = Fusion(kind, (4, 6), 3).double()
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter)
    return fusion


@pytest.mark.parametrize(("weights", "branch"), [((1.0, 0.0), 1), ((0.0, 1.0), 3)])
def test_weights_of_one_and_zero_give_exactly_a_branch(branches, weights: tuple[float, float], branch: int) -> None:
    fusion = make("weights")
    fusion.weights.data = torch.tensor(weights, dtype=torch.float64)
    logits, _ = fusion(*branches, torch.ones(5, dtype=torch.bool))
    assert torch.equal(logits, branches[branch])


@pytest.mark.parametrize("kind", ["mean", "weights", "gate"])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_fusion_begins_with_the_share_of_the_local_branch(branches, kind: FusionKind, share: float) -> None:
    if kind == "gate" and share != 0.25:
        with pytest.raises(ValueError, match=f"local_share is between 0 and 1, not {share}"):
            Fusion(kind, (4, 6), 3, share)
        return
    logits, weights = Fusion(kind, (4, 6), 3, share).double()(*branches, torch.ones(5, dtype=torch.bool))
    torch.testing.assert_close(weights, torch.tensor([1 - share, share]).double().expand(5, 2), atol=1e-7, rtol=0)
    torch.testing.assert_close(logits, (1 - share) * branches[1] + share * branches[3], atol=1e-6, rtol=0)


def test_a_concatenation_has_no_shares() -> None:
    with pytest.raises(ValueError, match="fusion concatenation has no local_share; mean, weights and gate have"):
        Fusion("concatenation", (4, 6), 3, 0.9)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_part_the_global_branch_answers_alone(branches, kind: FusionKind) -> None:
    has_part = torch.tensor([True, False, True, False, False])
    logits, weights = make(kind)(*branches, has_part)
    assert torch.equal(logits[~has_part], branches[1][~has_part])
    assert torch.equal(weights[~has_part], torch.tensor([[1.0, 0.0]]).double().expand(3, 2))
    changed = [*branches[:2], *(torch.where(has_part[:, None], value, 7.0) for value in branches[2:])]
    assert torch.equal(make(kind)(*changed, has_part)[0], logits), "what the local branch says of no part is ignored"


def test_each_kind_by_hand(branches) -> None:
    g_features, g_logits, l_features, l_logits = branches
    everywhere = torch.ones(5, dtype=torch.bool)
    torch.testing.assert_close(make("mean")(*branches, everywhere)[0], (g_logits + l_logits) / 2)
    gate = make("gate")
    weights = torch.softmax(torch.cat([g_features, l_features], 1) @ gate.gate.weight.T + gate.gate.bias, 1)
    torch.testing.assert_close(gate(*branches, everywhere)[0], weights[:, :1] * g_logits + weights[:, 1:] * l_logits)
    joined = make("concatenation")
    by_hand = torch.cat([g_features, l_features], 1) @ joined.classify.weight.T + joined.classify.bias
    torch.testing.assert_close(joined(*branches, everywhere)[0], by_hand)


def test_weights_and_gate_begin_as_the_mean(branches) -> None:
    everywhere = torch.ones(5, dtype=torch.bool)
    for kind in ("weights", "gate"):
        fused, _ = Fusion(kind, (4, 6), 3).double()(*branches, everywhere)
        torch.testing.assert_close(fused, (branches[1] + branches[3]) / 2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_branches_maps_and_the_biases_add_up_to_the_logits(kind: FusionKind) -> None:
    torch.manual_seed(0)
    maps = [torch.randn(5, 4, 3, 3, dtype=torch.float64), torch.randn(5, 6, 2, 2, dtype=torch.float64)]
    heads = [CAMHead(4, 3).double(), CAMHead(6, 3).double()]
    for head in heads:
        torch.nn.init.normal_(head.bias)
    (g_logits, g_cam), (l_logits, l_cam) = (head(features) for head, features in zip(heads, maps, strict=True))
    fusion = make(kind)
    has_part = torch.tensor([True, True, True, False, False])
    logits, weights = fusion(maps[0].mean((2, 3)), g_logits, maps[1].mean((2, 3)), l_logits, has_part)
    means = sum(
        fusion.branch_cam(branch, features, cam, weights).mean((2, 3))
        for branch, features, cam in ((0, maps[0], g_cam), (1, maps[1], l_cam))
    )
    bias = weights[:, :1] * heads[0].bias + weights[:, 1:] * heads[1].bias
    if kind == "concatenation":
        bias = torch.where(has_part[:, None], fusion.classify.bias, heads[0].bias)
    torch.testing.assert_close(means + bias, logits)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="no fusion 'sum'; there are mean, weights, concatenation, gate"):
        Fusion("sum", (1, 1), 2)  # type: ignore[arg-type]
