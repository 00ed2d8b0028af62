"""Baseline and augmentation: targets are put before the backgrounds of other training pictures, in the pixels."""

from typing import Any

import lightning as L
import torch

from lightning_priors.batch import PriorBatch, complete, require
from lightning_priors.errors import PriorError
from lightning_priors.functional.backgrounds import before_background, fill_in, shuffle_among
from lightning_priors.functional.prior_maps import prior_map


class BackgroundExchange(L.Callback):
    """Exchanges the backgrounds of training pictures, for any technique (Xiao et al. 2021, "Noise or Signal").

    The target of a picture, its mask or else its boxes, is put where it is before the background of another picture of
    the batch, in which the place of the other target is filled from what surrounds it. Pictures whose target is not
    known stay as they are. The entry ``group`` stays too, although it may name the background.

    Args:
        share: Of the pictures with a known target, from 0 to 1, how many take part.

    Raises:
        PriorError: If the share is out of its range, or, in training, if the data has neither masks nor boxes.

    >>> BackgroundExchange(share=0.5).share
    0.5
    """

    requires = (("mask", "part_boxes", "keypoints"),)
    """For each need of training, the batch keys of which one is enough."""

    def __init__(self, share: float = 1.0) -> None:
        if not 0 <= share <= 1:
            raise PriorError(f"BackgroundExchange: share is from 0 to 1, not {share}")
        self.share = share

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Exchanges the backgrounds of a batch before the technique sees it."""
        require(complete(batch), self.requires, by="BackgroundExchange")
        batch["image"] = exchange_backgrounds(batch, self.share)


def exchange_backgrounds(batch: PriorBatch, share: float = 1.0) -> torch.Tensor:
    """Puts the targets of pictures before the backgrounds of others.

    Args:
        batch: With images (B, 3, H, W) and masks, boxes or keypoints.
        share: Of the pictures with a known target, how many take part; they are drawn.

    Returns:
        (B, 3, H, W), new pictures.
    """
    image = batch["image"]
    target, known = prior_map(batch, image.shape[2:])
    order = shuffle_among(known & (torch.rand(len(image), device=image.device) < share))
    exchanged = before_background(image, target, fill_in(image, target)[order])
    stays = order == torch.arange(len(order), device=order.device)
    return torch.where(stays[:, None, None, None], image, exchanged)
