"""How a technique is optimised: which parameters, at which learning rate, by which optimiser and schedule."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from lightning.pytorch import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from lightning_priors.callbacks.unfreezing import Unfreezing
from lightning_priors.errors import PriorError, nearest
from lightning_priors.nn import Backbone
from lightning_priors.ranges import check_counts, check_positive

Mode = Literal["full", "probe", "probe_then_tune", "gradual"]


@dataclass(frozen=True)
class Tuning:
    """How a network that starts from pretrained weights is tuned; every technique takes one.

    Args:
        mode: ``full``; ``probe`` trains the new parts alone; ``probe_then_tune`` trains them for `probe_epochs` and
            then everything (LP-FT, Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform
            Out-of-Distribution"); ``gradual`` frees one layer more, from the head downwards, every `unfreeze_every`
            epochs (Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text Classification").
        probe_epochs: Epochs of the probe in ``probe_then_tune``.
        unfreeze_every: Epochs between two layers in ``gradual``.
        layer_decay: Factor on the learning rate from one layer of the backbone to the next one below it, the uppermost
            included; 1 treats all alike.
        freeze_statistics: Whether batch normalisation keeps the running statistics that it came with.
        new_parts_factor: Factor on the learning rate of what has no pretrained weights: the head and parts of priors.

    Raises:
        PriorError: If a value is out of its range.

    >>> Tuning(mode="gradual", unfreeze_every=2).layer_decay
    1.0
    """

    mode: Mode = "full"
    probe_epochs: int = 1
    unfreeze_every: int = 1
    layer_decay: float = 1.0
    freeze_statistics: bool = False
    new_parts_factor: float = 1.0

    def __post_init__(self) -> None:
        """Checks the values."""
        modes = ("full", "probe", "probe_then_tune", "gradual")
        if self.mode not in modes:
            raise PriorError(f"there is no tuning {self.mode!r}; {nearest(self.mode, modes)}")
        check_counts({"probe_epochs": self.probe_epochs, "unfreeze_every": self.unfreeze_every})
        check_positive({"layer_decay": self.layer_decay, "new_parts_factor": self.new_parts_factor})

    @classmethod
    def of(cls, options: "Tuning | Mapping[str, Any] | None") -> "Tuning":
        """Makes a tuning from its options by name, as a checkpoint holds them.

        Raises:
            PriorError: If there is no such option.

        >>> Tuning.of({"mode": "probe"}).mode
        'probe'
        """
        if isinstance(options, Tuning):
            return options
        known = [field.name for field in fields(cls)]
        for name in options or {}:
            if name not in known:
                raise PriorError(f"tuning has no option {name!r}; {nearest(name, known)}")
        return cls(**(options or {}))

    def options(self) -> dict[str, Any]:
        """Gives the options by name."""
        return asdict(self)

    def callbacks(self) -> list[Callback]:
        """Makes the callback that frees layers epoch by epoch, where the mode asks for it."""
        if self.mode == "probe_then_tune":
            return [Unfreezing(probe_epochs=self.probe_epochs)]
        if self.mode == "gradual":
            return [Unfreezing(probe_epochs=self.unfreeze_every, unfreeze_every=self.unfreeze_every)]
        return []

    def freeze(self, backbones: Iterable[Backbone]) -> None:
        """Freezes what is never trained; to be called before a strategy wraps the module."""
        if self.mode == "probe":
            for backbone in backbones:
                backbone.requires_grad_(False)

    def keeps_statistics(self) -> bool:
        """Tells whether the running statistics never change."""
        return self.freeze_statistics or self.mode == "probe"

    def factors(self, module: nn.Module) -> dict[nn.Parameter, float]:
        """Computes the factor on the learning rate of each parameter.

        Args:
            module: With any number of backbones in it.

        >>> list(Tuning(layer_decay=0.5).factors(Backbone("tiny")).values())[::3]
        [0.0625, 0.125, 0.25, 0.5]
        """
        factors = dict.fromkeys(module.parameters(), self.new_parts_factor)
        for backbone in (part for part in module.modules() if isinstance(part, Backbone)):
            factors |= dict.fromkeys(backbone.parameters(), 1.0)
            for height, layer in enumerate(reversed(backbone.layers()), start=1):
                factors |= dict.fromkeys(layer, self.layer_decay**height)
        return factors


PLAIN = Tuning()
"""Everything is trained at the same rate."""

Groups = Sequence[tuple[float, list[nn.Parameter]]]
"""Parameters, each group with the factor on its learning rate."""


def grouped(factors: Mapping[nn.Parameter, float]) -> Groups:
    """Groups parameters by the factor on their learning rate, the greatest first.

    >>> first, second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.ones(1))
    >>> [(factor, len(group)) for factor, group in grouped({first: 0.5, second: 1.0})]
    [(1.0, 1), (0.5, 1)]
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter, factor in factors.items():
        groups.setdefault(factor, []).append(parameter)
    return sorted(groups.items(), key=lambda group: -group[0])


def build_optimizer(
    groups: Groups, lr: float, weight_decay: float, given: OptimizerCallable | None
) -> torch.optim.Optimizer:
    """Builds AdamW, or the optimiser that the user gave; both respect the groups' factors.

    Args:
        groups: What is trained.
        lr: Learning rate of AdamW.
        weight_decay: Weight decay of AdamW, on weights only, not on biases and normalisation.
        given: From groups of parameters to an optimiser that has its own learning rate and weight decay.

    Raises:
        PriorError: If the optimiser refuses one of its options.

    >>> weight = nn.Parameter(torch.zeros(2, 2))
    >>> [group["lr"] for group in build_optimizer([(0.1, [weight])], 1.0, 0.0, None).param_groups]  # and for biases
    [0.1, 0.1]
    """
    if given is None:
        factors = [factor for factor, _ in groups for _ in range(2)]
        decays = [group for _, parameters in groups for group in _split_decay(parameters, weight_decay)]
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(decays, lr=lr)
    else:
        factors = [factor for factor, _ in groups]
        try:
            optimizer = given([{"params": parameters} for _, parameters in groups])
        except ValueError as error:  # torch's own check of rates and the like
            raise PriorError(f"optimizer: {error}") from error
        rank_zero_info(f"{type(optimizer).__name__} given: it has its own lr and weight_decay, not the module's")
    for factor, group in zip(factors, optimizer.param_groups, strict=True):
        group["lr"] *= factor
    return optimizer


def build_schedule(
    optimizer: torch.optim.Optimizer, warmup_steps: float, total_steps: float, given: LRSchedulerCallable | None
) -> tuple[LRScheduler, Literal["step", "epoch"]]:
    """Builds the schedule of the learning rate, and says after what it steps.

    Args:
        optimizer: Whose rates it sets.
        warmup_steps: Of `warmup_cosine`.
        total_steps: Of `warmup_cosine`.
        given: From the optimiser to a schedule that steps once an epoch.

    Raises:
        PriorError: If the schedule refuses one of its options.
    """
    if given is not None:
        try:
            schedule = given(optimizer)
            _try_a_step(given, len(optimizer.param_groups))
        except (ValueError, ArithmeticError) as error:
            raise PriorError(f"scheduler: {error}") from error
        return schedule, "epoch"
    return LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup_steps, total_steps)), "step"


