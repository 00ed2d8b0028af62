"""What one image and one batch consist of, and the one check of a batch's keys and shapes."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NotRequired, TypedDict, cast

import torch
from torch import Tensor

from lightning_priors.errors import PriorError

# Images of a batch are normalised with these, whatever the network: `nn.Backbone` converts to what its weights want.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


class PriorSample(TypedDict):
    """One image with what is known about it, after the transforms; a plain dict at run time.

    The optional keys are present for a whole split or not at all. A sample without a certain annotation carries zeros
    and a false ``*_valid``; where ``*_valid`` is absent all are valid.
    """

    image: Tensor
    """(3, H, W) float32, normalised with `IMAGE_MEAN` and `IMAGE_STD`."""
    label: Tensor
    """() int64, the class of the primary task."""
    index: NotRequired[Tensor]
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
    index: NotRequired[Tensor]
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


SHAPES: Mapping[str, tuple[str | int, ...]] = {
    "image": ("B", 3, "H", "W"),
    "label": ("B",),
    "index": ("B",),
    "aux_labels": ("B", "A"),
    "group": ("B",),
    "part_boxes": ("B", "K", 4),
    "part_valid": ("B", "K"),
    "keypoints": ("B", "P", 2),
    "keypoint_valid": ("B", "P"),
    "mask": ("B", "H", "W"),
    "mask_valid": ("B",),
}
"""The shape of each key of a batch; a letter stands for the same number in all of them."""

WHOLE_NUMBERS = ("label", "index", "aux_labels", "group")
"""The keys that are int64; those that end in ``_valid`` are bool, the others floating."""

VALIDITY = {"mask": "mask_valid", "part_boxes": "part_valid", "keypoints": "keypoint_valid"}
"""Which key tells for which annotation where it is valid."""


def checked(batch: Any, needs: Collection[str] = ("image", "label")) -> PriorBatch:
    """Checks the keys, shapes and types of a batch, and adds what may be left out.

    Masks (B, 1, H, W) lose their second dimension; where an annotation comes without its ``*_valid``, all are valid.

    Args:
        batch: What a loader gave: a dict with the keys of `PriorBatch`, and any others.
        needs: The keys that have to be there.

    Returns:
        A dict of its own with the same tensors.

    Raises:
        PriorError: If it is no dict, or a key is missing, or has another shape or type than `PriorBatch` says.

    >>> batch = {"image": torch.zeros(2, 3, 8, 8), "label": torch.tensor([0, 1]), "mask": torch.ones(2, 1, 8, 8)}
    >>> checked(batch)["mask"].shape, checked(batch)["mask_valid"]
    (torch.Size([2, 8, 8]), tensor([True, True]))
    >>> checked(batch | {"mask": torch.ones(2, 3, 8, 8)})
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: batch['mask'] has the shape (2, 3, 8, 8), but (B, H, W) = (2, 8, 8) is wanted
    """
    if not isinstance(batch, Mapping):
        raise PriorError(f"a batch is a dict with image and label, see PriorBatch; the loader gave a {_kind(batch)}")
    for key in needs:
        if key not in batch:
            raise PriorError(f"batch[{key!r}] is missing; this data gives {', '.join(sorted(map(str, batch)))}")
    known = dict(batch)
    if isinstance(mask := known.get("mask"), Tensor) and mask.ndim == 4 and mask.shape[1] == 1:
        known["mask"] = mask.squeeze(1)
    sizes: dict[str, int] = {}
    for key in SHAPES.keys() & known.keys():
        _check_type(key, known[key])
    for key in (key for key in SHAPES if key in known):  # in this order, so that images decide what B, H and W are
        _check_shape(key, known[key].shape, sizes)
    for key, valid in VALIDITY.items():
        if key in known and valid not in known:
            shape = [sizes[str(letter)] for letter in SHAPES[valid]]
            known[valid] = torch.ones(shape, dtype=torch.bool, device=known[key].device)
    return cast(PriorBatch, known)


def complete(batch: PriorBatch, needs: Collection[str] = ("image", "label")) -> PriorBatch:
    """Checks a batch, and completes it in place, so that callbacks find in it what the technique finds.

    Args:
        batch: What a loader gave, moved to the device.
        needs: The keys that have to be there.

    Raises:
        PriorError: As `checked` does.

    >>> batch = {"image": torch.zeros(1, 3, 8, 8), "label": torch.tensor([0]), "mask": torch.zeros(1, 8, 8)}
    >>> _ = complete(batch)
    >>> batch["mask_valid"]
    tensor([True])
    """
    whole = checked(batch, needs)
    batch.update(whole)
    return batch


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


def _check_type(key: str, value: object) -> None:
    """That an entry is a tensor of the right kind of number."""
    wanted = "int64" if key in WHOLE_NUMBERS else "bool" if key.endswith("_valid") else "floating"
    if not isinstance(value, Tensor):
        raise PriorError(f"batch[{key!r}] is a {_kind(value)}, but a tensor is wanted ({wanted})")
    kind = "floating" if value.is_floating_point() else str(value.dtype).removeprefix("torch.")
    if kind != wanted:
        raise PriorError(f"batch[{key!r}] is {str(value.dtype).removeprefix('torch.')}, but {wanted} is wanted")


def _check_shape(key: str, shape: torch.Size, sizes: dict[str, int]) -> None:
    """That an entry has the shape of its key; a letter that is met for the first time is noted in `sizes`."""
    wanted = SHAPES[key]
    fits = len(shape) == len(wanted) and all(
        actual == (size if isinstance(size, int) else sizes.get(size, actual))
        for actual, size in zip(shape, wanted, strict=True)
    )
    if not fits:
        letters = ", ".join(map(str, wanted)) + ("," if len(wanted) == 1 else "")
        numbers = [size if isinstance(size, int) else sizes.get(size) for size in wanted]
        known = "" if None in numbers else f" = {tuple(numbers)}"
        raise PriorError(f"batch[{key!r}] has the shape {tuple(shape)}, but ({letters}){known} is wanted")
    sizes.update((size, actual) for size, actual in zip(wanted, shape, strict=True) if isinstance(size, str))


def _kind(value: object) -> str:
    return type(value).__name__
