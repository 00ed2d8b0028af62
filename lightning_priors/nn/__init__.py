"""Networks that the techniques are built from; usable in any PyTorch project."""

from lightning_priors.nn.attention import AttentionBranch
from lightning_priors.nn.backbone import Backbone
from lightning_priors.nn.classifier import CAMHead, Classifier
from lightning_priors.nn.region_finder import RegionFinder
from lightning_priors.nn.tiny import TinyConvNet
from lightning_priors.nn.weights import StartsFromWeights, WeightsReport

__all__ = [
    "AttentionBranch",
    "Backbone",
    "CAMHead",
    "Classifier",
    "RegionFinder",
    "StartsFromWeights",
    "TinyConvNet",
    "WeightsReport",
]
