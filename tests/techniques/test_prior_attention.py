"""Attention that is told where to look."""

import pytest
import torch
import torch.nn.functional as F

from lightning_priors.callbacks.cam_panel import collect_evidence
from lightning_priors.errors import PriorError
from lightning_priors.functional import energy_inside, masked_mean, prior_map
from lightning_priors.functional.guidance import ATTENTION_LOSSES
from lightning_priors.nn import AttentionBranch, Classifier
from lightning_priors.priors import Seen, see
from lightning_priors.priors.guided_attention import Look
from lightning_priors.techniques import Pretrained, PriorAttention

LOSSES = list(ATTENTION_LOSSES)
VIT = {"backbone": "test_vit", "attention": "tokens"}
BOTH = pytest.mark.parametrize("options", [{}, VIT], ids=["branch", "tokens"])


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def look(module: PriorAttention, image: torch.Tensor) -> tuple[Seen, Look]:
    """The pass of the network, and where it looks."""
    seen = see(module.classifier, module.priors_in_use(), image)
    return seen, seen.memories[0]


def branch_of(module: PriorAttention) -> AttentionBranch:
    (prior,) = module.priors
    assert prior.branch is not None
    return prior.branch


def fix_attention(module: PriorAttention, logit: float) -> PriorAttention:
    """Gives every cell of every image the same attention."""
    attention = branch_of(module).attention
    torch.nn.init.zeros_(attention.weight)
    torch.nn.init.constant_(attention.bias, logit)
    return module


def plain_network(module: PriorAttention, backbone: str = "tiny") -> Classifier:
    plain = Classifier(num_classes=2, backbone=backbone)
    plain.load_state_dict(module.classifier.state_dict())
    return plain.train(module.training)


BACKBONES = pytest.mark.parametrize(("backbone", "cells"), [("tiny", 4), ("resnet18", 2)])


@BACKBONES
@pytest.mark.parametrize("training", [True, False])
def test_no_attention_is_the_plain_network_to_the_bit(batch, training: bool, backbone: str, cells: int) -> None:
    module = fix_attention(PriorAttention(backbone=backbone), logit=-1e4).train(training)
    image = batch()["image"]
    logits, cam = plain_network(module, backbone)(image)
    assert torch.equal(module.explain_maps(image)["attention"], torch.zeros(6, cells, cells))
    explained = module.explain(image)
    assert torch.equal(explained[0], logits)
    assert torch.equal(explained[1], cam)


@BACKBONES
@pytest.mark.parametrize("logit", [-1e4, 0.0, 4.0])
def test_without_residual_even_attention_is_the_plain_network(batch, logit: float, backbone: str, cells: int) -> None:
    module = fix_attention(PriorAttention(backbone=backbone, residual=False), logit).double()
    image = batch()["image"].double()
    plain = plain_network(module.float(), backbone).double()(image)
    for left, right in zip(plain, module.double().explain(image), strict=True):
        torch.testing.assert_close(left, right)


@BOTH
@pytest.mark.parametrize("residual", [True, False])
def test_the_mean_of_the_map_plus_bias_is_the_logit(batch, options: dict, residual: bool) -> None:
    module = PriorAttention(residual=residual, **options).double().eval()
    torch.nn.init.normal_(module.classifier.head.bias)
    logits, cam = module.explain(batch()["image"].double())
    torch.testing.assert_close(cam.mean((2, 3)) + module.classifier.head.bias, logits, rtol=0, atol=1e-12)
    assert torch.equal(module(batch()["image"].double()), logits)


@BOTH
@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_made_of_its_terms(batch, loss: str, options: dict) -> None:
    module, sample = PriorAttention(loss=loss, weight=0.7, **options), batch(size=64)
    step, (seen, looked) = module.step(sample), look(module, sample["image"])
    prior, valid = prior_map(sample, looked.logits.shape[1:])
    assert valid.all()
    expected = {
        "primary": F.cross_entropy(seen.logits, sample["label"]),
        "attention": 0.7 * ATTENTION_LOSSES[loss](looked.logits, prior).mean(),
    }
    if looked.branch_logits is not None:
        expected["branch"] = F.cross_entropy(looked.branch_logits, sample["label"])
    assert (looked.branch_logits is None) is bool(options)
    assert step.terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(step.terms[name], value)
        assert value > 0
    torch.testing.assert_close(step.loss, sum(expected.values()))
    torch.testing.assert_close(step.logits, seen.logits)


