"""The weightings with a state, and those of another package."""

import copy
import sys
from types import ModuleType, SimpleNamespace
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from lightning_priors.errors import PriorError
from lightning_priors.priors.auxiliary_tasks.task_losses import look_ahead_derivative
from lightning_priors.priors.auxiliary_tasks.weighting import (
    Aggregation,
    DynamicWeightAverage,
    Fixed,
    GradientSimilarity,
    LookAhead,
    Uncertainty,
    Weighting,
    task_weighting,
)

ALL = torch.tensor([True, True, True])


def made(name: Weighting, weigh_primary: bool = False):
    return task_weighting(name, 3, weigh_primary, temperature=0.7, rate=0.2, aggregator="PCGrad")


def test_every_name_has_its_weighting_and_its_options() -> None:
    assert isinstance(made("fixed"), Fixed)
    assert made("gradient_similarity").weighted
    assert not made("gradient_similarity_unweighted").weighted
    assert made("dwa").temperature == 0.7
    assert made("lookahead").rate == 0.2
    assert len(made("uncertainty").log_variances) == 2
    assert len(made("uncertainty", weigh_primary=True).log_variances) == 3
    assert len(get_args(Weighting)) == 7
    with pytest.raises(ValueError, match="no weighting 'sum'"):
        made("sum")


def test_uncertainty_leaves_the_primary_task_alone_unless_it_is_one_of_all() -> None:
    losses = torch.tensor([1.0, 2.0, 3.0])
    for weigh_primary in (False, True):
        uncertainty = Uncertainty(3, weigh_primary)
        nn.init.constant_(uncertainty.log_variances, 0.4)
        weighted, weights = uncertainty(losses, ALL)
        factor = torch.tensor(-0.4).exp().item()
        assert weights.tolist() == pytest.approx([factor if weigh_primary else 1, factor, factor])
        torch.testing.assert_close(weighted[1:], factor * losses[1:] + 0.2)
        assert not weights.requires_grad


def test_dynamic_weight_average_follows_the_means_of_two_epochs() -> None:
    average = DynamicWeightAverage(3, temperature=1.0, weigh_primary=True)
    epochs = [[[4.0, 2.0, 1.0], [2.0, 2.0, 3.0]], [[1.5, 1.0, 2.0], [1.5, 1.0, 0.0]]]
    for epoch in epochs:
        average.next_epoch()
        for losses in epoch:
            assert average(torch.tensor(losses), ALL)[1].tolist() == [1, 1, 1]
    average.next_epoch()
    rates = torch.tensor([1.5 / 3, 1 / 2, 1 / 2])
    torch.testing.assert_close(average(torch.ones(3), ALL)[1], 3 * rates.softmax(0))


def test_dynamic_weight_average_counts_batches_with_labels_only() -> None:
    average = DynamicWeightAverage(2)
    for loss, labelled in ((3.0, True), (0.0, False), (1.0, True)):
        average(torch.tensor([1.0, loss]), torch.tensor([True, labelled]))
    average.next_epoch()
    assert average.history[1].tolist() == [1.0, 2.0]


def test_dynamic_weight_average_divides_by_the_weight_of_the_primary_task() -> None:
    pair = [DynamicWeightAverage(3, weigh_primary=weigh) for weigh in (False, True)]
    for average in pair:
        for losses in ([4.0, 2.0, 1.0], [1.0, 1.0, 1.0]):
            average.next_epoch()
            average(torch.tensor(losses), ALL)
        average.next_epoch()
    (losses, relative), (_, weights) = (average(torch.ones(3), ALL) for average in pair)
    assert weights.sum().item() == pytest.approx(3)
    assert weights[0] < weights[1] < weights[2]
    torch.testing.assert_close(relative, weights / weights[0])
    torch.testing.assert_close(losses, relative)


