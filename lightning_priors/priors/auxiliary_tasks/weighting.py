"""Ways to weigh tasks while training, each with a state that goes into checkpoints.

T tasks are the primary one, which comes first, and A = T - 1 auxiliary ones. Under data-parallel training all ranks
have the same weights.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_priors.errors import PriorError, nearest
from lightning_priors.functional.distributed import from_rank_zero, mean_over_ranks
from lightning_priors.hypergradient import update_rules
from lightning_priors.priors.auxiliary_tasks.task_losses import (
    dynamic_average_weights,
    gradient_cosines,
    look_ahead_derivative,
    similarity_weights,
    uncertainty_weighted,
)

Weighting = Literal[
    "fixed",
    "uncertainty",
    "dwa",
    "gradient_similarity",
    "gradient_similarity_unweighted",
    "lookahead",
    "torchjd",
]


class LossWeighting(nn.Module, ABC):
    """Weighs the losses themselves."""

    @abstractmethod
    def forward(self, losses: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Weighs losses.

        Args:
            losses: (T,).
            present: (T,) bool, which tasks have a label in the batch.

        Returns:
            What each task adds to the loss (T,), and the weights (T,).
        """


class GradientWeighting(nn.Module, ABC):
    """Weighs what each task's gradient adds to that of the shared layers."""

    @abstractmethod
    def forward(self, gradients: Tensor) -> Tensor:
        """Compares gradients.

        Args:
            gradients: (T, n) of a batch on the shared parameters, averaged over all ranks.

        Returns:
            (T,) weights.
        """


