"""Readers of data set files; their errors name the file and the row."""

import csv
import json
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import tv_tensors

from lightning_priors.data.sources.base import UnreadableImageError
from lightning_priors.errors import PriorError, nearest

Known = TypeVar("Known")
MaskKind = Literal["none", "soft", "hard"]
"""How a mask's grey levels become values in [0, 1]: no masks at all, level / 255, or 1 from the level 128 on."""

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

FULL_16_BITS = 65535
LEAST_LEVEL = 10  # no share of annotators makes a mask whose highest level is lower
HARD_LEVEL = 128  # in CUB-200-2011: at least half of the annotators marked the pixel as bird
COMPARED_NAMES = 5000  # files that a missing name is compared with; more would take seconds
OUTSIDE_PIXELS, OUTSIDE_SHARE = 1.0, 0.05  # how far rounding may put a box outside the picture


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
        upright = ImageOps.exif_transpose(picture)
        return upright if size in (None, upright.size) else picture

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
    share = grey / 255 if kind == "soft" else (grey >= HARD_LEVEL).float()
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


def checked_boxes(
    boxes: Sequence[Sequence[float] | None], image: Tensor, names: Sequence[str], row: str
) -> tuple[tv_tensors.BoundingBoxes, Tensor]:
    """Checks the part boxes of a picture and clips those that rounding put a little outside.

    Args:
        boxes: For each of K parts x0, y0, x1, y1 in pixels, or None where it is not annotated.
        image: (3, H, W), the picture.
        names: The names of the parts, for the message.
        row: Where the boxes stand, for the message.

    Returns:
        The boxes (K, 4) float32 in pixels, zero where not annotated, and which of them are annotated, (K,) bool.

    Raises:
        PriorError: If a box has no area, or reaches outside the picture by more than 1 pixel and 5 % of its side.

    >>> boxes, valid = checked_boxes([[2, 2, 6.5, 4], None], torch.zeros(3, 6, 6), ["head", "tail"], "row 2")
    >>> boxes.tolist(), valid.tolist()
    ([[2.0, 2.0, 6.0, 4.0], [0.0, 0.0, 0.0, 0.0]], [True, False])
    """
    height, width = image.shape[1:]
    result = torch.zeros(len(boxes), 4)
    for number, box in enumerate(boxes):
        if box is None:
            continue
        x0, y0, x1, y1 = box
        if not (x0 < x1 and y0 < y1):
            raise PriorError(f"the box {names[number]} ({row}) has no area: x {x0:g} to {x1:g}, y {y0:g} to {y1:g}")
        for start, end, side in ((x0, x1, width), (y0, y1, height)):
            if max(-start, end - side) > max(OUTSIDE_PIXELS, OUTSIDE_SHARE * (end - start)):
                raise PriorError(
                    f"the box {names[number]} ({row}) lies outside its image of {width} x {height}: "
                    f"x {x0:g} to {x1:g}, y {y0:g} to {y1:g}"
                )
        result[number] = torch.tensor([max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)])
    valid = torch.tensor([box is not None for box in boxes], dtype=torch.bool)
    return tv_tensors.BoundingBoxes(result, format="XYXY", canvas_size=(height, width)), valid


def checked_points(
    points: Sequence[Sequence[float] | None], image: Tensor, names: Sequence[str], row: str
) -> tuple[Tensor, Tensor]:
    """Checks the keypoints of a picture.

    Args:
        points: For each of P keypoints x and y in pixels, or None where it is not annotated.
        image: (3, H, W), the picture.
        names: The names of the keypoints, for the message.
        row: Where the keypoints stand, for the message.

    Returns:
        The keypoints (P, 2) float32 in pixels, zero where not annotated, and which of them are annotated, (P,) bool.

    Raises:
        PriorError: If a point lies outside the picture.

    >>> checked_points([[5, 2], None], torch.zeros(3, 6, 6), ["beak", "tail"], "row 2")
    (tensor([[5., 2.],
            [0., 0.]]), tensor([ True, False]))
    """
    height, width = image.shape[1:]
    result = torch.zeros(len(points), 2)
    for number, point in enumerate(points):
        if point is None:
            continue
        if not (0 <= point[0] <= width and 0 <= point[1] <= height):
            raise PriorError(
                f"the keypoint {names[number]} ({row}) lies outside its image of {width} x {height}: "
                f"{point[0]:g}, {point[1]:g}"
            )
        result[number] = torch.tensor(point)
    return result, torch.tensor([point is not None for point in points], dtype=torch.bool)


