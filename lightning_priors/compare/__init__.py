"""Many runs under one protocol: what is compared, the runs, their statistics and the summary."""

from lightning_priors.compare.command import main

__all__ = ["main"]