@BOTH
def test_weight_zero_is_plain_training_to_the_bit(fit, options: dict) -> None:
    torch.manual_seed(0)
    plain = Pretrained(backbone=options.get("backbone", "tiny"))
    torch.manual_seed(0)
    module = PriorAttention(weight=0.0, **options)
    for each in (plain, module):
        fit(each)
    state = plain.state_dict()
    assert state.keys() == module.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


@BOTH
def test_the_attention_loss_and_the_branch_teach_the_backbone(batch, options: dict) -> None:
    module, sample = PriorAttention(**options), batch()
    first = module.classifier.backbone.layers()[0][0]
    terms = module.step(sample).terms
    for name in terms.keys() - {"primary"}:
        (gradient,) = torch.autograd.grad(terms[name], first, retain_graph=True)
        assert gradient.abs().sum() > 0, name
    head = module.classifier.head.weight
    assert torch.autograd.grad(terms["attention"], head, allow_unused=True) == (None,)


@BOTH
def test_every_parameter_gets_a_gradient(batch, options: dict) -> None:
    """One without would stall DistributedDataParallel."""
    module = PriorAttention(**options)
    module.step(batch()).loss.backward()
    without = [name for name, value in module.named_parameters() if value.requires_grad and value.grad is None]
    assert without == []


@BOTH
def test_an_absent_annotation_changes_nothing(batch, options: dict) -> None:
    """Whatever the mask of an image without annotation holds, loss and gradient are the same."""
    module, results = PriorAttention(**options).double(), []
    for content in (0.0, 0.3, 1.0):
        sample = batch()
        sample["image"] = sample["image"].double()
        sample["mask_valid"][::2] = False
        sample["mask"][::2] = content
        loss = module.step(sample).loss
        parameters = [value for value in module.parameters() if value.requires_grad]
        results.append((loss, *torch.autograd.grad(loss, parameters)))
    for other in results[1:]:
        assert all(torch.equal(left, right) for left, right in zip(results[0], other, strict=True))


def test_the_attention_loss_is_the_mean_over_the_annotated_images(batch) -> None:
    module, sample = PriorAttention().eval(), batch()
    sample["mask_valid"][2:] = False
    pair = {key: value[:2] for key, value in sample.items()}
    torch.testing.assert_close(module.step(sample).terms["attention"], module.step(pair).terms["attention"])


