"""The mathematics, as pure functions of tensors; it imports torch and nothing else."""

from lightning_priors.functional.cam import (
    class_activation_map,
    evidence_map,
    logits_from_cam,
    signed_cam,
    upsample,
)
from lightning_priors.functional.clustering import hashed_uniform, k_means
from lightning_priors.functional.directional import supports_forward_mode
from lightning_priors.functional.generator_update import scaled_cotangents
from lightning_priors.functional.guidance import (
    attention_loss,
    energy_inside,
    guidance_loss,
    masked_mean,
)
from lightning_priors.functional.hypergradient import InnerStep, named_gradients, unrolled_label_gradient
from lightning_priors.functional.prior_maps import (
    boxes_to_grid,
    keypoints_to_grid,
    prior_map,
    resize_to_grid,
)
from lightning_priors.functional.random_state import RandomState
from lightning_priors.functional.soft_labels import (
    hierarchy,
    hierarchy_mask,
    label_entropy,
    masked_softmax,
    per_class_losses,
    sinkhorn,
    soft_label_loss,
)
from lightning_priors.functional.update_rules import stepped_parameters

__all__ = [
    "InnerStep",
    "RandomState",
    "attention_loss",
    "boxes_to_grid",
    "class_activation_map",
    "energy_inside",
    "evidence_map",
    "guidance_loss",
    "hashed_uniform",
    "hierarchy",
    "hierarchy_mask",
    "k_means",
    "keypoints_to_grid",
    "label_entropy",
    "logits_from_cam",
    "masked_mean",
    "masked_softmax",
    "named_gradients",
    "per_class_losses",
    "prior_map",
    "resize_to_grid",
    "scaled_cotangents",
    "signed_cam",
    "sinkhorn",
    "soft_label_loss",
    "stepped_parameters",
    "supports_forward_mode",
    "unrolled_label_gradient",
    "upsample",
]
