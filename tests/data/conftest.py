"""Small data sets on disk in the layouts of the real ones."""

import csv
from pathlib import Path

import pytest
from fake_data import ATTRIBUTES, PARTS, SPECIES, TABLE, part_lines, save_mask, save_picture, write_lines


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    """CUB-200-2011 with four images of each of three species, two of them for training; segmentations beside it."""
    root = tmp_path / "cub"
    folder = root / "CUB_200_2011"
    names = [f"{species}/{species[4:]}_{number:04d}.jpg" for species in SPECIES for number in range(4)]
    for number, name in enumerate(names):
        save_picture(folder / "images" / name, level=10 * number)
        save_mask(root / "segmentations" / Path(name).with_suffix(".png"), level=255 if number % 4 else 100)
    ids = range(1, len(names) + 1)
    write_lines(folder / "images.txt", [f"{i} {name}" for i, name in zip(ids, names, strict=True)])
    write_lines(folder / "classes.txt", [f"{i} {name}" for i, name in enumerate(SPECIES, 1)])
    write_lines(folder / "image_class_labels.txt", [f"{i} {(i - 1) // 4 + 1}" for i in ids])
    write_lines(folder / "train_test_split.txt", [f"{i} {int((i - 1) % 4 < 2)}" for i in ids])
    write_lines(folder / "bounding_boxes.txt", [f"{i} 8.0 4.0 22.0 22.0" for i in ids])
    write_lines(folder / "parts" / "parts.txt", [f"{i} {name}" for i, name in enumerate(PARTS, 1)])
    write_lines(folder / "parts" / "part_locs.txt", [line for i in ids for line in part_lines(i)])
    # the real archive has attributes.txt beside the folder, and some lines with a cell too many
    write_lines(root / "attributes.txt", [f"{i} {name}" for i, name in enumerate(ATTRIBUTES, 1)])
    lines = [f"{i} {a} {(i + a) % 2} {1 if a == 3 else 4} 12.5" for i in ids for a in (1, 2, 3)]
    lines[4] += " 0 7.1"
    write_lines(folder / "attributes" / "image_attribute_labels.txt", lines)
    return folder


@pytest.fixture
def waterbirds(tmp_path: Path, cub: Path) -> Path:
    """Waterbirds with eight of the images of `cub`; no masks and no CUB-200-2011 folder inside."""
    root = tmp_path / "waterbird_complete95_forest2water2"
    names = [line.split()[1] for line in (cub / "images.txt").read_text().splitlines()][:8]
    rows = [("img_id", "img_filename", "y", "split", "place", "place_filename")]
    for number, name in enumerate(names):
        save_picture(root / name, level=20 * number)
        rows.append((number + 1, name, int(number < 4), (0, 0, 1, 2)[number % 4], number % 2, "/o/ocean/1.jpg"))
    with (root / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Folders by split and class; two of the four training pictures have a mask."""
    root = tmp_path / "pictures"
    for split, count in {"train": 2, "val": 1, "test": 1}.items():
        for name in ("cat", "dog"):
            for number in range(count):
                save_picture(root / split / name / f"{name}{number}.jpg")
    save_mask(root / "masks" / "train" / "cat" / "cat0.png", level=51)
    save_mask(root / "masks" / "train" / "dog" / "dog1.png")
    return root


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """The folder of a table with every kind of column and with empty cells."""
    root = tmp_path / "birds"
    for name in "abcd":
        save_picture(root / f"{name}.png")
    save_mask(root / "a_mask.png", level=153)
    (root / "table.csv").write_text(TABLE)
    return root