@pytest.mark.parametrize("name", ["uncertainty", "dwa", "lookahead"])
def test_the_state_goes_into_a_checkpoint(name: Weighting) -> None:
    weighting = made(name)
    for parameter in weighting.state_dict().values():
        parameter.copy_(torch.rand_like(parameter))
    other = made(name)
    other.load_state_dict(copy.deepcopy(weighting.state_dict()))
    for left, right in zip(weighting.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(left, right)
    assert weighting.state_dict()


def test_gradient_similarity_keeps_the_primary_task_whole() -> None:
    gradients = torch.tensor([[2.0, 0.0], [3.0, 4.0], [-1.0, 1.0]])
    assert GradientSimilarity()(gradients).tolist() == pytest.approx([1, 0.6, 0])
    assert GradientSimilarity(weighted=False)(gradients).tolist() == [1, 1, 0]


def looked_ahead(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], rate: float) -> LookAhead:
    """Just before a step on the gradients of the primary and of two auxiliary tasks, after a step on others.

    The very first step of Adam has the same length whatever the gradient: there is nothing to learn from it.
    """
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 0.3)
    optimizer.step()
    weights = LookAhead(tasks=3, rate=rate)
    gradients = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [-1.0, -2.0, 0.5]])
    weights(gradients)
    total = gradients.sum(0)
    parameters[0].grad, parameters[1].grad = total[:2], total[2:]
    weights.look_at_step(parameters, optimizer)
    return weights


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_weights_move_against_the_derivative_of_the_next_primary_loss(kind: type) -> None:
    parameters = [nn.Parameter(torch.tensor([0.5, -0.5])), nn.Parameter(torch.tensor([1.0]))]
    weights = looked_ahead(kind(parameters, lr=0.01), parameters, rate=0.1)
    sensitivity, auxiliary = weights._sensitivity, weights._gradients
    primary = torch.tensor([2.0, 1.0, -1.0])
    derivative = look_ahead_derivative(sensitivity, primary, auxiliary)
    moved = weights(torch.stack([primary, primary, primary]))
    lengths = (sensitivity * primary).norm() * auxiliary.norm(dim=1)
    torch.testing.assert_close(moved[1:], 1 - 0.1 * derivative / lengths)
    assert moved[0] == 1
    if kind is torch.optim.SGD:
        assert moved[1] > 1, "its gradient goes with the next primary gradient"
        assert moved[2] < 1, "its gradient goes against it"
        torch.testing.assert_close(sensitivity, torch.full((3,), -0.01))


def test_weights_stop_at_zero_and_can_come_back() -> None:
    parameters = [nn.Parameter(torch.tensor([0.5, -0.5])), nn.Parameter(torch.tensor([1.0]))]
    optimizer = torch.optim.SGD(parameters, lr=0.01)
    weights = looked_ahead(optimizer, parameters, rate=5.0)
    primary = torch.tensor([1.0, 2.0, -0.5])
    assert weights(torch.stack([primary, -primary, primary]))[2] == 0
    weights.look_at_step(parameters, optimizer)
    assert weights(torch.stack([primary, primary, primary]))[2] > 0


def test_accumulated_batches_act_in_one_step_together() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 1.0]))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    one, two = LookAhead(tasks=2), LookAhead(tasks=2)
    first, second = torch.tensor([[1.0, 0.0], [1.0, 3.0]]), torch.tensor([[0.0, 1.0], [2.0, -1.0]])
    two(first)
    two(second)
    one(first + second)
    parameter.grad = torch.ones(2)
    following = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    for weights in (one, two):
        weights.look_at_step([parameter], optimizer)
    assert torch.equal(one(following), two(following))
    assert one.weights != 1


def test_nothing_is_learned_from_a_step_that_is_forgotten_or_without_gradient() -> None:
    parameters = [nn.Parameter(torch.tensor([0.5, -0.5])), nn.Parameter(torch.tensor([1.0]))]
    weights = looked_ahead(torch.optim.SGD(parameters, lr=0.01), parameters, rate=0.1)
    weights.forget()
    weights(torch.ones(3, 3))
    assert weights.weights.tolist() == [1, 1]
    weights.look_at_step(parameters, torch.optim.SGD(parameters, lr=0.0))
    weights(torch.ones(3, 3))
    assert weights.weights.tolist() == [1, 1]


