"""Networks that the techniques are built from; usable in any PyTorch project."""

from lightning_priors.nn.attention import AttentionBranch
from lightning_priors.nn.auxiliary_heads import AuxiliaryHeads
from lightning_priors.nn.backbone import Backbone
from lightning_priors.nn.classifier import CAMHead, Classifier
from lightning_priors.nn.fusion import Fusion
from lightning_priors.nn.label_generator import LabelGenerator, TwoTasks
from lightning_priors.nn.region_finder import RegionFinder
from lightning_priors.nn.tiny import TinyConvNet
from lightning_priors.nn.weights import WeightsReport

__all__ = [
    "AttentionBranch",
    "AuxiliaryHeads",
    "Backbone",
    "CAMHead",
    "Classifier",
    "Fusion",
    "LabelGenerator",
    "RegionFinder",
    "TinyConvNet",
    "TwoTasks",
    "WeightsReport",
]
