"""DFR and AFR: the convex problems against their conditions of optimality and torch, the draws, and whole runs."""

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import Kakapo
from lightning_priors.errors import PriorError
from lightning_priors.techniques import AFR, LastLayerRetraining, Pretrained
from lightning_priors.techniques.afr import image_weights, tuned_last_layer
from lightning_priors.techniques.last_layer_retraining import balanced_draw, retrained, sparse_last_layer
from lightning_priors.techniques.retrained_head import HeldOut, LastLayer, RetrainedHead


def problem(images: int = 60, features: int = 12, classes: int = 2):
    generator = np.random.default_rng(0)
    label = generator.integers(0, classes, images)
    values = generator.normal(size=(images, features))
    values[np.arange(images), label] += 1.0
    return values, label


def by_torch(features, label, weights, layer: LastLayer):
    """The cross entropy and its derivative by autograd."""
    parameters = [torch.tensor(part, requires_grad=True) for part in layer]
    logits = torch.tensor(features) @ parameters[0].T + parameters[1]
    loss = (torch.tensor(weights) * F.cross_entropy(logits, torch.tensor(label), reduction="none")).sum()
    return [gradient.numpy() for gradient in torch.autograd.grad(loss, parameters)]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("strength", [0.2, 0.5])
def test_a_sparse_last_layer_is_the_optimum(classes: int, strength: float) -> None:
    """The subgradient of the penalty balances the derivative: its sign where a weight is, at most 1 where none is."""
    features, label = problem(classes=classes)
    layer = sparse_last_layer(features, label, classes, strength)
    by_weight, by_bias = by_torch(features, label, np.full(len(label), strength), layer)
    used = np.abs(layer.weight) > 1e-6
    assert 0 < used.sum() < used.size
    np.testing.assert_allclose(by_weight[used], -np.sign(layer.weight[used]), atol=1e-3)
    assert np.abs(by_weight).max() < 1 + 1e-3
    np.testing.assert_allclose(by_bias, 0, atol=1e-3)


def test_two_classes_are_the_regression_with_one_vector_of_weights() -> None:
    """The problem of the authors, |w|_1 + C * sum log(1 + exp(-y w.x)), by its conditions on w = W[1] - W[0]."""
    features, label = problem()
    layer = sparse_last_layer(features, label, 2, strength=0.3)
    weight, bias = layer.weight[1] - layer.weight[0], layer.bias[1] - layer.bias[0]
    sign = 2 * label - 1
    by_weight = -0.3 * features.T @ (sign / (1 + np.exp(sign * (features @ weight + bias))))
    used = np.abs(weight) > 1e-6
    np.testing.assert_allclose(by_weight[used], -np.sign(weight[used]), atol=1e-3)
    assert np.abs(by_weight).max() < 1 + 1e-3


def test_the_tuned_last_layer_is_the_optimum() -> None:
    features, label = problem(classes=3)
    weights = image_weights(features[:, :3], label, gamma=3.0)
    start = LastLayer(np.random.default_rng(1).normal(size=(3, 12)), np.zeros(3))
    layer = tuned_last_layer(features, label, weights, start, penalty=0.2)
    for value, first, gradient in zip(layer, start, by_torch(features, label, weights, layer), strict=True):
        np.testing.assert_allclose(gradient, -2 * 0.2 * (value - first), atol=1e-5)


def test_a_strong_penalty_keeps_the_last_layer() -> None:
    features, label = problem()
    start = LastLayer(np.ones((2, 12)), np.array([1.0, -1.0]))
    kept = tuned_last_layer(features, label, np.full(60, 1 / 60), start, penalty=1e6)
    np.testing.assert_allclose(kept.weight, start.weight, atol=1e-5)


