import math

import pytest
import torch
from scipy.special import rel_entr
from torch.autograd import gradcheck

from lightning_priors.functional.guidance import (
    ATTENTION_LOSSES,
    GUIDANCE_LOSSES,
    PPCE_FLOOR,
    energy_inside,
    masked_mean,
)

GUIDANCE = list(GUIDANCE_LOSSES)
ATTENTION = list(ATTENTION_LOSSES)
SALIENCY = torch.tensor([[[4.0, 1.0], [-2.0, 0.0]]])
PRIOR = torch.tensor([[[1.0, 0.0], [0.0, 0.5]]])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("energy", 1 / 5),
        ("energy_both_signs", (1 / 5 + 1) / 2),
        ("l1", (0 + 0.25 + 0 + 0.5) / 4),
        ("ppce", (0 + 0.5 * math.log((1 + PPCE_FLOOR) / PPCE_FLOOR)) / 1.5),
        ("rrr", 0.25**2 + 0.5**2),
    ],
)
def test_guidance_losses_by_hand(name, expected):
    torch.testing.assert_close(GUIDANCE_LOSSES[name](SALIENCY, PRIOR), torch.tensor([expected]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bce", (-math.log(0.25) - math.log(0.25) - math.log(0.5) - math.log(0.5)) / 4),
        ("l1", (0.75 + 0.75 + 0.5 + 0.0) / 4),
        ("energy", 1 - (0.25 + 0.25) / (0.25 + 0.75 + 0.5 + 0.5)),
        ("ppce", (-math.log(0.25) - 0.5 * math.log(0.5)) / 1.5),
    ],
)
def test_attention_losses_by_hand(name, expected):
    attention = torch.tensor([[[0.25, 0.75], [0.5, 0.5]]])
    torch.testing.assert_close(ATTENTION_LOSSES[name](attention.logit(), PRIOR), torch.tensor([expected]))


def test_attention_kl_agrees_with_scipy():
    logits, prior = torch.randn(3, 4, 5, dtype=torch.float64), torch.rand(3, 4, 5, dtype=torch.float64)
    prior[:, 0] = 0
    target = prior / prior.sum((1, 2), keepdim=True)
    attention = logits.flatten(1).softmax(1).view_as(logits)
    reference = rel_entr(target.numpy(), attention.numpy()).sum((1, 2))
    torch.testing.assert_close(ATTENTION_LOSSES["kl"](logits, prior), torch.from_numpy(reference))


def test_attention_kl_of_a_distribution_through_its_logarithm():
    attention = torch.rand(2, 3, 3).flatten(1).softmax(1).view(2, 3, 3)
    assert ATTENTION_LOSSES["kl"](attention.log(), attention).abs().max() < 1e-6


@pytest.mark.parametrize("name", GUIDANCE)
def test_guidance_gradients(name):
    generator = torch.Generator().manual_seed(3)
    saliency = torch.randn(3, 3, 4, dtype=torch.float64, generator=generator).requires_grad_()
    prior = torch.rand(3, 3, 4, dtype=torch.float64, generator=generator)
    assert gradcheck(lambda s: GUIDANCE_LOSSES[name](s, prior), saliency)


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_gradients(name):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(3, 3, 4, dtype=torch.float64, generator=generator).requires_grad_()
    prior = torch.rand(3, 3, 4, dtype=torch.float64, generator=generator)
    assert gradcheck(lambda z: ATTENTION_LOSSES[name](z, prior), logits)


@pytest.mark.parametrize(
    ("name", "expected"), [("energy", 1.0), ("energy_both_signs", 1.0), ("l1", 0.375), ("ppce", None), ("rrr", 0.0)]
)
def test_a_map_without_evidence_gives_a_constant_and_no_gradient(name, expected):
    saliency = torch.zeros(1, 2, 2, requires_grad=True)
    loss = GUIDANCE_LOSSES[name](saliency, PRIOR)
    constant = math.log((1 + PPCE_FLOOR) / PPCE_FLOOR) if expected is None else expected
    torch.testing.assert_close(loss.detach(), torch.tensor([constant]))
    (gradient,) = torch.autograd.grad(loss.sum(), saliency)
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("name", ["energy", "l1", "ppce"])
def test_a_map_with_negative_evidence_only_counts_as_without_evidence(name):
    saliency = -torch.rand(1, 2, 2) - 0.1
    torch.testing.assert_close(
        GUIDANCE_LOSSES[name](saliency, PRIOR), GUIDANCE_LOSSES[name](torch.zeros(1, 2, 2), PRIOR)
    )


def test_one_sign_counts_alone():
    saliency = torch.tensor([[[3.0, 1.0]], [[-3.0, -1.0]]])
    prior = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
    assert GUIDANCE_LOSSES["energy_both_signs"](saliency, prior).tolist() == [0.25, 0.25]


@pytest.mark.parametrize("name", GUIDANCE)
def test_guidance_is_computed_in_float32_from_half_precision(name):
    saliency = (torch.randn(2, 4, 4) * 3e4).clamp(-6e4, 6e4).half()  # a sum or square in half precision overflows
    prior = torch.rand(2, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = GUIDANCE_LOSSES[name](saliency, prior)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, GUIDANCE_LOSSES[name](saliency.float(), prior))


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_is_computed_in_float32_from_half_precision(name):
    logits, prior = (torch.randn(2, 4, 4) * 20).half(), torch.rand(2, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ATTENTION_LOSSES[name](logits, prior)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, ATTENTION_LOSSES[name](logits.float(), prior))


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_saturated_attention_stays_finite(name, logit):
    logits = torch.full((1, 2, 2), logit, requires_grad=True)
    loss = ATTENTION_LOSSES[name](logits, PRIOR).sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["ppce", "kl"])
def test_empty_prior_gives_zero(name):
    logits = torch.randn(1, 2, 2, requires_grad=True)
    loss = ATTENTION_LOSSES[name](logits, torch.zeros(1, 2, 2))
    assert loss.item() == 0
    assert not torch.autograd.grad(loss.sum(), logits)[0].any()


def test_energy_inside_by_hand():
    assert energy_inside(SALIENCY, PRIOR).item() == pytest.approx(0.8)


def test_masked_mean_by_hand():
    loss = torch.tensor([1.0, torch.nan, 3.0], requires_grad=True)
    mean = masked_mean(loss, torch.tensor([True, False, True]))
    assert mean.item() == 2
    assert torch.autograd.grad(mean, loss)[0].tolist() == [0.5, 0.0, 0.5]


def test_masked_mean_of_nothing_is_zero_and_keeps_the_graph():
    loss = torch.tensor([1.0, 3.0], requires_grad=True)
    mean = masked_mean(loss, torch.tensor([False, False]))
    assert mean.item() == 0
    assert torch.autograd.grad(mean, loss)[0].tolist() == [0.0, 0.0]
