"""Losses of several tasks and their weights: closed forms, hand values and derivatives."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck

from lightning_priors.hypergradient import stepped_parameters, update_rules
from lightning_priors.priors.auxiliary_tasks.task_losses import (
    dynamic_average_weights,
    gradient_cosines,
    look_ahead_derivative,
    scale_gradient,
    similarity_weights,
    task_gradients,
    task_losses,
    uncertainty_weighted,
    without_target,
)

SIZES = [4, 2, 3]


def padded_logits(images: int = 6, seed: int = 0) -> Tensor:
    """(B, 3, 4) float64 of tasks with 4, 2 and 3 classes."""
    logits = torch.randn(images, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    logits[:, 1, 2:] = -torch.inf
    logits[:, 2, 3:] = -torch.inf
    return logits


LABELS = torch.tensor([[3, 1, -1], [0, -1, 2], [-1, 0, 0], [2, 1, -1], [1, -1, 1], [-1, -1, -1]])


def test_each_loss_is_the_cross_entropy_of_its_labelled_images_over_its_own_classes() -> None:
    logits = padded_logits()
    losses, present = task_losses(logits, LABELS)
    for task, size in enumerate(SIZES):
        labelled = LABELS[:, task] >= 0
        reference = F.cross_entropy(logits[labelled, task, :size], LABELS[labelled, task])
        torch.testing.assert_close(losses[task], reference)
    assert present.all()


def test_a_task_without_labels_costs_nothing_and_passes_no_gradient() -> None:
    logits, labels = padded_logits().requires_grad_(), LABELS.clone()
    labels[:, 1] = -1
    losses, present = task_losses(logits, labels)
    assert present.tolist() == [True, False, True]
    assert losses[1] == 0
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert torch.equal(gradient[:, 1], torch.zeros_like(gradient[:, 1]))
    assert gradient.isfinite().all()
    assert gradient[:, 0].abs().sum() > 0


def test_half_precision_logits_are_taken_to_float32() -> None:
    logits = padded_logits().to(torch.bfloat16)
    torch.testing.assert_close(task_losses(logits, LABELS)[0], task_losses(logits.float(), LABELS)[0], rtol=0, atol=0)


def test_gradients_of_the_losses() -> None:
    """Of the finite logits; the others are constants."""
    logits = padded_logits()
    finite = logits.isfinite()

    def of_finite(values: Tensor) -> Tensor:
        return task_losses(logits.masked_scatter(finite, values), LABELS)[0]

    assert gradcheck(of_finite, (logits[finite].clone().requires_grad_(),))


def test_the_target_is_taken_out_of_every_task() -> None:
    label = torch.tensor([1, 0, 2, 1, 0, 1])
    labels = without_target(LABELS, label, target_class=1)
    assert (labels[label == 1] == -1).all()
    assert torch.equal(labels[label != 1], LABELS[label != 1])


@pytest.mark.parametrize("loss", [0.1, 0.5, 3.0])
def test_the_uncertainty_of_a_constant_loss_has_its_optimum_at_the_closed_form(loss: float) -> None:
    """exp(-s) = 1 / (2 L): there the slope is 0 and the curvature 1/2, and the value is (1 + log 2L) / 2."""
    log_variance = torch.tensor([math.log(2 * loss)], dtype=torch.float64, requires_grad=True)
    value = uncertainty_weighted(torch.tensor([loss], dtype=torch.float64), log_variance, torch.tensor([True]))
    (slope,) = torch.autograd.grad(value.sum(), log_variance, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), log_variance)
    assert value.item() == pytest.approx((1 + math.log(2 * loss)) / 2)
    assert slope.item() == pytest.approx(0, abs=1e-12)
    assert curvature.item() == pytest.approx(0.5)


def test_gradient_descent_finds_that_optimum() -> None:
    losses, present = torch.tensor([0.2, 2.0], dtype=torch.float64), torch.tensor([True, True])
    log_variances = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    for _ in range(200):
        (slope,) = torch.autograd.grad(uncertainty_weighted(losses, log_variances, present).sum(), log_variances)
        log_variances = (log_variances - 0.5 * slope).detach().requires_grad_()
    torch.testing.assert_close((-log_variances).exp(), 1 / (2 * losses))


def test_an_absent_task_neither_costs_nor_moves_its_uncertainty() -> None:
    losses = torch.tensor([0.3, 0.0], dtype=torch.float64, requires_grad=True)
    log_variances = torch.tensor([0.5, 0.7], dtype=torch.float64, requires_grad=True)
    present = torch.tensor([True, False])
    assert uncertainty_weighted(losses, log_variances, present)[1] == 0
    slopes = torch.autograd.grad(uncertainty_weighted(losses, log_variances, present).sum(), [losses, log_variances])
    assert [slope[1].item() for slope in slopes] == [0, 0]
    assert gradcheck(uncertainty_weighted, (losses, log_variances, present))


def test_dynamic_weight_average_by_hand() -> None:
    """Rates 1/2 and 1 at temperature 2: weights 2 exp(1/4) / (exp(1/4) + exp(1/2)) and 2 exp(1/2) / (...)."""
    weights = dynamic_average_weights(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 4.0]), temperature=2.0)
    total = math.exp(0.25) + math.exp(0.5)
    assert weights.tolist() == pytest.approx([2 * math.exp(0.25) / total, 2 * math.exp(0.5) / total])


def test_dynamic_weight_average_depends_on_rates_alone() -> None:
    last, before = torch.tensor([0.3, 2.0, 0.7]), torch.tensor([0.6, 2.5, 0.5])
    units = torch.tensor([10.0, 0.1, 3.0])
    weights = dynamic_average_weights(last, before)
    torch.testing.assert_close(dynamic_average_weights(units * last, units * before), weights)
    assert weights.sum().item() == pytest.approx(3)
    assert weights.argsort().tolist() == (last / before).argsort().tolist()
    assert dynamic_average_weights(last, before, temperature=1e6).tolist() == pytest.approx([1, 1, 1], abs=1e-5)


@pytest.mark.parametrize("unknown", [math.nan, 0.0])
def test_a_task_whose_losses_are_not_known_counts_as_one_that_stays(unknown: float) -> None:
    weights = dynamic_average_weights(torch.tensor([1.0, 0.4]), torch.tensor([1.0, unknown]))
    assert weights.tolist() == [1, 1]


def test_task_gradients_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh()).double()
    heads = [nn.Linear(4, 2).double() for _ in range(2)]
    x = torch.randn(5, 3, dtype=torch.float64)
    features = network(x)
    losses = [head(features).square().mean() for head in heads]
    unused = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    gradients = task_gradients(losses, [*network.parameters(), unused])
    for row, head in zip(gradients, heads, strict=True):
        reference = torch.autograd.grad(head(network(x)).square().mean(), list(network.parameters()))
        torch.testing.assert_close(row[:-2], torch.cat([g.flatten() for g in reference]), rtol=1e-14, atol=0)
    assert (gradients[:, -2:] == 0).all()
    losses[0].backward()  # the graph is still there


def test_small_gradients_survive_half_precision() -> None:
    """6e-8 is the least number of float16; the gradient of a mean over many cells is of that size."""
    weight = torch.tensor([1.0], dtype=torch.float16, requires_grad=True)
    gradients = task_gradients([(weight * torch.tensor(2e-8)).sum()], [weight])
    assert gradients.dtype == torch.float32
    assert gradients.item() == pytest.approx(2e-8, rel=0.01)


@pytest.mark.parametrize("size", [1.0, 1e-15, 1e15])
def test_cosines_of_known_angles_at_any_size(size: float) -> None:
    angles = torch.tensor([0.3, 1.2, math.pi / 2, 2.0, math.pi])
    gradients = torch.stack([angles.cos(), angles.sin()], 1) * torch.tensor([1, 2, 3, 4, 5.0])[:, None]
    gradients = torch.cat([torch.tensor([[1.0, 0.0]]), gradients]) * size
    torch.testing.assert_close(gradient_cosines(gradients), angles.cos())


def test_cosines_without_a_gradient_or_with_an_overflow_are_zero() -> None:
    gradients = torch.tensor([[1.0, 2.0], [0.0, 0.0], [torch.inf, 1.0], [2.0, 4.0]])
    assert gradient_cosines(gradients).tolist() == pytest.approx([0, 0, 1])
    assert gradient_cosines(gradients.roll(-1, 0)).tolist()[-1] == 0


@pytest.mark.parametrize("weighted", [True, False])
def test_similar_gradients_help_and_opposed_ones_are_shut_out(weighted: bool) -> None:
    assert similarity_weights(torch.tensor([1.0, -1.0]), weighted).tolist() == [1, 0]
    assert similarity_weights(torch.tensor([0.25]), weighted).item() == (0.25 if weighted else 1)


@pytest.mark.parametrize("weighted", [True, False])
def test_the_weighted_sum_never_opposes_the_primary_gradient(weighted: bool) -> None:
    """Proposition 1 of Du et al. 2018: the sum keeps at least the length of the primary gradient along itself."""
    gradients = torch.randn(9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = similarity_weights(gradient_cosines(gradients), weighted)
    total = gradients[0] + weights @ gradients[1:]
    assert total @ gradients[0] >= gradients[0] @ gradients[0]
    assert 0 < (weights > 0).sum() < 8, "some help and some do not"


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "nesterov": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.02, weight_decay=0.01),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.02),
}


class Ahead:
    """A network with two auxiliary heads after a few steps, and the loss of the next batch by the weights."""

    def __init__(self, optimizer: str) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh()).double()
        self.heads = [nn.Linear(5, size).double().requires_grad_(False) for size in (2, 3, 4)]
        self.batches = [
            (torch.randn(8, 4, dtype=torch.float64), [torch.randint(size, (8,)) for size in (2, 3, 4)]) for _ in "12345"
        ]
        self.optimizer = OPTIMIZERS[optimizer](self.network.parameters())
        for batch in self.batches[:3]:
            self.optimizer.zero_grad()
            torch.stack(self.losses(batch)).sum().backward()
            self.optimizer.step()
        self.named = dict(self.network.named_parameters())
        self.inner, self.outer = self.losses(self.batches[3]), self.batches[4]

    def losses(self, batch: tuple[Tensor, list[Tensor]], parameters: dict[str, Tensor] | None = None) -> list[Tensor]:
        x, labels = batch
        features = torch.func.functional_call(self.network, parameters or dict(self.network.named_parameters()), (x,))
        return [F.cross_entropy(head(features), label) for head, label in zip(self.heads, labels, strict=True)]

    def stepped(self, weights: Tensor) -> dict[str, Tensor]:
        loss = self.inner[0] + (weights * torch.stack(self.inner[1:])).sum()
        found = torch.autograd.grad(loss, list(self.named.values()), create_graph=True)
        gradients = dict(zip(self.named, found, strict=True))
        self.gradients = {name: gradient.detach() for name, gradient in gradients.items()}
        return stepped_parameters(self.network, self.optimizer, gradients)

    def ahead(self, weights: Tensor) -> Tensor:
        return self.losses(self.outer, self.stepped(weights))[0]

    def derivative(self, weights: Tensor) -> Tensor:
        after = {name: p.detach().requires_grad_() for name, p in self.stepped(weights).items()}
        primary = torch.autograd.grad(self.losses(self.outer, after)[0], list(after.values()))
        rules = update_rules(self.network, self.optimizer)
        answers = [
            (torch.zeros_like(p) + rules[name].sensitivity(p.detach(), self.gradients[name])).flatten().detach()
            for name, p in self.named.items()
        ]
        auxiliary = task_gradients(self.inner[1:], list(self.named.values()))
        return look_ahead_derivative(torch.cat(answers), torch.cat([g.flatten() for g in primary]), auxiliary)


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_looking_ahead_is_differentiating_through_the_step(optimizer: str) -> None:
    problem = Ahead(optimizer)
    weights = torch.tensor([0.7, 1.3], dtype=torch.float64, requires_grad=True)
    (reference,) = torch.autograd.grad(problem.ahead(weights), weights)
    derivative = problem.derivative(weights.detach())
    assert reference.abs().min() > 0
    torch.testing.assert_close(derivative, reference, rtol=1e-9, atol=0)


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_looking_ahead_is_the_slope_of_finite_differences(optimizer: str) -> None:
    problem = Ahead(optimizer)
    weights, distance = torch.tensor([0.7, 1.3], dtype=torch.float64), 1e-4
    for task in range(2):
        step = distance * torch.eye(2, dtype=torch.float64)[task]
        slope = (problem.ahead(weights + step) - problem.ahead(weights - step)) / (2 * distance)
        torch.testing.assert_close(problem.derivative(weights)[task], slope.detach(), rtol=1e-5, atol=0)


def test_scaling_a_gradient_leaves_the_values_to_the_bit() -> None:
    values = torch.randn(1000, requires_grad=True)
    scaled = scale_gradient(values, torch.tensor(0.3))
    assert torch.equal(scaled, values)
    (gradient,) = torch.autograd.grad((scaled**3).sum(), values)
    torch.testing.assert_close(gradient, 0.3 * 3 * values.detach() ** 2)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_focal_task_losses_are_those_of_each_label(gamma: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 2, 3, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.tensor([[0, 2], [1, -1], [2, 1], [0, -1], [1, 0], [-1, 2]])
    losses, _ = task_losses(logits, labels, gamma)
    for task in range(2):
        known = labels[:, task] >= 0
        probability = logits[known, task].softmax(1)[range(int(known.sum())), labels[known, task]]
        torch.testing.assert_close(losses[task], (-((1 - probability) ** gamma) * probability.log()).mean())
    assert gradcheck(lambda z: task_losses(z, labels, gamma)[0], logits)


def test_focal_losses_have_finite_gradients_where_a_task_has_fewer_classes() -> None:
    logits = torch.tensor([[[1.0, 0.0, -torch.inf]]], requires_grad=True)
    losses, _ = task_losses(logits, torch.tensor([[0]]), gamma=2.0)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert gradient.isfinite().all()
