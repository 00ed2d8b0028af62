"""What holds exactly of auxiliary tasks."""

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_priors.batch import PriorBatch
from lightning_priors.priors import AuxiliaryTasks
from lightning_priors.priors.auxiliary_tasks.task_losses import task_losses
from lightning_priors.priors.auxiliary_tasks.weighting import Weighting
from lightning_priors.techniques import Auxiliary

SIZES = [4, 3]
OFFLINE = [name for name in get_args(Weighting) if name != "torchjd"]
"""What needs no further package; torchjd's aggregators act through the same two lines as gradient similarity."""


def batch_of(images: int = 8, seed: int = 0) -> PriorBatch:
    """Labels of both classes; some images have no label in an auxiliary task."""
    generator = torch.Generator().manual_seed(seed)
    columns = [torch.randint(-1, size, (images,), generator=generator) for size in SIZES]
    return {
        "image": torch.randn(images, 3, 16, 16, generator=generator, dtype=torch.float64),
        "label": torch.arange(images) % 2,
        "index": torch.arange(images),
        "aux_labels": torch.stack(columns, 1),
    }


def module(seed: int = 0, **options: object) -> Auxiliary:
    """In float64; batch normalisation by its running statistics, so that each image is seen by itself."""
    torch.manual_seed(seed)
    options = {"aux_num_classes": SIZES} | options
    return Auxiliary(**options).double().eval()


def tasks(module: Auxiliary) -> AuxiliaryTasks:
    """The prior of a module."""
    (prior,) = module.priors
    return prior


def losses_of(module: Auxiliary, batch: PriorBatch) -> Tensor:
    """The losses (T,) of all tasks, without weights."""
    features = module.classifier.backbone(batch["image"])
    primary = F.cross_entropy(module.classifier.head(features)[0], batch["label"])
    others, _ = task_losses(tasks(module).heads(features), batch["aux_labels"])
    return torch.cat([primary[None], others])


def gradients(loss: Tensor, model: Auxiliary) -> dict[str, Tensor]:
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, retain_graph=True)
    return {name: g if g is not None else torch.zeros_like(named[name]) for name, g in zip(named, found, strict=True)}


def auxiliary_loss(model: Auxiliary, batch: PriorBatch) -> Tensor:
    terms = model.step(batch).terms
    return torch.stack([value for name, value in terms.items() if name != "primary"]).sum()


@pytest.mark.parametrize("mode", ["auxiliary", "multitask"])
@pytest.mark.parametrize("target", [0, 1])
def test_an_excluded_target_passes_exactly_no_auxiliary_gradient(mode: str, target: int) -> None:
    batch = batch_of()
    is_target = batch["label"] == target
    for exclude, passes in ((True, False), (False, True)):
        model = module(mode=mode, exclude_target=exclude, target_class=target)
        batch["image"] = batch["image"].detach().requires_grad_()
        (by_image,) = torch.autograd.grad(auxiliary_loss(model, batch), batch["image"])
        assert by_image[~is_target].abs().amax((1, 2, 3)).min() > 0
        assert bool(by_image[is_target].any()) == passes


@pytest.mark.parametrize("training", [False, True])
def test_heads_and_backbone_get_nothing_from_a_batch_of_targets(training: bool) -> None:
    """Nor do the statistics of batch normalisation carry anything over, in training mode."""
    batch = batch_of()
    batch["label"] = torch.zeros_like(batch["label"])
    for exclude in (True, False):
        model = module(exclude_target=exclude).train(training)
        values = gradients(auxiliary_loss(model, batch), model)
        touched = {name for name, gradient in values.items() if gradient.any()}
        if exclude:
            assert not touched
        else:
            assert {"priors.0.heads.weight", "priors.0.heads.bias"} <= touched
            assert any(name.startswith("classifier.backbone") for name in touched)
            assert not any(name.startswith("classifier.head") for name in touched)


def test_with_excluded_targets_their_auxiliary_labels_and_pictures_do_not_matter() -> None:
    model, batch = module(exclude_target=True), batch_of()
    reference = gradients(auxiliary_loss(model, batch), model)
    is_target = batch["label"] == 0
    batch["aux_labels"][is_target] = 0
    batch["image"][is_target] = 0.0
    changed = gradients(auxiliary_loss(model, batch), model)
    assert all(torch.equal(reference[name], changed[name]) for name in reference)


