"""Using a trained model: loading it from a checkpoint alone, and asking it about pictures."""

from lightning_priors.trained.classifier import Prediction, TrainedClassifier
from lightning_priors.trained.loading import load

__all__ = ["Prediction", "TrainedClassifier", "load"]
