"""What accompanies a run: freeing of layers, pictures of the evidence, confusion matrix, generated labels, tables."""

from lightning_priors.callbacks.background_exchange import BackgroundExchange
from lightning_priors.callbacks.cam_panel import CAMPanel, collect_evidence
from lightning_priors.callbacks.channels_last import ChannelsLast
from lightning_priors.callbacks.confusion import ConfusionMatrix, draw_confusion
from lightning_priors.callbacks.drawing import Evidence, draw_comparison, draw_panel
from lightning_priors.callbacks.label_report import LabelReport
from lightning_priors.callbacks.label_sheet import draw_label_sheet
from lightning_priors.callbacks.prediction_table import PredictionTable
from lightning_priors.callbacks.predictions import PredictionWriter
from lightning_priors.callbacks.random_state import RandomState
from lightning_priors.callbacks.run_checkpoint import RunCheckpoint, WholeFiles
from lightning_priors.callbacks.run_folder import run_folder
from lightning_priors.callbacks.start_report import StartReport
from lightning_priors.callbacks.subsets import SubsetAccuracy
from lightning_priors.callbacks.unfreezing import Unfreezing

__all__ = [
    "BackgroundExchange",
    "CAMPanel",
    "ChannelsLast",
    "ConfusionMatrix",
    "Evidence",
    "LabelReport",
    "PredictionTable",
    "PredictionWriter",
    "RandomState",
    "RunCheckpoint",
    "StartReport",
    "SubsetAccuracy",
    "Unfreezing",
    "WholeFiles",
    "collect_evidence",
    "draw_comparison",
    "draw_confusion",
    "draw_label_sheet",
    "draw_panel",
    "run_folder",
]
