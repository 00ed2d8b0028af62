"""Every numeric option of every technique and prior refuses what is out of its range, by its own name."""

import inspect
import math
from types import UnionType
from typing import get_args, get_origin, get_type_hints

import pytest
import torch

from lightning_priors import priors, techniques
from lightning_priors.errors import PriorError
from lightning_priors.priors import Prior
from lightning_priors.techniques import Combined, PriorModule, Tuning

RATES = (0.0, -1.0, math.nan, math.inf)
WEIGHTS = (-1.0, math.nan, math.inf)
COUNTS = (0, -1)
SHARES = (-0.1, 1.1)

REFUSED: dict[str, tuple[float, ...]] = {
    "accumulate_batches": COUNTS,
    "adjustment": WEIGHTS,
    "aux_weight": WEIGHTS[:1],
    "crop_scale": RATES,
    "crop_size": COUNTS,
    "dilation": WEIGHTS,
    "entropy_weight": WEIGHTS,
    "finder_lr_factor": RATES,
    "gamma": WEIGHTS,
    "generator_every": COUNTS,
    "generator_lr": WEIGHTS,  # 0 keeps the labels of a generator that has learned nothing
    "generator_weight_decay": WEIGHTS,
    "gradient_clip_norm": RATES,
    "gradient_layers": COUNTS,
    "jitter": WEIGHTS,
    "l2_sp": WEIGHTS,
    "layer_decay": RATES,
    "local_lr_factor": RATES,
    "local_share": SHARES,
    "lookahead_rate": RATES,
    "lr": RATES,
    "new_parts_factor": RATES,
    "num_classes": COUNTS,
    "num_parts": COUNTS,
    "peak_threshold": SHARES,
    "penalty": RATES,
    "probe_epochs": COUNTS,
    "sigma": RATES,
    "step_size": RATES,
    "subclasses": COUNTS,
    "target_class": (-1, 2),
    "temperature": RATES,
    "unfreeze_every": COUNTS,
    "warmup_epochs": WEIGHTS,
    "weight": WEIGHTS[:1],
    "weight_decay": WEIGHTS,
    "weight_warmup_epochs": WEIGHTS,
}
"""By the name of an option the values that it may not have; what a name means is the same everywhere."""


def concrete(module: object, base: type) -> list[type]:
    """The classes that a module exports and that can be made."""
    found = [getattr(module, name) for name in module.__all__]
    return [kind for kind in found if isinstance(kind, type) and issubclass(kind, base) and kind is not base]


KINDS = [*(kind for kind in concrete(techniques, PriorModule) if not inspect.isabstract(kind)),
         *concrete(priors, Prior), Tuning]  # fmt: skip


def numeric(kind: type) -> list[str]:
    """The options of a class that take a number."""
    members = {name: get_args(hint) or (hint,) for name, hint in get_type_hints(kind.__init__).items()}
    unions = {name for name, hint in get_type_hints(kind.__init__).items() if get_origin(hint) in (None, UnionType)}
    return [name for name, parts in members.items() if name in unions and {int, float} & set(parts)]


CASES = [(kind, name) for kind in KINDS for name in numeric(kind)]


@pytest.mark.parametrize(("kind", "name"), CASES, ids=[f"{kind.__name__}.{name}" for kind, name in CASES])
def test_is_refused_in_one_line(kind, name):
    for value in REFUSED[name]:
        with pytest.raises(PriorError, match=name) as refusal:
            make(kind, {name: value})
        assert "\n" not in str(refusal.value)


def make(kind: type, options: dict) -> object:
    """The object, of a prior within a classifier."""
    if issubclass(kind, Prior):
        return Combined(priors=[kind(**options)], aux_num_classes=[3])
    needed = {"aux_num_classes": [3]} if "aux_num_classes" in inspect.signature(kind).parameters else {}
    return kind(**needed, **options)


def test_the_techniques_priors_and_options_are_all_there():
    assert {"Pretrained", "GlobalLocal", "PublishedMAXL", "Restriction", "StartingPoint"} <= {k.__name__ for k in KINDS}
    assert len(CASES) > 60
    assert {name for _, name in CASES} == set(REFUSED)


def test_what_is_in_range_is_taken():
    assert techniques.CAMRestriction(weight=0.0, dilation=0.0, weight_decay=0.0, warmup_epochs=0.0).lr == 1e-3


def test_an_optimizer_that_refuses_its_rate_is_one_line():
    module = techniques.Pretrained(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=-1.0))
    with pytest.raises(PriorError, match=r"optimizer: Invalid learning rate: -1.0"):
        techniques.optimisation.build_optimizer(module.parameter_groups(), 1.0, 0.0, module.optimizer)
