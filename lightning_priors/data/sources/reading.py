"""Files of data sets, read with errors that name the file and the row; used by the sources that have files."""

import csv
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from lightning_priors.data.sources.base import UnreadableImageError
from lightning_priors.errors import PriorError, nearest

Known = TypeVar("Known")
MaskKind = Literal["none", "soft", "hard"]
"""How masks are read: not at all, with their grey levels as a share, or as 1 from the level 128."""

HARD_LEVEL = 128  # of 255: at least half of the annotators of CUB-200-2011 saw bird there
COMPARED_NAMES = 5000  # in a folder with more files, comparing all of them with a missing one takes seconds
OUTSIDE_PIXELS, OUTSIDE_SHARE = 1.0, 0.05  # how far a box may reach outside the picture, for rounding


def read_image(path: Path, row: str) -> tv_tensors.Image:
    """Reads a picture as its pixels are stored: annotations refer to these, whatever a camera's orientation mark says.

    Args:
        path: A file in any format that Pillow reads.
        row: Where the file is named, such as "row 7 of metadata.csv".

    Returns:
        (3, H, W) uint8; grey pictures have three equal channels, transparency is dropped.

    Raises:
        UnreadableImageError: If the file is missing or broken.
    """
    return tv_tensors.Image(_pixels(path, "RGB", row).permute(2, 0, 1))


def read_mask(path: Path, row: str, image: Tensor, kind: MaskKind) -> tv_tensors.Image:
    """Reads the mask of a picture.

    Args:
        path: A grey picture, 255 = target.
        row: Where the file is named.
        image: (3, H, W), the picture it belongs to.
        kind: "soft" or "hard".

    Returns:
        (1, H, W) float32 in [0, 1].

    Raises:
        UnreadableImageError: If the file is missing or broken.
        PriorError: If it has another size than the picture, or 1 where 255 is meant.
    """
    grey = _pixels(path, "L", row)
    if grey.shape != image.shape[1:]:
        (height, width), (image_height, image_width) = grey.shape, image.shape[1:]
        raise PriorError(f"the mask {path} ({row}) is {width} x {height}, its image {image_width} x {image_height}")
    if grey.max() == 1:  # would be taken for a target that nobody can see
        raise PriorError(f"the mask {path} ({row}) has the levels 0 and 1; the target's is 255")
    share = grey / 255 if kind == "soft" else (grey >= HARD_LEVEL).float()
    return tv_tensors.Image(share[None])


def empty_mask(image: Tensor) -> tv_tensors.Image:
    """The mask (1, H, W) of a picture (3, H, W) that has none."""
    return tv_tensors.Image(torch.zeros(1, *image.shape[1:]))


def checked_boxes(
    boxes: Sequence[Sequence[float] | None], image: Tensor, names: Sequence[str], row: str
) -> tuple[tv_tensors.BoundingBoxes, Tensor]:
    """The part boxes of a picture, clipped where rounding put them a little outside.

    Args:
        boxes: For each part x0, y0, x1, y1 in pixels, or None where it is not annotated.
        image: (3, H, W), the picture.
        names: The names of the parts, for the message.
        row: Where the boxes stand.

    Returns:
        The boxes (K, 4), zero where not annotated, and which are (K,).

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


def read_table(path: Path, wanted: Iterable[str] = ()) -> Iterator[tuple[str, dict[str, str]]]:
    """Reads a CSV file with a header.

    Args:
        path: The file, in UTF-8.
        wanted: Columns that it must have.

    Yields:
        For each row its name, such as "row 2 of metadata.csv", and its cells by column. The header is row 1, so
        that the number is the line of an editor and the row of a spreadsheet.

    Raises:
        PriorError: If the file is missing, is no text or lacks a column, or a row has more or fewer cells than the
            header.
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
    """Checks that a table has some columns.

    Args:
        columns: Those that it has.
        wanted: Those that it must have.
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
    """Reads a file of cells with spaces between them, as those of CUB-200-2011.

    Args:
        path: The file.
        number: How many cells are wanted. What follows is a part of the last one, as its name may contain spaces.

    Yields:
        For each line its name, such as "row 1 of images.txt", and its cells.

    Raises:
        PriorError: If the file is missing or a line has fewer cells.
    """
    existing_file(path)
    with path.open(encoding="utf-8") as lines:
        for count, line in enumerate(lines, 1):
            cells = line.split(maxsplit=number - 1)
            if not cells:
                continue
            row = f"row {count} of {path.name}"
            if len(cells) < number:
                raise PriorError(f"{row} has {len(cells)} of {number} cells: {line.strip()!r} ({path})")
            yield row, [*cells[:-1], cells[-1].strip()]


def number_in(cell: str, column: str, row: str) -> float:
    """A cell as a finite number.

    Args:
        cell: Its text.
        column: Its column, for the message.
        row: Its row, for the message.

    Raises:
        PriorError: If it is none.

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
    """What belongs to a name in a file.

    Args:
        known: The right names, and what belongs to each.
        name: Which is looked for.
        what: What the names are, for the message.
        row: Where the name stands.

    Raises:
        PriorError: If there is no such name.

    >>> look_up({"cat": 0, "dog": 1}, "dgo", "class", "row 3 of pets.csv")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: no class 'dgo' (row 3 of pets.csv), did you mean 'dog'?
    """
    if name not in known:
        raise PriorError(f"no {what} {name!r} ({row}), {nearest(name, known)}")
    return known[name]


def existing_file(path: Path) -> Path:
    """The path of a file that is there.

    Raises:
        PriorError: If it is not; names the nearest file or folder that is.
    """
    if not path.is_file():
        raise PriorError(f"no file {path}{hint_beside(path)}")
    return path


def existing_folder(path: Path) -> Path:
    """The path of a folder that is there.

    Raises:
        PriorError: If it is not; names the nearest file or folder that is.
    """
    if not path.is_dir():
        raise PriorError(f"no folder {path}{hint_beside(path)}")
    return path


def hint_beside(path: Path) -> str:
    """The end of an error line about a missing path: how far the path exists, and what is there.

    Args:
        path: A path that does not exist.

    >>> hint_beside(Path("/nowhere/at/all.csv")).startswith(": / has no 'nowhere', ")
    True
    """
    missing = Path(os.path.abspath(path))  # also without ".."
    while not missing.parent.is_dir():
        missing = missing.parent
    beside = islice((entry.name for entry in missing.parent.iterdir()), COMPARED_NAMES)
    hint = nearest(missing.name, sorted(beside))
    return f": {missing.parent} has no {missing.name!r}, {hint}" if hint else f": {missing.parent} is empty"


def named_once(names: Iterable[str], what: str) -> dict[str, int]:
    """The position of each name.

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


def _pixels(path: Path, mode: str, row: str) -> Tensor:
    """The pixels (H, W) or (H, W, 3) of a picture as uint8."""
    try:
        with Image.open(path) as picture:
            return torch.from_numpy(np.array(picture.convert(mode)))
    except FileNotFoundError as error:
        raise UnreadableImageError(f"no file {path} ({row}){hint_beside(path)}") from error
    # what Pillow's decoders raise at broken files
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = str(error).replace(f" {str(path)!r}", "").replace("\n", " ")
        raise UnreadableImageError(f"cannot read {path} ({row}): {reason}") from error
