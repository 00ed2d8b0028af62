"""Priors without annotation by hand: annotators, and the command that fills in what the data lacks."""

from lightning_priors.annotation.annotator import Annotation, Annotator, PythonFunction
from lightning_priors.annotation.detector import ZeroShotDetector
from lightning_priors.annotation.evidence import Evidence
from lightning_priors.annotation.regions import FoundRegions
from lightning_priors.annotation.segmenter import PromptedSegmenter

__all__ = [
    "Annotation",
    "Annotator",
    "Evidence",
    "FoundRegions",
    "PromptedSegmenter",
    "PythonFunction",
    "ZeroShotDetector",
]
