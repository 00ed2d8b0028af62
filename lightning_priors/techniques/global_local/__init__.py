"""Technique 2: global and local features, trained separately and fused."""

from lightning_priors.techniques.global_local.fusion import Fusion
from lightning_priors.techniques.global_local.global_local import GlobalLocal

__all__ = ["Fusion", "GlobalLocal"]