def test_a_parameter_that_the_optimiser_does_not_move_has_no_effect() -> None:
    parameters = [nn.Parameter(torch.tensor([0.5, -0.5])), nn.Parameter(torch.tensor([1.0]))]
    weights = looked_ahead(torch.optim.SGD(parameters[:1], lr=0.01), parameters, rate=0.1)
    assert weights._sensitivity.tolist() == pytest.approx([-0.01, -0.01, 0])


def test_looking_ahead_knows_three_optimisers() -> None:
    parameter = nn.Parameter(torch.ones(1))
    with pytest.raises(TypeError, match="not for RMSprop"):
        LookAhead(tasks=2).look_at_step([parameter], torch.optim.RMSprop([parameter]))


class WeightedAggregator(nn.Module):
    """Stands in for the base class of torchjd."""


class HalfAndHalf(WeightedAggregator):
    def __init__(self, n_tasks: int) -> None:
        super().__init__()
        self.weighting = lambda gradients: torch.full((n_tasks,), 1 / n_tasks) * gradients.norm(dim=1).sign()


class NeedsMore(WeightedAggregator):
    def __init__(self, c: float) -> None:
        super().__init__()


class NeedsSolver(WeightedAggregator):
    def __init__(self) -> None:
        raise ImportError("a solver is missing\nmore about it")


@pytest.fixture
def stand_in(monkeypatch) -> None:
    """A package with the names of torchjd that are used here."""
    aggregation = SimpleNamespace(
        WeightedAggregator=WeightedAggregator,
        HalfAndHalf=HalfAndHalf,
        NeedsMore=NeedsMore,
        NeedsSolver=NeedsSolver,
        ConFIG=nn.Module,
    )
    package = ModuleType("torchjd")
    package.aggregation = aggregation
    monkeypatch.setitem(sys.modules, "torchjd", package)
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", aggregation)


def test_an_aggregator_is_found_by_its_name_and_told_the_number_of_tasks(stand_in) -> None:
    assert Aggregation("HalfAndHalf", tasks=4)(torch.eye(4)).tolist() == [0.25] * 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("HalfAndhalf", "torchjd has no aggregator 'HalfAndhalf' that weighs tasks; did you mean 'HalfAndHalf'?"),
        ("ConFIG", "torchjd has no aggregator 'ConFIG' that weighs tasks"),
        ("WeightedAggregator", "torchjd has no aggregator 'WeightedAggregator' that weighs tasks"),
        ("NeedsMore", r"aggregator NeedsMore of torchjd: .*missing 1 required positional argument: 'c'$"),
        ("NeedsSolver", "aggregator NeedsSolver of torchjd: a solver is missing$"),
    ],
)
def test_mistakes_about_aggregators(stand_in, name: str, message: str) -> None:
    with pytest.raises(PriorError, match=message):
        Aggregation(name, tasks=2)


def test_without_torchjd_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(PriorError, match=r"torchjd is not installed: pip install 'lightning-priors\[torchjd\]'"):
        Aggregation("UPGrad", tasks=2)


def combined(name: str, gradients: Tensor) -> Tensor:
    return Aggregation(name, tasks=len(gradients))(gradients) @ gradients


@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem:UserWarning")  # NashMTL's way with cvxpy
@pytest.mark.parametrize("name", ["UPGrad", "PCGrad", "NashMTL", "MGDA"])
def test_the_aggregators_of_torchjd_oppose_neither_of_two_tasks(name: str) -> None:
    pytest.importorskip("torchjd", reason="needs the extra torchjd")
    gradients = torch.tensor([[1.0, 0.2, 0.0], [-0.5, 1.0, 0.3]])
    assert gradients[0] @ gradients[1] < 0
    assert (gradients @ combined(name, gradients) > -1e-4).all()