@pytest.mark.parametrize("weighting", OFFLINE)
@pytest.mark.parametrize("mode", ["auxiliary", "multitask"])
def test_the_order_of_the_tasks_changes_nothing(mode: str, weighting: str) -> None:
    order = [1, 0]
    one = module(mode=mode, weighting=weighting, aux_weight=[0.5, 2.0], aux_names=["kind", "colour"])
    other = module(
        mode=mode,
        weighting=weighting,
        aux_weight=[2.0, 0.5],
        aux_names=["colour", "kind"],
        aux_num_classes=[SIZES[task] for task in order],
    )
    other.load_state_dict(permuted_tasks(one, order))
    batch = batch_of()
    swapped = batch | {"aux_labels": batch["aux_labels"][:, order]}
    left, right = one.step(batch), other.step(swapped)
    torch.testing.assert_close(left.loss, right.loss, rtol=1e-12, atol=0)
    for name in ("primary", "kind", "colour"):
        torch.testing.assert_close(left.terms[name], right.terms[name], rtol=1e-12, atol=0)
    assert left.logged.keys() == right.logged.keys()
    ours, theirs = gradients(left.loss, one), gradients(right.loss, other)
    for name, gradient in ours.items():
        if name.startswith("classifier"):
            torch.testing.assert_close(gradient, theirs[name], rtol=1e-9, atol=1e-14)


def permuted_tasks(model: Auxiliary, order: list[int]) -> dict[str, Tensor]:
    """The state of a module whose tasks come in another order."""
    state = model.state_dict()
    for name in ("priors.0.heads.weight", "priors.0.heads.bias"):
        parts = state[name].split(SIZES)
        state[name] = torch.cat([parts[task] for task in order])
    return {
        name.replace(f"branches.{task}.", f"branches.{order.index(task)}.", 1): state[name]
        for name in state
        for task in [int(name.split(".")[4]) if name.startswith("priors.0.heads.branches") else 0]
    }


@pytest.mark.parametrize("weighting", OFFLINE)
def test_the_numbering_of_the_classes_changes_nothing(weighting: str) -> None:
    """Another alphabetical order of the class names gives the classes other numbers."""
    permutation = torch.tensor([2, 0, 3, 1])  # the new number of each class of the first task
    one, other = (module(weighting=weighting) for _ in range(2))
    for name in ("weight", "bias"):
        getattr(tasks(other).heads, name).data[permutation] = getattr(tasks(one).heads, name).data[:4]
    batch = batch_of()
    first = batch["aux_labels"][:, 0]
    renamed = torch.where(first < 0, -1, permutation[first.clamp(min=0)])
    swapped = batch | {"aux_labels": torch.stack([renamed, batch["aux_labels"][:, 1]], 1)}
    left, right = one.step(batch), other.step(swapped)
    torch.testing.assert_close(left.loss, right.loss, rtol=1e-12, atol=0)
    ours, theirs = gradients(left.loss, one), gradients(right.loss, other)
    for name, gradient in ours.items():
        if name.startswith("classifier"):
            torch.testing.assert_close(gradient, theirs[name], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("weighting", OFFLINE)
@pytest.mark.parametrize("mode", ["auxiliary", "multitask"])
def test_images_without_a_label_change_no_loss_of_that_task(mode: str, weighting: str) -> None:
    """Neither the value nor the gradient, whatever the pictures show and however many there are."""
    model, batch = module(mode=mode, weighting=weighting), batch_of()
    batch["aux_labels"][::2, 0] = -1
    kept = {name: value[1::2] for name, value in batch.items()}
    part, whole = (losses_of(model, b)[1] for b in (kept, batch))
    torch.testing.assert_close(part, whole, rtol=1e-12, atol=0)
    ours, theirs = gradients(part, model), gradients(whole, model)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("weighting", OFFLINE)
def test_a_task_without_any_label_is_as_if_it_were_not_there(weighting: str) -> None:
    batch = batch_of()
    batch["aux_labels"][:, 1] = -1
    both, one = module(weighting=weighting), module(weighting=weighting, tasks=["aux0"])
    for name in ("weight", "bias"):
        getattr(tasks(one).heads, name).data.copy_(getattr(tasks(both).heads, name).data[:4])
    left, right = both.step(batch), one.step(batch)
    torch.testing.assert_close(left.loss, right.loss, rtol=1e-12, atol=0)
    assert left.terms["aux1"] == 0
    ours, theirs = gradients(left.loss, both), gradients(right.loss, one)
    assert not ours["priors.0.heads.weight"][4:].any()
    for name in ours:
        if name.startswith("classifier"):
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-12, atol=1e-15)


