"""Recognises the layout of a folder of annotated pictures, so that a message can name the source that reads it."""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from lightning_priors.errors import PriorError

BEGINNING = 20_000  # characters in which a file shows its kind
LOOKED_AT = 20  # files of a pattern
COCO_KEYS = ("images", "annotations", "categories", "licenses")


class Layout(NamedTuple):
    """How one format is recognised, and what reads it."""

    name: str
    cure: str
    """The name of the source; a sentence for a format that no source reads."""
    patterns: Sequence[str]
    fits: Callable[[Path], bool] = lambda path: True


def json_kind(path: Path) -> str:
    r"""Tells by its beginning what a JSON file holds.

    Args:
        path: The file.

    Returns:
        "coco", "label_studio", "labelme", "via" or "" for anything else.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.json"
    >>> _ = path.write_text('{"images": [], "annotations": []}')
    >>> json_kind(path)
    'coco'
    """
    text = _beginning(path).lstrip()
    if text.startswith("[") and any(key in text for key in ('"annotations"', '"completions"', '"annotation_id"')):
        return "label_studio"
    if '"shapes"' in text:
        return "labelme"
    if '"_via_' in text or ('"regions"' in text and '"filename"' in text):
        return "via"
    if text.startswith("{") and any(f'"{key}"' in text for key in COCO_KEYS):
        return "coco"
    return ""


def xml_kind(path: Path) -> str:
    r"""Tells by its beginning what an XML file holds.

    Args:
        path: The file.

    Returns:
        "cvat", "voc" or "" for anything else.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.xml"
    >>> _ = path.write_text("<annotation><object/></annotation>")
    >>> xml_kind(path)
    'voc'
    """
    text = _beginning(path)
    return "cvat" if "<annotations" in text else "voc" if "<annotation>" in text or "<annotation " in text else ""


def recognised(root: Path) -> tuple[Layout, Path] | None:
    """Finds out which format a folder has.

    Args:
        root: The folder.

    Returns:
        The layout and the file that shows it, or None.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> _ = (root / "data.yaml").write_text("names: [kakapo, kea]")
    >>> layout, path = recognised(root)
    >>> layout.name, layout.cure, path.name
    ('YOLO labels', 'Yolo', 'data.yaml')
    """
    for layout in LAYOUTS:
        for pattern in layout.patterns:
            for path in islice((path for path in root.glob(pattern) if path.is_file()), LOOKED_AT):
                if layout.fits(path):
                    return layout, path
    return None


def name_the_right_source(root: Path, asked: str) -> None:
    """Raises an error that names what reads a folder, if the folder's format is known and another one's.

    Args:
        root: The folder.
        asked: The name of the source that cannot read it.

    Raises:
        PriorError: If the folder has a format that another source reads, or that none reads.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> _ = (root / "birds.tfrecord").write_text("")
    >>> name_the_right_source(root, "Coco")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: ... has TFRecord files (birds.tfrecord), which are not read: export ... as COCO
    """
    if not root.is_dir() or (found := recognised(root)) is None or found[0].cure == asked:
        return
    layout, path = found
    named = f"{root} has {layout.name} ({path.relative_to(root)})"
    if " " in layout.cure:
        raise PriorError(f"{named}, which are not read: {layout.cure}")
    raise PriorError(f"{named}: the source {layout.cure} reads them, {asked} does not")


def _beginning(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(BEGINNING)


def _says(text: str) -> Callable[[Path], bool]:
    return lambda path: text in _beginning(path)


def _is_json(kind: str) -> Callable[[Path], bool]:
    return lambda path: json_kind(path) == kind


GLOBOX = "pip install globox; globox convert {} coco.json -f {} -F coco -A; then the source Coco"
VERSION = "export the same annotations as COCO"

LAYOUTS = (
    Layout("COCO annotations", "Coco", ("_annotations.coco.json", "*/_annotations.coco.json")),
    Layout("YOLO labels", "Yolo", ("data.yaml", "*.yaml", "*.yml"), _says("names")),
    Layout("YOLO labels", "Yolo", ("classes.txt",), lambda path: (path.parent / "labels").is_dir()),
    Layout("CVAT annotations", "Cvat", ("annotations.xml", "*.xml"), lambda path: xml_kind(path) == "cvat"),
    Layout(
        "Pascal VOC annotations",
        GLOBOX.format("Annotations", "pascalvoc"),
        ("Annotations/*.xml", "annotations/*.xml", "*.xml", "*/*.xml"),
        lambda path: xml_kind(path) == "voc",
    ),
    Layout("CreateML annotations", VERSION, ("_annotations.createml.json", "*/_annotations.createml.json")),
    Layout("Label Studio tasks", "LabelStudio", ("*.json",), _is_json("label_studio")),
    Layout("LabelMe annotations", "LabelMe", ("*.json", "*/*.json"), _is_json("labelme")),
    Layout("VIA annotations", GLOBOX.format("via.json", "via-json"), ("*.json", "*/*.json"), _is_json("via")),
    Layout("COCO annotations", "Coco", ("*.json", "annotations/*.json", "*/labels.json"), _is_json("coco")),
    Layout("a table of Waterbirds", "Waterbirds", ("metadata.csv",), _says("img_filename")),
    Layout(
        "metadata of a Hugging Face image folder",
        "HuggingFaceFolder",
        ("metadata.jsonl", "metadata.csv", "*/metadata.jsonl", "*/metadata.csv"),
        _says("file_name"),
    ),
    Layout("a table", "Table", ("table.csv",)),
    Layout(
        "Parquet files",
        "save the pictures as files and their columns as metadata.jsonl, then the source HuggingFaceFolder",
        ("*.parquet", "*/*.parquet"),
    ),
    Layout("TFRecord files", VERSION, ("*.tfrecord*", "*/*.tfrecord*")),
    Layout("CSV files with a row for each box", VERSION, ("_annotations.csv", "*/_annotations.csv")),
    Layout("DICOM files", "save the pictures as PNG, then the source Table or Coco", ("*.dcm", "*/*.dcm")),
    Layout(
        "pictures in folders by class",
        "ImageFolderSource",
        ("train/*/*.jpg", "train/*/*.jpeg", "train/*/*.png", "train/*/*.JPG"),
        lambda path: path.parent.name not in ("images", "labels", "data"),
    ),
)
"""The formats in the order in which they are looked for: those that one file shows beyond doubt come first."""
