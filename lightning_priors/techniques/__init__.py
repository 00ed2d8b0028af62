"""The six ways to use prior knowledge, one file or folder each, and their combination."""

from lightning_priors.techniques.auxiliary import Auxiliary
from lightning_priors.techniques.base import PriorModule, PriorStep
from lightning_priors.techniques.cam_restriction import CAMRestriction
from lightning_priors.techniques.combined import Combined
from lightning_priors.techniques.global_local import GlobalLocal
from lightning_priors.techniques.maxl import MAXL, PublishedMAXL
from lightning_priors.techniques.optimisation import Tuning
from lightning_priors.techniques.pretrained import Pretrained
from lightning_priors.techniques.prior_attention import PriorAttention

__all__ = [
    "MAXL",
    "Auxiliary",
    "CAMRestriction",
    "Combined",
    "GlobalLocal",
    "Pretrained",
    "PriorAttention",
    "PriorModule",
    "PriorStep",
    "PublishedMAXL",
    "Tuning",
]