class Fixed(LossWeighting):
    """All tasks count alike.

    >>> Fixed()(torch.tensor([1.0, 3.0]), torch.tensor([True, True]))
    (tensor([1., 3.]), tensor([1., 1.]))
    """

    def forward(self, losses: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Gives back the losses (T,) as they are, and weights (T,) of 1."""
        return losses, torch.ones_like(losses)


class Uncertainty(LossWeighting):
    """Learned uncertainties, see `uncertainty_weighted`; they are parameters of the network.

    Args:
        tasks: Number of tasks T.
        weigh_primary: Whether the primary task has one too; its weight stays 1 otherwise.

    >>> losses, weights = Uncertainty(tasks=2)(torch.tensor([1.0, 3.0]), torch.tensor([True, True]))
    >>> losses.tolist(), weights.tolist()
    ([1.0, 3.0], [1.0, 1.0])
    """

    def __init__(self, tasks: int, weigh_primary: bool = False) -> None:
        super().__init__()
        self.log_variances = nn.Parameter(torch.zeros(tasks if weigh_primary else tasks - 1))
        self.weigh_primary = weigh_primary

    def forward(self, losses: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Weighs losses (T,), as `LossWeighting` says."""
        log_variances: Tensor = self.log_variances
        if not self.weigh_primary:
            log_variances = torch.cat([log_variances.new_zeros(1), log_variances])
        return uncertainty_weighted(losses, log_variances, present), (-log_variances.detach()).exp()


class DynamicWeightAverage(LossWeighting):
    """Follows the mean losses of the epochs, see `dynamic_average_weights`.

    Args:
        tasks: Number of tasks T.
        temperature: The greater, the more even the weights.
        weigh_primary: Whether the weights are those of the paper, which add up to T; otherwise they are divided by that
            of the primary task, which is then 1.

    >>> average = DynamicWeightAverage(tasks=2)
    >>> average(torch.tensor([2.0, 3.0]), torch.tensor([True, True]))[1]
    tensor([1., 1.])
    """

    history: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(self, tasks: int, temperature: float = 2.0, weigh_primary: bool = False) -> None:
        super().__init__()
        self.temperature, self.weigh_primary = temperature, weigh_primary
        self.register_buffer("history", torch.full((2, tasks), torch.nan))
        self.register_buffer("sums", torch.zeros(tasks))
        self.register_buffer("counts", torch.zeros(tasks))

    def forward(self, losses: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Weighs losses (T,), as `LossWeighting` says, and takes note of them."""
        noted = mean_over_ranks(torch.stack([losses.detach() * present, present.to(losses.dtype)]))
        self.sums += noted[0]
        self.counts += noted[1]
        weights = dynamic_average_weights(self.history[1], self.history[0], self.temperature)
        weights = weights if self.weigh_primary else weights / weights[0]
        return weights * losses, weights

    def next_epoch(self) -> None:
        """Takes the mean losses of the epoch that has ended into account; does nothing before the first one."""
        if self.counts.any():
            self.history.copy_(torch.stack([self.history[1], self.sums / self.counts]))
            self.sums.zero_()
            self.counts.zero_()


class GradientSimilarity(GradientWeighting):
    """Auxiliary tasks count as far as their gradient agrees with the primary one, see `similarity_weights`.

    Args:
        weighted: Whether by the cosine, or by its sign alone.

    >>> GradientSimilarity()(torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]]))
    tensor([1.0000, 0.6000, 0.0000])
    """

    def __init__(self, weighted: bool = True) -> None:
        super().__init__()
        self.weighted = weighted

    def forward(self, gradients: Tensor) -> Tensor:
        """Weights (T,) from gradients (T, n); that of the primary task is 1."""
        return torch.cat([gradients.new_ones(1), similarity_weights(gradient_cosines(gradients), self.weighted)])


class LookAhead(GradientWeighting):
    """Weights of auxiliary tasks, learned while training so that each step lowers the primary loss of the next batch.

    The derivative of that loss by the weights is `look_ahead_derivative`. A weight rises by `rate` times the share of
    the auxiliary gradient that lies along the direction which lowers the primary loss, a cosine: so the speed depends
    neither on the learning rate nor on the size of the losses. Weights do not fall below 0. Clipping counts as a
    constant factor.

    Args:
        tasks: Number of tasks T.
        rate: How much a weight changes in a step where the two agree entirely.

    >>> weights = LookAhead(tasks=2, rate=0.5)
    >>> parameter = nn.Parameter(torch.tensor([1.0]))
    >>> weights(torch.tensor([[1.0], [3.0]]))
    tensor([1., 1.])
    >>> weights.look_at_step([parameter], torch.optim.SGD([parameter], lr=0.1))
    >>> weights(torch.tensor([[2.0], [5.0]]))
    tensor([1., 1.])
    """

    weights: Tensor

    def __init__(self, tasks: int, rate: float = 0.01) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("weights", torch.ones(tasks - 1))
        self._gradients: Tensor | None = None
        self._sensitivity: Tensor | None = None

    def forward(self, gradients: Tensor) -> Tensor:
        """Weights (T,) from gradients (T, n), after learning from the last step, whose effect these show."""
        if self._gradients is not None and self._sensitivity is not None:
            derivative = look_ahead_derivative(self._sensitivity, gradients[0], self._gradients)
            lengths = self._gradients.norm(dim=1) * (self._sensitivity * gradients[0]).norm()
            agreement = (-derivative / lengths).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)  # 0 / 0, or overflow
            self.weights.add_(self.rate * agreement).clamp_(min=0)
            self.forget()
        # batches whose gradients are accumulated act in one step together
        self._gradients = gradients[1:] if self._gradients is None else self._gradients + gradients[1:]
        return torch.cat([self.weights.new_ones(1), self.weights])

    def look_at_step(self, parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Takes note of how the optimiser will answer the gradients; called just before it moves the parameters.

        Args:
            parameters: The shared ones, n numbers in all, with the gradients that the optimiser will use.
            optimizer: SGD, Adam or AdamW of torch.

        Raises:
            TypeError: If the optimiser is another one.
            ValueError: If it maximises or uses AMSGrad.
        """
        rules = update_rules(nn.ParameterList(parameters), optimizer)
        answers = []
        for number, parameter in enumerate(parameters):
            rule, answer = rules.get(str(number)), torch.zeros_like(parameter)
            if rule is not None and parameter.grad is not None:
                answer += rule.sensitivity(parameter.detach(), parameter.grad)
            answers.append(answer.flatten())
        self._sensitivity = torch.cat(answers).detach()

    def forget(self) -> None:
        """Leaves the last step out of account, so that training goes on from here as it would from a checkpoint."""
        self._gradients = self._sensitivity = None


