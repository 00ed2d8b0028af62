"""The memory layout in which convolutions are fastest on many processors."""

import lightning as L
import torch


class ChannelsLast(L.Callback):
    """Keeps the weights, and with them all feature maps, in the channels-last layout.

    The results are the same up to rounding. On a CPU with two cores a training step of EfficientNet-Lite0 at 128 pixels
    takes 0.6 times as long (``benchmarks/technique_overhead.py`` prints the figure for a machine).

    >>> ChannelsLast().state_key
    'ChannelsLast'
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Converts the weights; the feature maps follow them."""
        pl_module.to(memory_format=torch.channels_last)