def _try_a_step(given: LRSchedulerCallable, groups: int) -> None:
    """Steps the same schedule of other weights: some show only then, at the end of an epoch, that they divide by 0."""
    others = torch.optim.SGD([{"params": [torch.zeros(1)]} for _ in range(groups)], lr=1.0, momentum=0.9)
    try:
        schedule = given(others)
    except Exception:  # it asks for more of its optimiser than these have
        return
    others.step()
    if not isinstance(schedule, ReduceLROnPlateau):
        schedule.step()


def warmup_cosine(step: int, warmup_steps: float, total_steps: float) -> float:
    """Computes the factor on the learning rate: a linear rise, then half a cosine to zero.

    Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts", equation 5.

    Args:
        step: Optimiser steps done so far.
        warmup_steps: Length of the rise.
        total_steps: Length of the whole training; infinite keeps the rate after the rise.

    Returns:
        A factor in [0, 1].

    >>> [round(warmup_cosine(step, 2, 6), 2) for step in range(7)]
    [0.5, 1.0, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / math.ceil(warmup_steps)
    if math.isinf(total_steps) or total_steps <= warmup_steps:
        return 1.0
    return (1 + math.cos(math.pi * min(1.0, (step - warmup_steps) / (total_steps - warmup_steps)))) / 2


def _split_decay(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    """Weights with weight decay; biases and normalisation, which have one dimension, without."""
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
