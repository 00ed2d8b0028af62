"""Prior knowledge as modules that act on a classifier while it is trained; usable in any PyTorch training loop."""

from lightning_priors.priors.auxiliary_tasks import AuxiliaryTasks
from lightning_priors.priors.forward import PriorStep, attach_priors, see, step_from, training_step
from lightning_priors.priors.guided_attention import GuidedAttention
from lightning_priors.priors.prior import Action, Prior, Seen, Terms, describe, needed_in_evaluation, restore
from lightning_priors.priors.restriction import Restriction
from lightning_priors.priors.starting_point import StartingPoint

__all__ = [
    "Action",
    "AuxiliaryTasks",
    "GuidedAttention",
    "Prior",
    "PriorStep",
    "Restriction",
    "Seen",
    "StartingPoint",
    "Terms",
    "attach_priors",
    "describe",
    "needed_in_evaluation",
    "restore",
    "see",
    "step_from",
    "training_step",
]
