"""Technique 6: MAXL, auxiliary labels that are themselves learned; and the form in which it was published."""

from lightning_priors.techniques.maxl.maxl import MAXL
from lightning_priors.techniques.maxl.published import PublishedMAXL

__all__ = ["MAXL", "PublishedMAXL"]
