"""Pictures in the forms that people have them in: files, Pillow images and arrays."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from lightning_priors.data.sources.pictures import read_annotated_image
from lightning_priors.errors import PriorError

Picture = str | Path | Image.Image | NDArray[np.uint8] | Tensor
"""The path of a file; a Pillow image; an array (H, W), (H, W, 1) or (H, W, 3), or a tensor (3, H, W), of uint8."""


def is_picture(value: object) -> TypeGuard[Picture]:
    """Says whether something is one picture and not several.

    >>> is_picture("bird.jpg"), is_picture(["bird.jpg"])
    (True, False)
    """
    return isinstance(value, (str, Path, Image.Image, Tensor)) or (isinstance(value, np.ndarray) and value.ndim < 4)


def pictures_of(given: Picture | Iterable[Picture]) -> Iterable[Picture]:
    """Gives several pictures, where one alone counts too.

    >>> pictures_of("bird.jpg")
    ['bird.jpg']
    """
    return [given] if is_picture(given) else given  # type: ignore[return-value]  # mypy keeps arrays in the rest


def name_of(picture: Picture) -> str:
    """Names the file of a picture; empty if it is none.

    >>> name_of(Path("birds/kakapo.jpg")), name_of(np.zeros((2, 2), np.uint8))
    ('birds/kakapo.jpg', '')
    """
    if isinstance(picture, str | Path):
        return str(picture)
    return str(getattr(picture, "filename", "") or "")  # Pillow's, of an image that was opened


def pixels(picture: Picture) -> Tensor:
    """Reads a picture.

    Args:
        picture: In any of the forms of `Picture`.

    Returns:
        (3, H, W) uint8, turned upright as its EXIF data says. A grey picture gets three equal channels; transparency is
        dropped.

    Raises:
        UnreadableImageError: If a file is missing or broken.
        PriorError: If an array or a tensor has another shape or type.

    >>> pixels(np.zeros((4, 6), np.uint8)).shape
    torch.Size([3, 4, 6])
    """
    if isinstance(picture, str | Path):
        read: Tensor = read_annotated_image(Path(picture), "", None).as_subclass(Tensor)
        return read
    if isinstance(picture, Tensor):
        return _checked(picture, picture.ndim == 3 and len(picture) == 3)
    if isinstance(picture, Image.Image):
        picture = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    if not isinstance(picture, np.ndarray):
        raise PriorError(f"a picture is a path, a Pillow image, an array or a tensor, not a {type(picture).__name__}")
    array = torch.from_numpy(np.atleast_3d(picture))
    return _checked(array, array.ndim == 3 and array.shape[2] in (1, 3)).permute(2, 0, 1).expand(3, -1, -1)


def _checked(values: Tensor, has_shape: bool) -> Tensor:
    if not has_shape or values.dtype != torch.uint8:
        kind = f"{str(values.dtype).removeprefix('torch.')} of shape {tuple(values.shape)}"
        raise PriorError(f"an array is uint8 of shape (H, W) or (H, W, 3), a tensor of shape (3, H, W); this is {kind}")
    return values
