"""The workspace and the report of Weights & Biases in which runs are looked at, as code."""

from lightning_priors.dashboard.command import main

__all__ = ["main"]