def twin(batch: PriorBatch, weighting: str, layers: int) -> Auxiliary:
    """An auxiliary task that is the primary one again, with the same head."""
    model = module(weighting=weighting, aux_num_classes=[2], gradient_layers=layers)
    tasks(model).heads.weight.data.copy_(model.classifier.head.weight)
    tasks(model).heads.bias.data.copy_(model.classifier.head.bias)
    batch["aux_labels"] = batch["label"][:, None]
    return model


@pytest.mark.parametrize("layers", [1, 9])
@pytest.mark.parametrize("weighting", ["gradient_similarity", "gradient_similarity_unweighted"])
def test_a_task_identical_to_the_primary_one_has_the_weight_one(weighting: str, layers: int) -> None:
    batch = batch_of()
    model = twin(batch, weighting, layers)
    step = model.step(batch)
    assert step.logged["weight_aux0"].item() == pytest.approx(1, abs=1e-12)
    assert step.logged["cosine_aux0"].item() == pytest.approx(1, abs=1e-12)
    plain = F.cross_entropy(model(batch["image"]), batch["label"])
    once, twice = gradients(plain, model), gradients(step.loss, model)
    for name in once:
        if name.startswith("classifier.backbone"):
            torch.testing.assert_close(twice[name], 2 * once[name], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("layers", [1, 9])
@pytest.mark.parametrize("weighting", ["gradient_similarity", "gradient_similarity_unweighted"])
def test_a_task_opposed_to_the_primary_one_has_the_weight_zero(weighting: str, layers: int) -> None:
    """Undecided heads with opposite labels pull the features in exactly opposite directions."""
    batch = batch_of()
    model = twin(batch, weighting, layers)
    for head in (tasks(model).heads, model.classifier.head):
        head.weight.data *= 1e-9
        head.bias.data.zero_()
    batch["aux_labels"] = 1 - batch["aux_labels"]
    step = model.step(batch)
    assert step.logged["cosine_aux0"].item() == pytest.approx(-1, abs=1e-6)
    assert step.logged["weight_aux0"] == 0
    plain = gradients(F.cross_entropy(model(batch["image"]), batch["label"]), model)
    total = gradients(step.loss, model)
    for name in plain:
        if name.startswith("classifier"):
            torch.testing.assert_close(total[name], plain[name], rtol=1e-12, atol=0)
    assert total["priors.0.heads.weight"].any(), "the head goes on learning"


@pytest.mark.parametrize("weighting", ["gradient_similarity", "lookahead"])
def test_all_weights_zero_leave_the_backbone_to_the_primary_task(weighting: str) -> None:
    """The gate between heads and backbone, with the weights set by hand."""
    model, batch = module(weighting=weighting), batch_of()
    tasks(model).weigher.forward = lambda gradients: torch.tensor([1.0, 0.0, 0.0])
    total = gradients(model.step(batch).loss, model)
    plain = gradients(F.cross_entropy(model(batch["image"]), batch["label"]), model)
    for name in plain:
        if name.startswith("classifier"):
            torch.testing.assert_close(total[name], plain[name], rtol=1e-12, atol=1e-18)
    assert total["priors.0.heads.weight"].any()


@pytest.mark.parametrize("shares", [[1.0, 1.0, 1.0], [0.3, 2.0, 0.5]])
def test_weights_on_gradients_are_weights_on_losses_for_the_backbone(shares: list[float]) -> None:
    model, batch = module(weighting="lookahead"), batch_of()
    tasks(model).weigher.forward = lambda gradients: torch.tensor(shares, dtype=torch.float64)
    gated = gradients(model.step(batch).loss, model)
    losses = losses_of(model, batch)
    weighted = gradients((torch.tensor(shares, dtype=torch.float64) * losses).sum(), model)
    heads = gradients(losses.sum(), model)
    for name in gated:
        reference = weighted if "backbone" in name else heads
        torch.testing.assert_close(gated[name], reference[name], rtol=1e-7, atol=1e-12)