def test_no_annotation_at_all_adds_nothing(batch) -> None:
    module, sample = PriorAttention(), batch()
    sample["mask_valid"][:] = False
    step = module.step(sample)
    assert step.terms["attention"] == 0
    torch.testing.assert_close(step.loss, step.terms["primary"] + step.terms["branch"], rtol=0, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_prior_of_ones_prefers_no_cell(loss: str) -> None:
    """If everything is target, cells looked at alike are pulled alike, and energy and kl do not pull at all."""
    logits = torch.full((2, 3, 4), 0.3, dtype=torch.float64, requires_grad=True)
    value = ATTENTION_LOSSES[loss](logits, torch.ones(2, 3, 4))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    torch.testing.assert_close(gradient, gradient.mean().expand_as(gradient))
    still = loss in ("energy", "kl")
    assert torch.allclose(value, torch.zeros(2).double(), atol=1e-12) is still
    assert torch.allclose(gradient, torch.zeros(1).double(), atol=1e-12) is still
    uneven = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    moved = ATTENTION_LOSSES[loss](uneven, torch.ones(2, 3, 4))
    (gradient,) = torch.autograd.grad(moved.sum(), uneven)
    if loss == "energy":
        assert torch.allclose(moved, torch.zeros(2).double(), atol=1e-12)
        assert torch.allclose(gradient, torch.zeros(1).double(), atol=1e-12)
    elif loss == "kl":
        assert (moved > 1e-3).all(), "the even map is the one minimum"
    else:  # a cell's pull depends on its own attention alone, upwards
        assert (gradient < 0).all()


@BOTH
@pytest.mark.parametrize(("loss", "target"), [("energy", "zero"), ("kl", "even")])
def test_a_mask_of_ones_through_the_whole_step(batch, loss: str, target: str, options: dict) -> None:
    module, sample = PriorAttention(loss=loss, **options).double(), batch(size=64)
    sample["image"], sample["mask"] = sample["image"].double(), torch.ones(6, 64, 64).double()
    value = module.step(sample).terms["attention"]
    gradients = torch.autograd.grad(value, [p for p in module.parameters() if p.requires_grad], allow_unused=True)
    none_moves = all(g is None or torch.allclose(g, torch.zeros_like(g), atol=1e-12) for g in gradients)
    assert none_moves is (target == "zero")
    assert (value.abs() < 1e-12) == (target == "zero")


@pytest.mark.parametrize(
    "options",
    [
        {"prior": "mask", "dilation": 0.5},
        {"prior": "part_boxes"},
        {"prior": "part_boxes", "dilation": 0.5},
        {"prior": "part_boxes", "hard": True},
        {"prior": "keypoints", "sigma": 0.1},
        {"prior": "keypoints", "sigma": 0.3},
    ],
)
def test_the_prior_is_the_one_asked_for(batch, options: dict) -> None:
    module = PriorAttention(**options)  # in training mode: the statistics of a new network may leave no map to compare
    sample = batch(keys=("mask", "part_boxes", "keypoints"))
    sample["part_boxes"] = sample["part_boxes"] - 3  # no longer what the mask covers
    logits = look(module, sample["image"])[1].logits
    prior, valid = prior_map(sample, (4, 4), options["prior"], **{k: v for k, v in options.items() if k != "prior"})
    expected = masked_mean(ATTENTION_LOSSES["bce"](logits, prior), valid)
    torch.testing.assert_close(module.step(sample).terms["attention"], expected)
    plain, _ = prior_map(sample, (4, 4))
    assert not torch.allclose(prior, plain)


def test_a_mirrored_image_has_mirrored_attention(batch) -> None:
    module, image = PriorAttention().double(), batch()["image"].double()
    with torch.no_grad():
        kernels = [layer.weight for layer in module.modules() if isinstance(layer, torch.nn.Conv2d)]
        for kernel in kernels:
            kernel.copy_((kernel + kernel.flip(3)) / 2)
    # 25 columns: with an odd number a stride of 2 takes the same cells from either side
    image = image[..., :25]
    attention, mirrored = (module.explain_maps(picture)["attention"] for picture in (image, image.flip(3)))
    (logits, cam), (mirrored_logits, mirrored_cam) = (module.explain(picture) for picture in (image, image.flip(3)))
    torch.testing.assert_close(mirrored, attention.flip(2))
    torch.testing.assert_close(mirrored_cam, cam.flip(3))
    torch.testing.assert_close(mirrored_logits, logits)
    assert not torch.allclose(attention, attention.flip(2))


@pytest.mark.parametrize("backbone", ["tiny", "resnet18"])
def test_tokens_need_a_transformer(backbone: str) -> None:
    with pytest.raises(PriorError, match=f"backbone '{backbone}' has no attention between tokens"):
        PriorAttention(backbone=backbone, attention="tokens")


@BOTH
def test_the_panel_finds_the_attention(batch, options: dict) -> None:
    module, image = PriorAttention(**options), batch(size=64)["image"]
    further = collect_evidence(module, image).further
    assert further.keys() == {"attention"}
    expected = look(module.eval(), image)[1].logits.detach().sigmoid()
    torch.testing.assert_close(further["attention"], expected)
    assert expected.amin() >= 0
    assert expected.amax() <= 1


@BOTH
def test_the_attention_moves_onto_the_target(fit, batch, options: dict) -> None:
    """Trained on the same batches, the attention that was told has more of itself inside."""

    def share_inside(**told) -> float:
        torch.manual_seed(0)
        module, sample = PriorAttention(lr=3e-3, **told, **options), batch(count=8)
        fit(module, epochs=8)
        attention = module.eval().explain_maps(sample["image"])["attention"].detach()
        prior, _ = prior_map(sample, attention.shape[1:])
        return energy_inside(attention, prior).mean().item()

    untold = share_inside(weight=1e-9)
    told = {loss: share_inside(loss=loss, weight=5.0) for loss in LOSSES}
    assert min(told.values()) > untold + 0.05, told


def test_the_attention_of_tokens_is_measured_against_an_even_share(batch) -> None:
    """M / (1 - M) is the attention in even shares, so its mean over the patches is 1."""
    attention = PriorAttention(**VIT).double().explain_maps(batch(size=64)["image"].double())["attention"]
    torch.testing.assert_close((attention / (1 - attention)).mean((1, 2)), torch.ones(6).double())
