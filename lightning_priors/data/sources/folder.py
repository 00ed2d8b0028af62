"""Your own pictures in folders, one for each split and class, and their masks in folders of the same names."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from lightning_priors.data.sources.base import RawSample, Source, Split
from lightning_priors.data.sources.layouts import name_the_right_source
from lightning_priors.data.sources.paths import existing_folder
from lightning_priors.data.sources.pictures import (
    SUFFIXES,
    MaskKind,
    empty_mask,
    read_annotated_image,
    read_image,
    read_mask,
)
from lightning_priors.data.sources.reading import look_up
from lightning_priors.errors import PriorError, nearest

SPLITS: tuple[Split, ...] = ("train", "val", "test")
MASKS = "masks"
NAMED_FILES = 3  # that are not used; more are only counted


@dataclass(frozen=True)
class PictureFile:
    """One picture."""

    path: Path
    """Relative to the root."""
    split: Split
    label: int
    mask: Path | None


class ImageFolderSource(Source):
    """Reads pictures from ``ROOT/<split>/<class>/<picture>`` and masks from ``ROOT/masks/<split>/<class>/<picture>``.

    The splits are train, val and test; without val the data module sets training images aside. The classes are the
    folders in train, in alphabetical order. A mask has the name of its picture, with any suffix, and the same size;
    some pictures may have no mask. Files and folders that are not used are named once.

    Args:
        root: The folder with the splits.
        masks: How masks are read where there is a folder ``masks``: "soft" divides grey levels by 255, "hard" gives 1
            from the level 128 on, "none" reads no masks.

    Raises:
        PriorError: In `setup` and `classes`, if a folder is missing, misspelt or empty.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("train/cat/a.png", "train/dog/b.png", "test/dog/c.png"):
        ...     (root / name).parent.mkdir(parents=True)
        ...     Image.new("RGB", (8, 8)).save(root / name)
        >>> source = ImageFolderSource(str(root))
        >>> source.classes, source.indices("test"), source.label(2)
        (['cat', 'dog'], [2], 1)
    """

    def __init__(self, root: str, masks: MaskKind = "soft") -> None:
        self.root = Path(root)
        self.masks = masks

    @property
    def classes(self) -> list[str]:
        """The names of the folders in train."""
        return list(self._labels)

    @property
    def file_folder(self) -> Path | None:
        """The folder that the names of `file` are relative to."""
        return self.root

    def setup(self) -> None:
        """Lists the files.

        Raises:
            PriorError: If a folder is missing, misspelt or empty, or a mask has no picture.
        """
        _ = self._files

    def indices(self, split: Split) -> list[int]:
        """Returns the pictures of a split in alphabetical order."""
        return [index for index, file in enumerate(self._files) if file.split == split]

    def label(self, index: int) -> int:
        """Returns the class, which is the folder of the picture."""
        return self._files[index].label

    def file(self, index: int) -> str:
        """Returns the file of a picture, relative to the root."""
        return str(self._files[index].path)

    def load(self, index: int) -> RawSample:
        """Reads a picture and its mask."""
        file = self._files[index]
        path, row = self.root / file.path, f"the {file.split} split"
        # masks belong to the pixels as they are stored; without masks a photograph is best seen upright
        image = read_annotated_image(path, row, None) if self._masks is None else read_image(path, row)
        sample = RawSample(image=image, label=file.label)
        if self._masks is not None:
            sample["mask"] = empty_mask(image)
            if file.mask is not None:
                sample["mask"] = read_mask(file.mask, row, image, self.masks)
            sample["mask_valid"] = file.mask is not None
        return sample

    @cached_property
    def _labels(self) -> dict[str, int]:
        train = existing_folder(self.root) / "train"
        if not train.is_dir() or not _folders(train):
            name_the_right_source(self.root, "ImageFolderSource")
        existing_folder(train)
        return {name: number for number, name in enumerate(_folders(train))}

    @cached_property
    def _masks(self) -> dict[Path, Path] | None:
        """The masks by split, class and name without suffix; None without masks."""
        folder = self.root / MASKS
        if self.masks == "none" or not folder.is_dir():
            return None
        return _by_name((path for path in sorted(folder.rglob("*")) if _is_picture(path)), folder)

    @cached_property
    def _files(self) -> list[PictureFile]:
        self._check_folders()
        splits = [split for split in SPLITS if (self.root / split).is_dir()]
        files = [file for split in splits for file in self._files_of(split)]
        if self._masks:
            pictures = _by_name((file.path for file in files), Path())
            unused = [mask for name, mask in self._masks.items() if name not in pictures]
            if unused:
                raise PriorError(f"the mask {unused[0]} has no picture ({len(unused)} masks have none)")
        self._say_what_is_not_used(splits, {file.path for file in files})
        return files

    def _files_of(self, split: Split) -> list[PictureFile]:
        files = []
        for name in _folders(self.root / split):
            label = look_up(self._labels, name, "class folder in train", f"{self.root / split / name}")
            paths = sorted(
                path.relative_to(self.root) for path in (self.root / split / name).rglob("*") if _is_picture(path)
            )
            if not paths:
                name_the_right_source(self.root, "ImageFolderSource")
                raise PriorError(f"the class folder {self.root / split / name} has no pictures")
            masks = self._masks or {}
            files += [PictureFile(path, split, label, masks.get(path.with_suffix(""))) for path in paths]
        return files

    def _say_what_is_not_used(self, splits: list[Split], pictures: set[Path]) -> None:
        """Names the folders that are no splits and the files in splits that are no pictures of a class."""
        below = (path for split in splits for path in sorted((self.root / split).rglob("*")))
        files = (path.relative_to(self.root) for path in below if path.is_file())
        seen = (path for path in files if not any(part.startswith(".") for part in path.parts))
        unused = [f"{name}/" for name in _folders(self.root) if name not in (*SPLITS, MASKS)]
        unused += [str(path) for path in seen if path not in pictures]
        if unused:
            more = f" and {len(unused) - NAMED_FILES} more" if len(unused) > NAMED_FILES else ""
            rank_zero_info(f"not used of {self.root}: {', '.join(unused[:NAMED_FILES])}{more}")

    def _check_folders(self) -> None:
        """Checks that train has classes and that no split is misspelt."""
        if not self._labels:
            raise PriorError(f"{self.root / 'train'} has no class folders")
        for name in _folders(self.root):
            hint = nearest(name, (*SPLITS, MASKS))
            if name not in (*SPLITS, MASKS) and hint.startswith("did"):
                raise PriorError(f"{self.root / name} is no split, {hint}")


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _by_name(paths: Iterable[Path], folder: Path) -> dict[Path, Path]:
    """Returns files by their path below a folder without suffix, which a picture and its mask share."""
    known: dict[Path, Path] = {}
    for path in paths:
        name = path.relative_to(folder).with_suffix("")
        if name in known:
            raise PriorError(f"{known[name]} and {path} have one name, so that it is unclear which mask is whose")
        known[name] = path
    return known


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
