"""Where a classifier looks and whom it fails: measured on the images of a split, written as one page."""

from lightning_priors.explain.command import main

__all__ = ["main"]
