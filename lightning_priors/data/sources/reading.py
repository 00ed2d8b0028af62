"""Readers of data set files; their errors name the file and the row."""

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
"""How a mask's grey levels become values in [0, 1]: no masks at all, level / 255, or 1 from the level 128 on."""

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
        PriorError: If the mask has another size than the picture, or the levels 0 and 1 instead of 0 and 255.

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
    if grey.max() == 1:  # divided by 255 it would hardly differ from an empty mask
        raise PriorError(f"the mask {path} ({row}) has the levels 0 and 1; the target's is 255")
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
    if not path.is_file():
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


def _pixels(path: Path, mode: str, row: str) -> Tensor:
    """Reads the pixels of a picture: (H, W) uint8 for the mode "L", (H, W, 3) for "RGB"."""
    named = f" ({row})" if row else ""
    try:
        with Image.open(path) as picture:
            return torch.from_numpy(np.array(picture.convert(mode)))
    except FileNotFoundError as error:
        raise UnreadableImageError(f"no file {path}{named}{hint_beside(path)}") from error
    # Pillow's decoders raise all of these for broken files
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = str(error).replace(f" {str(path)!r}", "").replace("\n", " ")
        raise UnreadableImageError(f"cannot read {path}{named}: {reason}") from error
