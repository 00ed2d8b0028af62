"""Readers of pictures and masks; their errors name the file and the row."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import tv_tensors

from lightning_priors.data.sources.base import UnreadableImageError
from lightning_priors.data.sources.paths import hint_beside, is_file
from lightning_priors.errors import PriorError

MaskKind = Literal["none", "soft", "hard"]
"""How a mask's grey levels become values in [0, 1]: no masks at all, level / 255, or 1 from the level 128 on."""
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
FULL_16_BITS = 65535
LEAST_LEVEL = 10  # no share of annotators makes a mask whose highest level is lower
HARD_LEVEL = 128  # in CUB-200-2011: at least half of the annotators marked the pixel as bird


def read_image(path: Path, row: str) -> tv_tensors.Image:
    """Reads a picture without turning it by its EXIF orientation, since annotations refer to the stored pixels.

    Args:
        path: A file in any format that Pillow reads.
        row: Where the file is named, such as "row 7 of metadata.csv"; for the message.

    Returns:
        (3, H, W) uint8. A grey picture gets three equal channels; transparency is dropped.

    Raises:
        UnreadableImageError: If the file is missing or broken.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "grey.png"
    >>> Image.new("L", (6, 4)).save(path)
    >>> read_image(path, "row 2 of birds.csv").shape
    torch.Size([3, 4, 6])
    """
    return tv_tensors.Image(_pixels(path, "RGB", row).permute(2, 0, 1))


def read_annotated_image(path: Path, row: str, size: tuple[int, int] | None) -> tv_tensors.Image:
    """Reads a picture as it was annotated: turned by its EXIF orientation, or as it is stored.

    Args:
        path: A file in any format that Pillow reads.
        row: Where the file is named, for the message.
        size: Width and height of the picture that was annotated. Where they are not known, or fit the picture both
            stored and turned, it is turned, because annotators saw it so.

    Returns:
        (3, H, W) uint8.

    Raises:
        UnreadableImageError: If the file is missing or broken.
        PriorError: If the picture has another size, stored and turned.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "grey.png"
    >>> Image.new("L", (6, 4)).save(path)
    >>> read_annotated_image(path, "image 1 of birds.json", (6, 4)).shape
    torch.Size([3, 4, 6])
    """

    def turned(picture: Image.Image) -> Image.Image:
        if size is None:
            ImageOps.exif_transpose(picture, in_place=True)  # most pictures are upright, and need no copy
            return picture
        upright = ImageOps.exif_transpose(picture)
        return upright if upright.size == size else picture

    pixels = _pixels(path, "RGB", row, turned)
    height, width = pixels.shape[:2]
    if size is not None and size != (width, height):
        raise PriorError(f"{path} is {width} x {height}, but it was annotated at {size[0]} x {size[1]} ({row})")
    return tv_tensors.Image(pixels.permute(2, 0, 1))


def read_mask(path: Path, row: str, image: Tensor, kind: MaskKind) -> tv_tensors.Image:
    """Reads the mask of a picture.

    Args:
        path: A grey picture, 255 = target.
        row: Where the file is named, for the message.
        image: (3, H, W), the picture that the mask belongs to.
        kind: "soft" divides the levels by 255, "hard" gives 1 from the level 128 on.

    Returns:
        (1, H, W) float32 in [0, 1].

    Raises:
        UnreadableImageError: If the file is missing or broken.
        PriorError: If the mask has another size than the picture, or is not drawn in shades of grey up to 255.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "mask.png"
    >>> Image.new("L", (6, 4), 51).save(path)
    >>> read_mask(path, "row 2 of birds.csv", torch.zeros(3, 4, 6), "soft").shape
    torch.Size([1, 4, 6])
    """
    grey = _pixels(path, "L", row)
    if grey.shape != image.shape[1:]:
        (height, width), (image_height, image_width) = grey.shape, image.shape[1:]
        raise PriorError(f"the mask {path} ({row}) is {width} x {height}, its image {image_width} x {image_height}")
    _check_mask(path, row, grey)
    share = grey.float().div_(255) if kind == "soft" else (grey >= HARD_LEVEL).float()
    return tv_tensors.Image(share[None])


def empty_mask(image: Tensor) -> tv_tensors.Image:
    """Makes the mask of a picture that has none.

    Args:
        image: (3, H, W).

    Returns:
        (1, H, W), zero.

    >>> empty_mask(torch.ones(3, 4, 6)).shape
    torch.Size([1, 4, 6])
    """
    return tv_tensors.Image(torch.zeros(1, *image.shape[1:]))


def _pixels(
    path: Path, mode: str, row: str, change: Callable[[Image.Image], Image.Image] = lambda picture: picture
) -> Tensor:
    """Reads the pixels of a picture: (H, W) uint8 for the mode "L", (H, W, 3) for "RGB"."""
    named = f" ({row})" if row else ""
    try:
        if not is_file(path) and path.exists():  # a pipe would never end
            raise UnreadableImageError(f"cannot read {path} ({row}): it is no file")
        with Image.open(path) as picture:
            return torch.from_numpy(np.array(_in_mode(change(_eight_bits(picture)), mode)))
    except UnreadableImageError:
        raise
    except FileNotFoundError as error:
        raise UnreadableImageError(f"no file {path}{named}{hint_beside(path)}") from error
    # Pillow's decoders raise all of these for broken files
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = str(error).replace(f" {str(path)!r}", "").replace(f": {str(path)!r}", "").replace("\n", " ")
        raise UnreadableImageError(f"cannot read {path}{named}: {reason}") from error


def _in_mode(picture: Image.Image, mode: str) -> Image.Image:
    return picture if picture.mode == mode else picture.convert(mode)  # Pillow would copy it


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Scales grey levels of 16 bits to 8, which Pillow would cut off at 255.

    Raises:
        ValueError: If the levels are fractions or need more than 16 bits: nobody knows which of them is white.
    """
    if picture.mode == "F":
        raise ValueError("its pixels are fractions; save it with 8 or 16 bits")
    if not picture.mode.startswith("I"):
        return picture
    levels = np.asarray(picture).astype(np.int64)
    if levels.min() < 0 or levels.max() > FULL_16_BITS:
        raise ValueError(f"its levels reach from {levels.min()} to {levels.max()}; save it with 8 or 16 bits")
    return Image.fromarray(np.rint(levels * (255 / FULL_16_BITS)).astype(np.uint8))


def _check_mask(path: Path, row: str, grey: Tensor) -> None:
    """Refuses a mask (H, W) of levels 0 to 255 that is drawn in another way than in shades of grey.

    Raises:
        PriorError: Says how it is drawn, and how it should be.
    """
    pixels = grey.numpy()  # several times as fast as torch for bytes
    lowest, highest = int(pixels.min()), int(pixels.max())
    if (lowest, highest) == (0, 255):
        return
    if 0 < highest < LEAST_LEVEL:  # divided by 255 it would hardly differ from an empty mask
        levels = "the levels 0 and 1" if highest == 1 else f"levels from 0 to {highest}"
        raise PriorError(f"the mask {path} ({row}) has {levels}; the target's is 255")
    with Image.open(path) as picture:
        if picture.mode == "P" and 0 < highest < 255:
            raise PriorError(f"the mask {path} ({row}) has colours for numbers of classes; draw the target in white")
        if "A" in picture.getbands() and highest == lowest:
            alpha = picture.getchannel("A").getextrema()
            if alpha[0] != alpha[1]:
                raise PriorError(f"the mask {path} ({row}) is drawn in transparency; draw the target in white on black")
