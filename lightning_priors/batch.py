"""What one image and one batch consist of, and the check that a technique finds the priors it needs."""

from collections.abc import Collection, Sequence
from typing import NotRequired, TypedDict

from torch import Tensor

from lightning_priors.errors import PriorError

# Images of a batch are normalised with these, whatever the network: `nn.Backbone` converts to what its weights want.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


class PriorSample(TypedDict):
    """One image with what is known about it, after the transforms; a plain dict at run time.

    The optional keys are present for a whole split or not at all. A sample without a certain annotation carries zeros
    and a false ``*_valid``.
    """

    image: Tensor
    """(3, H, W) float32, normalised with `IMAGE_MEAN` and `IMAGE_STD`."""
    label: Tensor
    """() int64, the class of the primary task."""
    index: Tensor
    """() int64, the row in its source; the same for the same image in every epoch."""
    aux_labels: NotRequired[Tensor]
    """(A,) int64, one entry per auxiliary task, -1 = no label."""
    group: NotRequired[Tensor]
    """() int64, such as label times background."""
    part_boxes: NotRequired[Tensor]
    """(K, 4) float32, xyxy in pixels of `image`."""
    part_valid: NotRequired[Tensor]
    """(K,) bool."""
    keypoints: NotRequired[Tensor]
    """(P, 2) float32, xy in pixels of `image`."""
    keypoint_valid: NotRequired[Tensor]
    """(P,) bool."""
    mask: NotRequired[Tensor]
    """(H, W) float32 in [0, 1], 1 = target."""
    mask_valid: NotRequired[Tensor]
    """() bool."""


class PriorBatch(TypedDict):
    """`PriorSample` with a leading batch dimension B on every entry: dense tensors, so the default collate serves."""

    image: Tensor
    """(B, 3, H, W) float32."""
    label: Tensor
    """(B,) int64."""
    index: Tensor
    """(B,) int64."""
    aux_labels: NotRequired[Tensor]
    """(B, A) int64, -1 = no label."""
    group: NotRequired[Tensor]
    """(B,) int64."""
    part_boxes: NotRequired[Tensor]
    """(B, K, 4) float32, xyxy pixels."""
    part_valid: NotRequired[Tensor]
    """(B, K) bool."""
    keypoints: NotRequired[Tensor]
    """(B, P, 2) float32, xy pixels."""
    keypoint_valid: NotRequired[Tensor]
    """(B, P) bool."""
    mask: NotRequired[Tensor]
    """(B, H, W) float32 in [0, 1]."""
    mask_valid: NotRequired[Tensor]
    """(B,) bool."""


def require(batch: Collection[str], alternatives: Sequence[Sequence[str]], by: str) -> None:
    """Checks that a batch has what a technique needs.

    Args:
        batch: A `PriorBatch`, or the names of its keys.
        alternatives: For each need, the keys of which one is enough: ``[("mask", "part_boxes")]``.
        by: Who asks, for the message.

    Raises:
        PriorError: If none of the keys of a need is there.

    >>> require({"image"}, [("mask", "part_boxes")], by="CAMRestriction")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: CAMRestriction needs batch['mask'] or batch['part_boxes']; this data gives image
    """
    for keys in alternatives:
        if not any(key in batch for key in keys):
            wanted = " or ".join(f"batch[{key!r}]" for key in keys)
            raise PriorError(f"{by} needs {wanted}; this data gives {', '.join(sorted(batch))}")
