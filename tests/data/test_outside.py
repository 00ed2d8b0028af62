"""A table of somebody else's leads to no picture outside of its folder, unless the user says so."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import annotation_files as tools
import pytest
import torch

from lightning_priors.data.sources import CUB200, Coco, Cvat, LabelMe, LabelStudio, Source, Table, Waterbirds, Yolo
from lightning_priors.data.sources.paths import stays_inside
from lightning_priors.data.sources.pictures import read_image
from lightning_priors.errors import PriorError


def used(source: Source) -> None:
    source.setup()
    for split in ("train", "val", "test"):
        for index in source.indices(split):
            source.load(index)


def in_table(root: Path, column: str, name: str) -> None:
    with (root / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0][column] = name
    with (root / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def private(table: Path, tmp_path: Path) -> Path:
    """A picture that is not part of the data, of the size of those that are."""
    with (table / "table.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    folder = tmp_path / "private"
    folder.mkdir()
    shutil.copy(table / first["path"], folder / "secret.png")
    return folder / "secret.png"


@pytest.mark.parametrize("column", ["path", "mask"])
@pytest.mark.parametrize("how", ["full", "relative", "through the root"])
def test_a_table_needs_the_option(column, how, table, private):
    name = {
        "full": str(private),
        "relative": "../private/secret.png",
        "through the root": "images/../../private/secret.png",
    }[how]
    in_table(table, column, name)
    with pytest.raises(PriorError) as raised:
        used(Table(str(table)))
    assert (
        str(raised.value) == f"{name} (row 2 of table.csv) leads out of {table}; if that is right, set anywhere: true"
    )


def test_with_the_option_it_is_read(table, private):
    in_table(table, "path", str(private))
    source = Table(str(table), anywhere=True, masks="none")
    source.setup()
    assert torch.equal(source.load(0)["image"], read_image(private, "the private one"))


def test_links_in_the_folder_are_followed(table, private):
    """Who makes a link in the folder may read what it leads to; many collections are made of links."""
    (table / "linked.png").symlink_to(private)
    in_table(table, "path", "linked.png")
    used(Table(str(table), masks="none"))


def test_a_table_that_leaves_masks_out_does_not_mind_them(table, private):
    in_table(table, "mask", str(private))
    used(Table(str(table), masks="none"))


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd"])
def test_fixed_layouts_stay_in_their_folder(name, cub, waterbirds):
    for source, file, line, separator in (
        (CUB200, cub / "images.txt", 0, " "),
        (Waterbirds, waterbirds / "metadata.csv", 1, ","),
    ):
        lines = file.read_text().splitlines()
        cells = lines[line].split(separator)
        lines[line] = separator.join([cells[0], name, *cells[2:]])
        file.write_text("\n".join(lines) + "\n")
        with pytest.raises(PriorError, match="leads out of"):
            used(source(str(file.parent)))


FORMATS: dict[str, tuple[Callable[[Path], object], Callable[[str], Source]]] = {
    "coco": (tools.coco_files, lambda root: Coco(root, parts=["head"])),
    "cvat": (tools.pair_cvat, Cvat),
    "labelme": (tools.pair_labelme, LabelMe),
    "label studio": (tools.pair_label_studio, LabelStudio),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("full", [True, False])
def test_annotations_of_other_tools_stay_in_their_folder(form, full, tmp_path):
    """A name that leads out is looked for inside, as a path of another machine is, and not read where it leads."""
    root, outside = tmp_path / "export", tmp_path / "private"
    root.mkdir()
    outside.mkdir()
    build, source = FORMATS[form]
    build(root)
    used(source(str(root)))
    picture = next(path for path in sorted(root.rglob("*")) if path.suffix in (".png", ".jpg"))
    shutil.move(picture, outside / "secret.png")
    new = str(outside / "secret.png") if full else "../private/secret.png"
    for file in root.rglob("*"):
        if file.suffix in (".json", ".xml"):
            text = file.read_text()
            for old in (str(picture.relative_to(root)), picture.name):
                if old in text:
                    file.write_text(text.replace(old, new))
                    break
    with pytest.raises(PriorError, match=r"leads out of|no file|no picture|secret.png"):
        used(source(str(root)))


def test_a_list_of_yolo_stays_in_its_folder(tmp_path):
    root, outside = tmp_path / "export", tmp_path / "private"
    root.mkdir()
    tools.pair_yolo(root)
    outside.mkdir()
    picture = next(path for path in sorted(root.rglob("*")) if path.suffix in (".png", ".jpg"))
    shutil.copy(picture, outside / "secret.png")
    (root / "list.txt").write_text(f"{outside}/secret.png\n")
    text = (root / "data.yaml").read_text()
    lines = ["train: list.txt" if line.startswith("train:") else line for line in text.splitlines()]
    (root / "data.yaml").write_text("\n".join(lines))
    with pytest.raises(PriorError, match=r"secret.png .* leads out of"):
        used(Yolo(str(root)))


def test_places_are_compared_by_folders_and_not_by_letters(tmp_path):
    assert not stays_inside(str(tmp_path / "birds2" / "a.png"), tmp_path / "birds")
    assert stays_inside(str(tmp_path / "birds" / "a.png"), tmp_path / "birds")
    assert stays_inside("a..b.png", tmp_path / "birds")
