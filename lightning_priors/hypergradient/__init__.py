"""The derivative of a loss through an optimiser's step, without a second-order graph; it imports torch alone.

`inner_step` begins with the ten lines that use it in any training loop.
"""

from lightning_priors.hypergradient.forward_mode import (
    call_at,
    finite_difference,
    forward_mode,
    supports_forward_mode,
)
from lightning_priors.hypergradient.gradients import clip_by_norm, global_norm, named_gradients
from lightning_priors.hypergradient.inner_step import InnerStep
from lightning_priors.hypergradient.optimizer_step import stepped_parameters, update_rules
from lightning_priors.hypergradient.random_state import RandomState
from lightning_priors.hypergradient.reference import unrolled_label_gradient

__all__ = [
    "InnerStep",
    "RandomState",
    "call_at",
    "clip_by_norm",
    "finite_difference",
    "forward_mode",
    "global_norm",
    "named_gradients",
    "stepped_parameters",
    "supports_forward_mode",
    "unrolled_label_gradient",
    "update_rules",
]
