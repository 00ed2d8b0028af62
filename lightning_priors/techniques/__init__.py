"""The six ways to use prior knowledge, one file or folder each, their combination, and baselines to compare with."""

from lightning_priors.techniques.afr import AFR
from lightning_priors.techniques.auxiliary import Auxiliary
from lightning_priors.techniques.base import PriorModule, PriorStep
from lightning_priors.techniques.cam_restriction import CAMRestriction
from lightning_priors.techniques.combined import Combined
from lightning_priors.techniques.global_local import GlobalLocal
from lightning_priors.techniques.group_dro import GroupDRO
from lightning_priors.techniques.last_layer_retraining import LastLayerRetraining
from lightning_priors.techniques.maxl import MAXL, PublishedMAXL
from lightning_priors.techniques.optimisation import Tuning
from lightning_priors.techniques.pretrained import Pretrained
from lightning_priors.techniques.prior_attention import PriorAttention

__all__ = [
    "AFR",
    "MAXL",
    "Auxiliary",
    "CAMRestriction",
    "Combined",
    "GlobalLocal",
    "GroupDRO",
    "LastLayerRetraining",
    "Pretrained",
    "PriorAttention",
    "PriorModule",
    "PriorStep",
    "PublishedMAXL",
    "Tuning",
]
