"""Trained classifiers as files for other programs, each checked against PyTorch before it is there."""

from lightning_priors.export.command import main

__all__ = ["main"]
