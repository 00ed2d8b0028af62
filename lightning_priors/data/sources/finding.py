"""Finds the files of annotations and the pictures that they name."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from lightning_priors.data.sources.annotation_table import SPLIT_NAMES
from lightning_priors.data.sources.base import Split
from lightning_priors.data.sources.layouts import name_the_right_source
from lightning_priors.data.sources.paths import existing_file, stays_inside
from lightning_priors.data.sources.reading import look_up
from lightning_priors.errors import PriorError

UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded file."""
NAMED_FILES = 3  # that are read; more are not listed


def annotation_files(
    root: Path,
    given: str | Mapping[str, str] | None,
    patterns: Iterable[Sequence[str]],
    is_one: Callable[[Path], bool],
    source: str,
) -> list[tuple[Path, Split | None]]:
    """Finds the files with the annotations, and the split of each.

    Args:
        root: The folder.
        given: The file, or one for each split, relative to the root; None to find them.
        patterns: Groups of patterns below the root; the first group that finds files counts.
        is_one: Whether a found file is of the format.
        source: The name of the source that reads them, for the message.

    Returns:
        The files. The split of a found one is told by a word such as "train" in its name or its folder.

    Raises:
        PriorError: If there are none; names the source that reads the folder, if there is one.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> _ = (root / "birds_train.json").write_text("")
    >>> [(path.name, split) for path, split in annotation_files(root, None, [["*.json"]], lambda path: True, "Coco")]
    [('birds_train.json', 'train')]
    """
    if isinstance(given, Mapping):
        splits = {name: look_up(SPLIT_NAMES, name, "split", "annotations") for name in given}
        return [(existing_file(root / file), splits[name]) for name, file in given.items()]
    if given is not None:
        return [(existing_file(root / given), None)]
    for group in patterns:
        paths = [path for pattern in group for path in sorted(root.glob(pattern)) if path.is_file()]
        if found := [path for path in paths if is_one(path)]:
            shown = ", ".join(str(path.relative_to(root)) for path in found[:NAMED_FILES])
            more = f" and {len(found) - NAMED_FILES} more" if len(found) > NAMED_FILES else ""
            rank_zero_info(f"annotations of {root}: {shown}{more}")
            return [(path, split_in(path.relative_to(root))) for path in found]
    name_the_right_source(root, source)
    raise PriorError(f"{root} has no annotations that {source} reads; name the file: annotations")


def picture_file(name: str, root: Path, images: str | None, folders: Iterable[Path]) -> str:
    """Finds the file of a picture.

    Args:
        name: What the annotations call it: a file, perhaps in folders, or an address.
        root: The folder of the data.
        images: The folder of the pictures below the root, instead of `folders`.
        folders: Where it may be.

    Returns:
        The file, relative to the root; none outside of both the root and these folders. If there is none, the place
        where it should be.

    >>> picture_file("images/3f2504e0-a.jpg", Path("birds"), None, [Path("birds")])
    'images/3f2504e0-a.jpg'
    """
    name = name.replace("\\", "/")
    short = name.rpartition("/")[2]
    places = list(folders) if images is None else [root / images]
    for candidate in dict.fromkeys((name, short, UPLOAD_PREFIX.sub("", short))):
        for folder in places:
            file = folder / candidate
            if file.is_file() and any(stays_inside(os.path.abspath(file), top) for top in (root, folder)):
                return relative(file, root)
    place = next((folder for folder in places if folder.is_dir()), places[0])
    return relative(place / (short if "://" in name else name), root)


def split_in(path: Path) -> Split | None:
    """Finds the split that a path names.

    Args:
        path: A file, relative to the root.

    Returns:
        The split, or None.

    >>> split_in(Path("annotations/instances_val2017.json")), split_in(Path("result.json"))
    ('val', None)
    """
    for part in (path.stem, *reversed(path.parts[:-1])):
        for word in re.split("[^a-z]+", part.lower()):
            if word in SPLIT_NAMES:
                return SPLIT_NAMES[word]
    return None


def relative(path: Path, root: Path) -> str:
    """Writes a path relative to a folder.

    >>> relative(Path("a/../b/c.png"), Path("b"))
    'c.png'
    """
    return os.path.relpath(path, root)