def read_table(path: Path, wanted: Iterable[str] = ()) -> Iterator[tuple[str, dict[str, str]]]:
    r"""Reads a CSV file with a header.

    Args:
        path: The file, in UTF-8.
        wanted: Columns that it must have.

    Yields:
        For each row its name, such as "row 2 of metadata.csv", and its cells by column. The header is row 1, as in
        an editor or a spreadsheet.

    Raises:
        PriorError: If the file is missing, is no text or lacks a column, or a row has more or fewer cells than the
            header.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "birds.csv"
    >>> _ = path.write_text("path,label\na.png,cat\n")
    >>> list(read_table(path, ["path"]))
    [('row 2 of birds.csv', {'path': 'a.png', 'label': 'cat'})]
    """
    existing_file(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.reader(lines)
            header = [name.strip() for name in next(reader, [])]
            require_columns(named_once(header, f"column of {path.name}"), wanted, path)
            for cells in reader:
                row = f"row {reader.line_num} of {path.name}"
                if len(cells) not in (0, len(header)):
                    raise PriorError(f"{row} has {len(cells)} cells, the header {len(header)} ({path})")
                if cells:
                    yield row, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    except (UnicodeDecodeError, csv.Error) as error:
        raise PriorError(f"{path} cannot be read as CSV: {error}") from error


def require_columns(columns: Collection[str], wanted: Iterable[str], path: Path) -> None:
    """Checks that a table has certain columns.

    Args:
        columns: The columns of the table.
        wanted: The columns that it must have.
        path: The file, for the message.

    Raises:
        PriorError: If one is missing.

    >>> require_columns(["path", "lable"], ["path", "label"], Path("birds.csv"))
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: birds.csv has no column 'label', did you mean 'lable'?
    """
    for name in wanted:
        if name not in columns:
            raise PriorError(f"{path} has no column {name!r}, {nearest(name, columns)}")


def read_columns(path: Path, number: int) -> Iterator[tuple[str, list[str]]]:
    r"""Reads a file whose cells are separated by spaces, as the files of CUB-200-2011 are.

    Args:
        path: The file.
        number: Number of cells in a line. The last cell takes the rest of the line, spaces included.

    Yields:
        For each line its name, such as "row 1 of images.txt", and its cells.

    Raises:
        PriorError: If the file is missing or a line has fewer cells.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "parts.txt"
    >>> _ = path.write_text("1 left eye\n2 beak\n")
    >>> list(read_columns(path, 2))
    [('row 1 of parts.txt', ['1', 'left eye']), ('row 2 of parts.txt', ['2', 'beak'])]
    """
    for count, line in enumerate(read_text(path).split("\n"), 1):
        cells = line.split(maxsplit=number - 1)
        if not cells:
            continue
        row = f"row {count} of {path.name}"
        if len(cells) < number:
            raise PriorError(f"{row} has {len(cells)} of {number} cells: {line.strip()!r} ({path})")
        yield row, [*cells[:-1], cells[-1].strip()]


def read_text(path: Path) -> str:
    """Reads a text file.

    Args:
        path: The file, in UTF-8, with or without a byte order mark.

    Raises:
        PriorError: If the file is missing, cannot be read, or is no text.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "names.txt"
    >>> _ = path.write_text("kakapo")
    >>> read_text(path)
    'kakapo'
    """
    try:
        return existing_file(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PriorError(f"{path} is not a text file in UTF-8: byte {error.start + 1} fits no character") from error
    except OSError as error:
        raise PriorError(f"cannot read {path}: {error.strerror}") from error


def parse_json(text: str, what: str) -> Any:
    """Reads JSON.

    Args:
        text: The text.
        what: What it is the content of, such as "row 2 of birds.jsonl"; for the message.

    Returns:
        Its value.

    Raises:
        PriorError: If it is no JSON, or nested deeper or of longer numbers than Python reads.

    >>> parse_json("[1, 2", "birds.json")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: birds.json is no JSON: Expecting ',' delimiter at character 6
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise PriorError(f"{what} is no JSON: {error.msg} at character {error.pos + 1}") from error
    except ValueError as error:
        raise PriorError(f"{what} has a number of thousands of digits") from error
    except RecursionError as error:
        raise PriorError(f"{what} is nested too deeply") from error


def number_in(cell: str, column: str, row: str) -> float:
    """Converts the text of a cell to a finite number.

    Args:
        cell: The text.
        column: The column of the cell, for the message.
        row: The row of the cell, for the message.

    Raises:
        PriorError: If the text is no finite number.

    >>> number_in("3.5", "x0", "row 2 of birds.csv")
    3.5
    """
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise PriorError(f"{column} in {row} is {cell!r}, not a number")
    return number


def look_up(known: Mapping[str, Known], name: str, what: str, row: str) -> Known:
    """Looks up what belongs to a name.

    Args:
        known: The possible names, and what belongs to each.
        name: The name to look up.
        what: What the names stand for, such as "class"; for the message.
        row: Where the name stands, for the message.

    Raises:
        PriorError: If the name is not known; names the nearest one.

    >>> look_up({"cat": 0, "dog": 1}, "dgo", "class", "row 3 of pets.csv")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: no class 'dgo' (row 3 of pets.csv), did you mean 'dog'?
    """
    if name not in known:
        raise PriorError(f"no {what} {name!r} ({row}), {nearest(name, known)}")
    return known[name]


def existing_file(path: Path) -> Path:
    """Checks that a file exists, and returns its path.

    Raises:
        PriorError: If it does not exist; names the nearest file or folder that does.

    >>> existing_file(Path("/nowhere/at/all.csv"))
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: no file /nowhere/at/all.csv: / has no 'nowhere', choose from ...
    """
    if not _is_file(path):
        raise PriorError(f"no file {path}{hint_beside(path)}")
    return path


def existing_folder(path: Path) -> Path:
    """Checks that a folder exists, and returns its path.

    Raises:
        PriorError: If it does not exist; names the nearest file or folder that does.

    >>> existing_folder(Path("/")) == Path("/")
    True
    """
    if not path.is_dir():
        raise PriorError(f"no folder {path}{hint_beside(path)}")
    return path


def hint_beside(path: Path) -> str:
    """Writes the end of an error line about a missing path: how far the path exists, and what is there.

    Args:
        path: A path that does not exist.

    >>> hint_beside(Path("/nowhere/at/all.csv")).startswith(": / has no 'nowhere', ")
    True
    """
    missing = Path(os.path.abspath(path))  # which also resolves ".."
    while not missing.parent.is_dir():
        missing = missing.parent
    beside = islice((entry.name for entry in missing.parent.iterdir()), COMPARED_NAMES)
    hint = nearest(missing.name, sorted(beside))
    return f": {missing.parent} has no {missing.name!r}, {hint}" if hint else f": {missing.parent} is empty"


def named_once(names: Iterable[str], what: str) -> dict[str, int]:
    """Numbers names in their order and checks that each occurs once.

    Args:
        names: The names.
        what: What they stand for, such as "class"; for the message.

    Returns:
        The position of each name, from 0.

    Raises:
        PriorError: If a name occurs twice.

    >>> named_once(["cat", "dog"], "class")
    {'cat': 0, 'dog': 1}
    """
    positions: dict[str, int] = {}
    for position, name in enumerate(names):
        if name in positions:
            raise PriorError(f"the {what} {name!r} occurs twice")
        positions[name] = position
    return positions


def sorted_names(names: Iterable[str]) -> list[str]:
    """Brings names into the order of their labels: numbers in their order, other names alphabetically.

    Args:
        names: The names.

    >>> sorted_names(["10", "9"]), sorted_names(["10", "9", "b"])
    (['9', '10'], ['10', '9', 'b'])
    """
    names = list(names)
    try:
        return sorted(names, key=int)
    except ValueError:
        return sorted(names)


def _pixels(
    path: Path, mode: str, row: str, change: Callable[[Image.Image], Image.Image] = lambda picture: picture
) -> Tensor:
    """Reads the pixels of a picture: (H, W) uint8 for the mode "L", (H, W, 3) for "RGB"."""
    named = f" ({row})" if row else ""
    try:
        if not _is_file(path) and path.exists():  # a pipe would never end
            raise UnreadableImageError(f"cannot read {path} ({row}): it is no file")
        with Image.open(path) as picture:
            return torch.from_numpy(np.array(change(_eight_bits(picture)).convert(mode)))
    except UnreadableImageError:
        raise
    except FileNotFoundError as error:
        raise UnreadableImageError(f"no file {path}{named}{hint_beside(path)}") from error
    # Pillow's decoders raise all of these for broken files
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = str(error).replace(f" {str(path)!r}", "").replace(f": {str(path)!r}", "").replace("\n", " ")
        raise UnreadableImageError(f"cannot read {path}{named}: {reason}") from error


def _is_file(path: Path) -> bool:
    """Says whether a path is a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


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
    lowest, highest = int(grey.min()), int(grey.max())
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
