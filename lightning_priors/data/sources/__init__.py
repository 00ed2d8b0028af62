"""The data sets, one file each."""

from lightning_priors.data.sources.base import RawSample, Source, Split, UnreadableImageError

__all__ = ["RawSample", "Source", "Split", "UnreadableImageError"]
