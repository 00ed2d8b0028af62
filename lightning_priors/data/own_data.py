"""Looks at a user's own data and says which source reads it, with which options."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_priors.data import sources
from lightning_priors.data.sources import Annotated
from lightning_priors.data.sources.layouts import json_kind, name_the_right_source, recognised
from lightning_priors.data.sources.pictures import SUFFIXES
from lightning_priors.data.sources.reading import read_table
from lightning_priors.data.splits import stratified_holdout
from lightning_priors.errors import PriorError

COLUMNS: Mapping[str, Sequence[str]] = {
    "path": ("path", "file", "file_name", "filename", "image", "picture"),
    "label": ("label", "class", "category", "target"),
    "split": ("split", "subset", "set"),
    "mask": ("mask", "mask_path", "mask_file", "segmentation"),
    "group": ("group",),
}
"""The options of `Table` that name a column, and what such a column may be called."""

TEST_SHARE = 0.2
"""Share of the pictures that are kept for the test, where nothing says which those are."""


@dataclass(frozen=True)
class OwnData:
    """Which source reads the data."""

    source: str
    """The name of its class."""
    options: Mapping[str, Any]
    table: Sequence[Sequence[str]] = field(default=())
    """The rows of a table that has to be written first, with its header: the path is relative to the data."""
    notes: Sequence[str] = ()
    """What was decided, a sentence each."""


def recognise(path: Path) -> OwnData:
    r"""Finds out what a user's data is.

    Args:
        path: A folder with a folder for each split and class, or for each class; a table (``.csv``), or a folder with
            one; the folder of an annotation tool's export, or a COCO file (``.json``).

    Returns:
        The source that reads it, with paths that hold from everywhere.

    Raises:
        PriorError: If there is no such file or folder, or it is nothing of this.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()).resolve()
    >>> _ = (folder / "birds.csv").write_text("file,class,species\na.png,other,kea\nb.png,kakapo,kakapo\n")
    >>> found = recognise(folder)
    >>> found.source, {name: value for name, value in found.options.items() if name != "root"}
    ('Table', {'table': 'birds.csv', 'path': 'file', 'label': 'class'})
    """
    if not path.exists():
        raise PriorError(f"there is no file or folder {path}; give your data with --data PATH")
    path = path.resolve()
    if path.is_dir():
        found = _annotated(path) or _split_folders(path) or _first_table(path) or _class_folders(path)
    else:
        found = _table(path) if path.suffix == ".csv" else _coco_file(path)
    if found is None:
        raise PriorError(
            f"{path} is neither a folder of class folders, nor a table (CSV) with a column for the file and one for "
            "the class, nor the export of an annotation tool"
        )
    return found


def _annotated(root: Path) -> OwnData | None:
    """The export of an annotation tool, or another layout that a source reads as it is."""
    layout = recognised(root)
    if layout is None or layout[0].cure in ("Table", "ImageFolderSource"):
        return None
    if " " in layout[0].cure:  # a format that no source reads: what does is said
        name_the_right_source(root, "")
    options, notes = {"root": str(root)}, []
    if issubclass(getattr(sources, layout[0].cure), Annotated):
        options["on_several_classes"] = "largest"
        notes = ["A picture with several classes has that of its largest target: see classes and parts."]
    return OwnData(layout[0].cure, options, notes=notes)


def _split_folders(root: Path) -> OwnData | None:
    """A folder that `ImageFolderSource` reads as it is."""
    return OwnData("ImageFolderSource", {"root": str(root)}) if _pictures(root / "train") else None


def _class_folders(root: Path) -> OwnData | None:
    """A folder for each class and none for splits: a table says which pictures are for the test."""
    pictures = _pictures(root)
    if len({name for name, _ in pictures}) < 2:
        return None
    names = sorted({name for name, _ in pictures})
    labels = {number: names.index(name) for number, (name, _) in enumerate(pictures)}
    held_out = set(stratified_holdout(labels, TEST_SHARE, seed=0)[1])
    rows = [
        (file.relative_to(root).as_posix(), name, "test" if number in held_out else "train")
        for number, (name, file) in enumerate(pictures)
    ]
    note = f"{TEST_SHARE:.0%} of each class were drawn for the test: the column split of table.csv says which."
    return OwnData("Table", {"root": str(root)}, [("path", "label", "split"), *rows], [note])


def _pictures(folder: Path) -> list[tuple[str, Path]]:
    """The pictures in the folders of a folder, each with the name of its folder."""
    return [
        (file.relative_to(folder).parts[0], file)
        for file in sorted(folder.glob("*/**/*"))
        if file.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]


def _first_table(root: Path) -> OwnData | None:
    tables = sorted(root.glob("*.csv"))
    return next((found for table in tables if (found := _table(table)) is not None), None)


def _table(path: Path) -> OwnData | None:
    """A table, with the columns whose names are known; finer labels are those that divide the classes."""
    rows = [cells for _, cells in read_table(path)]
    columns = list(rows[0]) if rows else []
    named = {option: next((name for name in names if name in columns), "") for option, names in COLUMNS.items()}
    if not named["path"] or not named["label"]:
        return None
    options: dict[str, Any] = {"root": str(path.parent), "table": path.name}
    options |= {option: column for option, column in named.items() if column and column != option}
    others = [name for name in columns if name not in named.values()]
    finer = [name for name in others if _is_finer(rows, name, named["label"])]
    notes = [] if named["split"] else ["No column split: every picture is for training, and there is no test."]
    return OwnData("Table", options | ({"aux": finer} if finer else {}), notes=notes)


def _is_finer(rows: Sequence[Mapping[str, str]], column: str, label: str) -> bool:
    """Whether a column of names divides the classes: each of its values occurs in one class, and several times."""
    values = {row[column]: row[label] for row in rows if row[column]}
    pairs = {(row[column], row[label]) for row in rows if row[column]}
    repeated = len(values) <= len(rows) / 2
    words = not all(value.replace(".", "", 1).lstrip("-").isdigit() for value in values)
    return repeated and words and len(pairs) == len(values) > len(set(values.values())) > 0


def _coco_file(file: Path) -> OwnData | None:
    if file.suffix != ".json" or json_kind(file) != "coco":
        return None
    return OwnData("Coco", {"root": str(file.parent), "annotations": file.name})
