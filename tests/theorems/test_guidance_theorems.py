"""What holds exactly for every guidance and attention loss."""

import pytest
import torch

from lightning_priors.functional.cam import class_activation_map, evidence_map
from lightning_priors.functional.guidance import (
    ATTENTION_LOSSES,
    GUIDANCE_LOSSES,
    energy_inside,
    masked_mean,
)
from lightning_priors.functional.prior_maps import prior_map

GUIDANCE = list(GUIDANCE_LOSSES)
SCALES = [1e-6, 1e-3, 1.0, 1e3, 1e6]


def random_maps(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 5, 4, generator=generator), torch.rand(6, 5, 4, generator=generator)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [*SCALES, 1e-30, 1e30])
def test_energy_lies_between_zero_and_one(seed, scale):
    saliency, prior = random_maps(seed)
    for sign in (1, -1):
        energy = energy_inside(sign * scale * saliency, prior)
        assert (energy >= 0).all()
        assert (energy <= 1).all()


@pytest.mark.parametrize("scale", SCALES)
def test_energy_is_one_when_all_positive_evidence_lies_inside(scale):
    saliency, prior = random_maps(0)
    inside = (prior > 0.5).float()
    confined = torch.where(inside > 0, saliency, -saliency.abs()) * scale
    torch.testing.assert_close(energy_inside(confined, inside), torch.ones(6))
    assert torch.equal(energy_inside(confined, 1 - inside), torch.zeros(6))


@pytest.mark.parametrize("scale", [*SCALES, 1e-30, 1e30])
@pytest.mark.parametrize("name", GUIDANCE)
def test_a_positive_factor_changes_no_guidance_loss(name, scale):
    saliency, prior = random_maps(1)
    torch.testing.assert_close(GUIDANCE_LOSSES[name](scale * saliency, prior), GUIDANCE_LOSSES[name](saliency, prior))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", GUIDANCE)
def test_gradients_shrink_with_the_scale_and_are_orthogonal_to_the_map(name, scale):
    """Euler's theorem for functions of degree zero: no loss can be lowered by making the map larger or smaller."""
    saliency, prior = random_maps(2)
    unit = saliency.double().requires_grad_()
    scaled = (scale * saliency.double()).requires_grad_()
    (at_unit,) = torch.autograd.grad(GUIDANCE_LOSSES[name](unit, prior).sum(), unit)
    (at_scale,) = torch.autograd.grad(GUIDANCE_LOSSES[name](scaled, prior).sum(), scaled)
    torch.testing.assert_close(at_scale * scale, at_unit)
    assert (at_unit * unit).sum((1, 2)).abs().max() < 1e-12


def test_losses_vanish_for_a_map_that_equals_a_hard_prior():
    _, prior = random_maps(3)
    hard = (prior > 0.5).float()
    for name in GUIDANCE:
        torch.testing.assert_close(GUIDANCE_LOSSES[name](7 * hard, hard), torch.zeros(6))


def test_energy_moves_evidence_inwards():
    saliency, prior = random_maps(4)
    hard = (prior > 0.5).float()
    saliency.requires_grad_()
    (gradient,) = torch.autograd.grad(GUIDANCE_LOSSES["energy"](saliency, hard).sum(), saliency)
    assert (gradient[(hard == 1) & (saliency > 0)] <= 0).all()
    assert (gradient[(hard == 0) & (saliency > 0)] >= 0).all()
    assert not gradient[saliency < 0].any()


def test_a_prior_of_ones_has_no_preference():
    """Evidence anywhere is inside: the energies are zero and flat; kl is least for even attention."""
    saliency, _ = random_maps(5)
    everywhere = torch.ones_like(saliency)
    saliency.requires_grad_()
    for name in ("energy", "energy_both_signs", "rrr"):
        loss = GUIDANCE_LOSSES[name](saliency, everywhere)
        torch.testing.assert_close(loss, torch.zeros(6))
        (gradient,) = torch.autograd.grad(loss.sum(), saliency)
        assert gradient.abs().max() < 1e-6
    torch.testing.assert_close(ATTENTION_LOSSES["kl"](torch.full((6, 5, 4), 3.0), everywhere), torch.zeros(6))


@pytest.mark.parametrize("dims", [(1,), (2,), (1, 2)])
def test_flipping_map_and_prior_changes_no_loss(dims):
    saliency, prior = random_maps(6)
    for loss in (*GUIDANCE_LOSSES.values(), *ATTENTION_LOSSES.values()):
        torch.testing.assert_close(loss(saliency.flip(dims), prior.flip(dims)), loss(saliency, prior))


@pytest.mark.parametrize("name", GUIDANCE)
def test_each_image_has_its_own_loss(name):
    saliency, prior = random_maps(7)
    alone = torch.cat([GUIDANCE_LOSSES[name](saliency[i : i + 1], prior[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(GUIDANCE_LOSSES[name](saliency, prior), alone)


@pytest.mark.parametrize("name", GUIDANCE)
def test_images_without_annotation_change_neither_loss_nor_gradient(name):
    """From features to the mean loss: the batch with unannotated images equals the batch of the annotated alone."""
    generator = torch.Generator().manual_seed(8)
    features = torch.randn(5, 4, 4, 4, generator=generator, dtype=torch.float64)
    mask = torch.rand(5, 16, 16, generator=generator, dtype=torch.float64)
    valid, label = torch.tensor([True, False, True, True, False]), torch.tensor([0, 1, 2, 0, 1])
    mask[4] = torch.nan  # what a missing mask holds is nobody's business
    weight = torch.randn(3, 4, generator=generator, dtype=torch.float64).requires_grad_()

    def loss_and_gradient(rows):
        evidence = evidence_map(class_activation_map(features[rows], weight), label[rows])
        prior, annotated = prior_map({"mask": mask[rows], "mask_valid": valid[rows]}, (4, 4))
        loss = masked_mean(GUIDANCE_LOSSES[name](evidence, prior), annotated)
        return loss, torch.autograd.grad(loss, weight)[0]

    for whole, part in zip(loss_and_gradient(slice(None)), loss_and_gradient(valid), strict=True):
        torch.testing.assert_close(whole, part)
