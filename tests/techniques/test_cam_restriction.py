"""Restriction of the class activation map."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from lightning_priors.errors import PriorError
from lightning_priors.functional import evidence_map, prior_map
from lightning_priors.functional.backgrounds import exchange_cells
from lightning_priors.functional.guidance import GUIDANCE_LOSSES, energy_loss
from lightning_priors.nn import Backbone, RegionFinder
from lightning_priors.priors.prior import weighted_logits
from lightning_priors.priors.restriction import EXCHANGE_STRIDE
from lightning_priors.techniques import CAMRestriction, Pretrained


def finder_of(module: CAMRestriction) -> RegionFinder:
    (prior,) = module.priors
    assert prior.finder is not None
    return prior.finder


def test_weight_zero_is_plain_training_to_the_bit(fit) -> None:
    plain, restricted = Pretrained(), CAMRestriction(weight=0.0)
    restricted.load_state_dict(plain.state_dict())
    fit(plain)
    fit(restricted)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, restricted.state_dict()[name])


@pytest.mark.parametrize("loss", list(GUIDANCE_LOSSES))
def test_the_loss_is_cross_entropy_plus_the_weighted_guidance(batch, loss: str) -> None:
    module, sample = CAMRestriction(loss=loss, weight=0.7), batch()
    step = module.step(sample)
    logits, cam = module.explain(sample["image"])
    prior, valid = prior_map(sample, cam.shape[2:])
    assert valid.all()
    guidance = 0.7 * GUIDANCE_LOSSES[loss](evidence_map(cam, sample["label"]), prior).mean()
    torch.testing.assert_close(step.loss, F.cross_entropy(logits, sample["label"]) + guidance)
    torch.testing.assert_close(step.terms["restriction"], guidance)
    assert guidance > 0


@pytest.mark.parametrize("exchange", [False, True])
@pytest.mark.parametrize("hard_mask", [False, True])
def test_an_absent_annotation_changes_nothing(batch, hard_mask: bool, exchange: bool) -> None:
    """Whatever the mask of an image without annotation holds, loss and gradient are the same."""
    module = CAMRestriction(hard_mask=hard_mask, exchange_background=exchange).double()
    results = []
    for content in (0.0, 0.3, 1.0):
        sample = batch()
        sample["image"] = sample["image"].double()
        sample["mask_valid"][::2] = False
        sample["mask"][::2] = content
        torch.manual_seed(0)  # of the order in which backgrounds are exchanged
        loss = module.step(sample).loss
        results.append((loss, *torch.autograd.grad(loss, list(module.classifier.parameters()))))
    for other in results[1:]:
        assert all(torch.equal(left, right) for left, right in zip(results[0], other, strict=True))


def test_no_annotation_at_all_is_plain_cross_entropy(batch) -> None:
    module, sample = CAMRestriction(), batch()
    sample["mask_valid"][:] = False
    step = module.step(sample)
    torch.testing.assert_close(step.loss, F.cross_entropy(module(sample["image"]), sample["label"]), rtol=0, atol=0)


def test_hard_masking_hides_the_outside_from_the_loss() -> None:
    cam = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    prior = torch.zeros(2, 4, 4, dtype=torch.float64)
    prior[:, 1:3, :2] = 1
    bias = torch.randn(3, dtype=torch.float64)
    logits = weighted_logits(cam, bias, prior)
    torch.testing.assert_close(logits, cam[:, :, 1:3, :2].mean((2, 3)) + bias)
    (gradient,) = torch.autograd.grad(logits.square().sum(), cam)
    assert torch.equal(gradient[prior.unsqueeze(1).expand_as(gradient) == 0], torch.zeros(2 * 3 * 12).double())
    everywhere = weighted_logits(cam, bias, torch.ones_like(prior))
    torch.testing.assert_close(everywhere, cam.mean((2, 3)) + bias)


def test_hard_mask_trains_on_the_inside(batch) -> None:
    module, sample = CAMRestriction(hard_mask=True, weight=0.0), batch()
    _, cam = module.explain(sample["image"])
    prior, _ = prior_map(sample, cam.shape[2:])
    expected = weighted_logits(cam, module.classifier.head.bias, prior)
    torch.testing.assert_close(module.step(sample).logits, expected)


def test_the_weight_rises_over_its_warmup(fit) -> None:
    module = CAMRestriction(weight=2.0, weight_warmup_epochs=2.0)
    seen: list[tuple[float, bool]] = []
    original = module.step

    def watched(sample):
        step = original(sample)
        seen.append((module.epochs_done, "restriction" in step.terms))
        return step

    module.step = watched
    fit(module, epochs=3)
    assert [epochs for epochs, _ in seen] == pytest.approx([batch / 3 for batch in range(9)])
    assert [restricted for _, restricted in seen] == [False] + [True] * 8, "the weight is 0 at first"


def test_the_weight_of_the_warmup_scales_the_term(batch) -> None:
    module, sample = CAMRestriction(weight=2.0, weight_warmup_epochs=4.0), batch()
    full = module.step(sample).terms["restriction"]
    module.epochs_done = 1.0
    torch.testing.assert_close(module.step(sample).terms["restriction"], full / 4)


@pytest.mark.parametrize("dilation", [0.0, 0.5])
def test_boxes_serve_where_they_are_preferred(batch, dilation: float) -> None:
    module, sample = CAMRestriction(prior="part_boxes", dilation=dilation), batch()
    _, cam = module.explain(sample["image"])
    prior, _ = prior_map(sample, cam.shape[2:], prefer="part_boxes", dilation=dilation)
    expected = energy_loss(evidence_map(cam, sample["label"]), prior).mean()
    torch.testing.assert_close(module.step(sample).terms["restriction"], expected)
    del sample["mask"]
    torch.testing.assert_close(module.step(sample).terms["restriction"], expected)


def test_the_evidence_moves_onto_the_target(fit) -> None:
    """Trained on the same batches, the restricted network has more of its evidence inside."""
    energies = []
    for weight in (0.0, 5.0):
        trainer = fit(CAMRestriction(weight=weight, lr=3e-3), epochs=8)
        energies.append(trainer.callback_metrics["val/epg"].item())
    assert energies[1] > energies[0] + 0.1


def test_mirrored_images_and_masks_have_the_mirrored_gradient(batch) -> None:
    """The guidance loss is equivariant to flips of map and prior together."""
    sample = batch()
    prior, _ = prior_map(sample, (4, 4))
    cam = torch.randn(6, 2, 4, 4, requires_grad=True)
    loss = energy_loss(evidence_map(cam, sample["label"]), prior).sum()
    (gradient,) = torch.autograd.grad(loss, cam)
    mirrored = cam.detach().flip(3).requires_grad_()
    loss = energy_loss(evidence_map(mirrored, sample["label"]), prior.flip(2)).sum()
    (mirrored_gradient,) = torch.autograd.grad(loss, mirrored)
    torch.testing.assert_close(mirrored_gradient.flip(3), gradient)


BACKBONES = pytest.mark.parametrize("backbone", ["tiny", "resnet18"])


@BACKBONES
def test_where_all_is_annotated_nothing_found_counts(batch, backbone: str) -> None:
    """The network's gradient is to the bit that of the annotation alone; the finder's goes into the finder alone."""
    plain, finding = (CAMRestriction(backbone=backbone, found_regions=found) for found in (False, True))
    finding.classifier.load_state_dict(plain.classifier.state_dict())
    sample = batch(size=64)
    gradients = []
    for module in (plain, finding):
        loss = module.step(sample).loss
        wanted = [value for value in module.classifier.parameters() if value.requires_grad]
        gradients.append(torch.autograd.grad(loss, wanted))
    assert all(torch.equal(left, right) for left, right in zip(*gradients, strict=True))


@BACKBONES
@pytest.mark.parametrize("hard_mask", [False, True])
def test_what_is_found_takes_the_place_of_what_is_missing(batch, hard_mask: bool, backbone: str) -> None:
    module = CAMRestriction(backbone=backbone, weight=0.7, hard_mask=hard_mask, found_regions=True).eval()
    sample = batch(size=64)
    sample["mask_valid"][2:] = False
    logits, cam = module.explain(sample["image"])
    (region,) = module.explain_maps(sample["image"]).values()
    prior, _ = prior_map(sample, cam.shape[2:])
    prior[2:] = F.adaptive_avg_pool2d(region, cam.shape[2:])[2:]
    step = module.step(sample)
    guidance = 0.7 * energy_loss(evidence_map(cam, sample["label"]), prior).mean()
    torch.testing.assert_close(step.terms["restriction"], guidance)
    expected = weighted_logits(cam, module.classifier.head.bias, prior) if hard_mask else logits
    torch.testing.assert_close(step.logits, expected)
    fine, _ = prior_map(sample, region.shape[1:])
    cells = F.binary_cross_entropy(region[:2], fine[:2])
    torch.testing.assert_close(step.terms["finder"], cells)


def test_without_any_annotation_every_parameter_gets_a_gradient(batch) -> None:
    """One without would stall DistributedDataParallel; and the finder learns nothing."""
    module, sample = CAMRestriction(found_regions=True), batch()
    sample["mask_valid"][:] = False
    module.step(sample).loss.backward()
    assert all(value.grad is not None for value in module.parameters())
    assert not any(value.grad.any() for value in finder_of(module).parameters() if value.grad is not None)


def test_what_is_found_teaches_nothing_but_the_evidence(batch) -> None:
    """The finder gets no gradient from the restriction, and the network none from the finder."""
    module, sample = CAMRestriction(found_regions=True), batch()
    sample["mask_valid"][2:] = False
    terms = module.step(sample).terms
    network, finder = list(module.classifier.parameters()), list(finder_of(module).parameters())
    for name, untouched in (("finder", network), ("restriction", finder), ("primary", finder)):
        found = torch.autograd.grad(terms[name], untouched, retain_graph=True, allow_unused=True)
        assert found == (None,) * len(untouched), name


def test_the_finder_learns_at_a_rate_of_its_own(fit) -> None:
    """One step of plain descent, by hand."""
    torch.manual_seed(0)
    module = CAMRestriction(found_regions=True, finder_lr_factor=3.0, optimizer=partial(torch.optim.SGD, lr=0.1))
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    fit(module, max_steps=1)
    for name, value in module.named_parameters():
        assert value.grad is not None
        rate = 0.3 if name.startswith("priors.0.finder.") else 0.1
        torch.testing.assert_close(value.detach(), before[name] - rate * value.grad)


def test_the_finder_finds_in_images_that_it_was_never_shown_the_region_of(fit) -> None:
    module = CAMRestriction(found_regions=True, lr=3e-3)
    trainer = fit(module, epochs=15)
    sample = next(iter(trainer.val_dataloaders))
    (region,) = module.eval().explain_maps(sample["image"]).values()
    prior, _ = prior_map(sample, region.shape[1:])
    inside = (region * prior).sum((1, 2)) / region.sum((1, 2))
    assert inside.mean() > 2 * prior.mean()


def roll_among(valid: torch.Tensor) -> torch.Tensor:
    """In place of a random order one in which each known background comes from the next image that has one."""
    order = torch.arange(len(valid))
    order[valid] = order[valid].roll(1)
    return order


@BACKBONES
@pytest.mark.parametrize("found", [False, True])
def test_later_stages_see_exchanged_backgrounds(batch, monkeypatch, backbone: str, found: bool) -> None:
    """Step by step by hand, with the regions of the annotation and with those that are found."""
    torch.manual_seed(0)
    monkeypatch.setattr("lightning_priors.priors.restriction.shuffle_among", roll_among)
    module = CAMRestriction(backbone=backbone, found_regions=found, exchange_background=True).eval()
    sample = batch(size=64)
    sample["mask_valid"][4:] = False
    if found:
        finder_of(module).predict[-1].weight.data *= 1000  # regions that differ from cell to cell
    region = module.explain_maps(sample["image"])["region"] if found else torch.ones(())
    seen = []

    def by_hand(finer: torch.Tensor) -> torch.Tensor:
        cover, valid = prior_map(sample, finer.shape[2:])
        if found:
            cover[4:] = region[4:]
            valid = torch.ones_like(valid)
        seen.append(exchange_cells(finer, cover, roll_among(valid)))
        assert torch.equal(seen[0][4:], finer[4:]) is not found
        assert not any(torch.equal(here, there) for here, there in zip(seen[0][:4], finer[:4], strict=True))
        return seen[0]

    stage, _ = module.classifier.backbone.finer_stage(EXCHANGE_STRIDE)
    features = module.classifier.backbone.forward_changed(sample["image"], {stage: by_hand})
    logits, cam = module.classifier.head(features)
    step = module.step(sample)
    torch.testing.assert_close(step.logits, logits)
    prior, valid = prior_map(sample, cam.shape[2:])
    if found:
        prior[4:], valid[4:] = F.adaptive_avg_pool2d(region, cam.shape[2:])[4:], True
    guidance = energy_loss(evidence_map(cam, sample["label"]), prior)[valid]
    torch.testing.assert_close(step.terms["restriction"], guidance.mean())
    module.priors[0].exchange_background = False
    assert not torch.allclose(step.logits, module.step(sample).logits)


def test_evaluation_sees_the_image_as_it_is(batch) -> None:
    plain, exchanging = (CAMRestriction(exchange_background=exchange).eval() for exchange in (False, True))
    exchanging.load_state_dict(plain.state_dict())
    image = batch()["image"]
    assert torch.equal(exchanging(image), plain(image))


def test_nothing_is_learned_from_exchanged_backgrounds(batch) -> None:
    """The colour of the backgrounds is the label; exchanged it says nothing."""
    losses = {}
    for exchange in (False, True):
        torch.manual_seed(0)
        module = CAMRestriction(backbone="resnet18", weight=0.0, exchange_background=exchange)
        module.classifier.backbone.requires_grad_(False)
        optimizer = torch.optim.Adam(module.classifier.head.parameters(), lr=3e-2)
        for _ in range(25):
            sample = batch(8, size=64)
            sample["mask"].zero_()[:, :32] = 1  # the upper half, so that few cells have seen both halves
            background = (1 - sample["mask"]).unsqueeze(1) * (6.0 * sample["label"] - 3).view(-1, 1, 1, 1)
            sample["image"] = torch.where(sample["mask"].unsqueeze(1) > 0, torch.randn(8, 3, 64, 64), background)
            optimizer.zero_grad()
            loss = module.step(sample).loss
            loss.backward()
            optimizer.step()
        losses[exchange] = loss.item()
    assert losses[False] < 0.1
    assert losses[True] > 0.4


def test_a_wrong_backbone_for_exchanged_backgrounds_is_said_at_once(monkeypatch) -> None:
    def no_stages(backbone: Backbone, stride: int) -> tuple[int, int]:
        raise PriorError(f"{backbone.name} does not hand out its stages")

    monkeypatch.setattr(Backbone, "finer_stage", no_stages)
    with pytest.raises(PriorError, match="tiny does not hand out"):
        CAMRestriction(exchange_background=True)
    CAMRestriction()