def test_weights_of_images_are_those_of_the_paper() -> None:
    """The authors' get_exp_weights, rebalance_weights and normalize_weights (github.com/AndPotap/afr)."""
    logits, label = torch.randn(30, 3, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 5 % 3
    weights = torch.exp(-4.0 * logits.softmax(1)[torch.arange(30), label])
    for number in range(3):
        weights[label == number] *= 30 / (label == number).sum()
    np.testing.assert_allclose(
        image_weights(logits.double().numpy(), label.numpy(), 4.0), weights / weights.sum(), rtol=1e-5
    )


def test_a_draw_has_as_many_of_each_kind_as_the_rarest_has() -> None:
    kinds = np.array([0] * 10 + [2] * 3 + [5] * 7)
    drawn = balanced_draw(kinds, np.random.default_rng(0))
    assert np.unique(kinds[drawn], return_counts=True)[1].tolist() == [3, 3, 3]
    assert len(set(drawn.tolist())) == 9


def biased() -> HeldOut:
    """A strong feature that agrees with the label in nine of ten images, and a weaker one that always does."""
    generator = np.random.default_rng(0)
    label = np.arange(400) % 2
    agrees = np.arange(400) % 20 > 1
    place = np.where(agrees, label, 1 - label)
    features = np.stack([4.0 * (2 * place - 1), 2 * label - 1], 1) + generator.normal(size=(400, 2)) * [0.5, 0.8] + 7
    return HeldOut(features, features, label, 2 * label + place)


def test_balanced_groups_forget_the_background_and_balanced_classes_do_not() -> None:
    held_out = biased()
    of_groups = retrained(held_out, held_out.group, 2, (1.0, 0.1))
    of_classes = retrained(held_out, held_out.label, 2, (1.0, 0.1))
    place, bird = np.abs(of_groups.weight[1] - of_groups.weight[0])
    assert bird > 10 * place
    other_place, other_bird = np.abs(of_classes.weight[1] - of_classes.weight[0])
    assert other_place / other_bird > 3 * place / bird


def test_a_move_of_the_features_changes_no_logit() -> None:
    held_out = biased()
    moved = held_out._replace(features=held_out.features * [10.0, 0.1] + [3.0, -8.0])
    one, other = (retrained(given, given.group, 2, (0.3,)) for given in (held_out, moved))
    np.testing.assert_allclose(
        held_out.features @ one.weight.T + one.bias, moved.features @ other.weight.T + other.bias, atol=1e-3
    )


# ---- whole runs


def data(**options) -> PriorDataModule:
    return PriorDataModule(
        Kakapo(train_size=40, val_size=16, test_size=8, size=32), batch_size=16, image_size=32, **options
    )


def fit(module, **options) -> L.Trainer:
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
                        enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(module, datamodule=data(**options))
    return trainer


@pytest.mark.parametrize("module", [LastLayerRetraining(), AFR()], ids=["DFR", "AFR"])
def test_the_answer_is_that_of_the_fitted_last_layer_on_the_held_out_images(module: RetrainedHead) -> None:
    trainer = fit(module, held_out_fraction=0.5)
    images = torch.cat([batch["image"] for batch in trainer.datamodule.held_out_dataloader()])
    assert len(images) == 20
    module.eval()
    held_out = module._held_out()
    layer = module.fitted(held_out)
    expected = held_out.features @ layer.weight.T + layer.bias
    with torch.no_grad():
        logits, cam = module.explain(images)
    torch.testing.assert_close(logits.double(), torch.tensor(expected), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(cam.mean((2, 3)) + module.head.bias, logits)
    assert not torch.equal(module.head.weight, module.classifier.head.weight)


def test_the_network_is_trained_as_a_plain_one_is_without_the_held_out_images() -> None:
    module, plain = LastLayerRetraining(balance="classes"), Pretrained()
    plain.classifier.load_state_dict(module.classifier.state_dict())
    fit(module, held_out_fraction=0.5)
    fit(plain, held_out_fraction=0.5)
    for name, value in plain.classifier.state_dict().items():
        assert torch.equal(module.classifier.state_dict()[name], value), name


@pytest.mark.parametrize("of", ["train", "val"])
def test_held_out_images_neither_train_nor_select(of: str) -> None:
    module = data(held_out_fraction=0.25, held_out_of=of)
    module.setup("fit")
    held_out = torch.cat([batch["index"] for batch in module.held_out_dataloader()]).tolist()
    train, val = (module.datasets[split].indices for split in ("train", "val"))
    assert len(held_out) == {"train": 10, "val": 4}[of]
    assert not {*held_out} & {*train, *val}
    whole = data()
    whole.setup("fit")
    assert {*train, *val, *held_out} == {*whole.datasets["train"].indices, *whole.datasets["val"].indices}


def test_data_that_holds_nothing_out() -> None:
    with pytest.raises(PriorError, match="no images are held out; set held_out_fraction"):
        fit(AFR())


def test_options_out_of_their_range() -> None:
    with pytest.raises(PriorError, match="penalty is above 0"):
        AFR(penalty=0.0)
    with pytest.raises(PriorError, match="balance is 'groups' or 'classes', not 'group'"):
        LastLayerRetraining(balance="group")
