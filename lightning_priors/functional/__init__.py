"""The mathematics, as pure functions of tensors; it imports torch and nothing else."""

from lightning_priors.functional.cam import (
    class_activation_map,
    evidence_map,
    logits_from_cam,
    signed_cam,
    upsample,
)
from lightning_priors.functional.guidance import (
    attention_loss,
    energy_inside,
    guidance_loss,
    masked_mean,
)
from lightning_priors.functional.prior_maps import (
    boxes_to_grid,
    keypoints_to_grid,
    prior_map,
    resize_to_grid,
)

__all__ = [
    "attention_loss",
    "boxes_to_grid",
    "class_activation_map",
    "energy_inside",
    "evidence_map",
    "guidance_loss",
    "keypoints_to_grid",
    "logits_from_cam",
    "masked_mean",
    "prior_map",
    "resize_to_grid",
    "signed_cam",
    "upsample",
]
