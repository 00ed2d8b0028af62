"""Auxiliary tasks, such as finer labels, that are learned on the same backbone."""

from lightning_priors.priors.auxiliary_tasks.prior import AuxiliaryTasks
from lightning_priors.priors.auxiliary_tasks.weighting import Weighting

__all__ = ["AuxiliaryTasks", "Weighting"]
