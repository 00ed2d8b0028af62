"""The mathematics that several techniques share, as pure functions of tensors; it imports torch and nothing else."""

from lightning_priors.functional.backgrounds import before_background, exchange_cells
from lightning_priors.functional.cam import (
    class_activation_map,
    evidence_map,
    logits_from_cam,
    signed_cam,
    upsample,
)
from lightning_priors.functional.focal import focal_loss, per_class_losses
from lightning_priors.functional.guidance import (
    ATTENTION_LOSSES,
    GUIDANCE_LOSSES,
    energy_inside,
    masked_mean,
)
from lightning_priors.functional.prior_maps import (
    boxes_to_grid,
    keypoints_to_grid,
    prior_map,
    resize_to_grid,
)

__all__ = [
    "ATTENTION_LOSSES",
    "GUIDANCE_LOSSES",
    "before_background",
    "boxes_to_grid",
    "class_activation_map",
    "energy_inside",
    "evidence_map",
    "exchange_cells",
    "focal_loss",
    "keypoints_to_grid",
    "logits_from_cam",
    "masked_mean",
    "per_class_losses",
    "prior_map",
    "resize_to_grid",
    "signed_cam",
    "upsample",
]