class Aggregation(GradientWeighting):
    """The weights by which one of torchjd's aggregators combines gradients; needs the extra ``torchjd``.

    Args:
        name: The aggregator's class, such as ``UPGrad``, ``PCGrad`` or ``NashMTL``.
        tasks: Number of tasks T.

    Raises:
        PriorError: If torchjd or something that it needs is missing, or the aggregator does not exist, gives no weights
            or needs further arguments.

    >>> Aggregation("UPGrad", tasks=2)(torch.eye(2))  # doctest: +SKIP
    tensor([0.5000, 0.5000])
    """

    def __init__(self, name: str, tasks: int) -> None:
        super().__init__()
        try:
            from torchjd import aggregation
        except ImportError as error:
            raise PriorError("torchjd is not installed: pip install 'lightning-priors[torchjd]'") from error
        known = _weighted_aggregators(aggregation)
        if name not in known:
            raise PriorError(f"torchjd has no aggregator {name!r} that weighs tasks; {nearest(name, known)}")
        counted = {"n_tasks": tasks} if "n_tasks" in inspect.signature(known[name]).parameters else {}
        try:
            self.aggregator = known[name](**counted)
        except (ImportError, TypeError) as error:
            raise PriorError(f"aggregator {name} of torchjd: {str(error).splitlines()[0]}") from error

    def forward(self, gradients: Tensor) -> Tensor:
        """Weights (T,) from gradients (T, n), as rank zero computes them: some aggregators draw at random."""
        weights: Tensor = self.aggregator.weighting(gradients)
        return from_rank_zero(weights)


def task_weighting(
    name: Weighting, tasks: int, weigh_primary: bool, temperature: float, rate: float, aggregator: str
) -> LossWeighting | GradientWeighting:
    """Makes the weighting of a name.

    Args:
        name: One of `Weighting`.
        tasks: Number of tasks T.
        weigh_primary: Of `Uncertainty` and `DynamicWeightAverage`.
        temperature: Of `DynamicWeightAverage`.
        rate: Of `LookAhead`.
        aggregator: Of `Aggregation`.

    Raises:
        PriorError: As `Aggregation` does.
        ValueError: If there is no such weighting.

    >>> task_weighting("dwa", 3, weigh_primary=False, temperature=2.0, rate=0.01, aggregator="UPGrad")
    DynamicWeightAverage()
    """
    makers: dict[str, Callable[[], LossWeighting | GradientWeighting]] = {
        "fixed": Fixed,
        "uncertainty": lambda: Uncertainty(tasks, weigh_primary),
        "dwa": lambda: DynamicWeightAverage(tasks, temperature, weigh_primary),
        "gradient_similarity": GradientSimilarity,
        "gradient_similarity_unweighted": lambda: GradientSimilarity(weighted=False),
        "lookahead": lambda: LookAhead(tasks, rate),
        "torchjd": lambda: Aggregation(aggregator, tasks),
    }
    if name not in makers:
        raise ValueError(f"no weighting {name!r}; there are {', '.join(makers)}")
    return makers[name]()


def _weighted_aggregators(package: ModuleType) -> dict[str, Any]:
    """Those of torchjd's aggregators whose result is a weighted sum, by name; without their base classes."""
    base = package.WeightedAggregator
    found = {name: kind for name, kind in vars(package).items() if isinstance(kind, type) and issubclass(kind, base)}
    return {name: kind for name, kind in found.items() if not name.endswith("WeightedAggregator")}
