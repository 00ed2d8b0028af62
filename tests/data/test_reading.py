"""Files are read as they are meant, or named with their row."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_data import save_mask, save_picture
from PIL import Image

from lightning_priors.data.sources import UnreadableImageError
from lightning_priors.data.sources.paths import existing_file, existing_folder, hint_beside
from lightning_priors.data.sources.pictures import empty_mask, read_image, read_mask
from lightning_priors.data.sources.places import checked_boxes
from lightning_priors.data.sources.reading import named_once, number_in, read_columns, read_table
from lightning_priors.errors import PriorError

IMAGE = torch.zeros(3, 30, 40, dtype=torch.uint8)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK"])
def test_pictures_of_every_mode_have_three_channels(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(path)
    image = read_image(path, "row 2")
    assert (image.shape, image.dtype, image.min().item()) == ((3, 4, 5), torch.uint8, 255)


def test_pixels_are_where_they_belong(tmp_path: Path) -> None:
    picture = Image.new("RGB", (5, 4))
    picture.putpixel((3, 1), (10, 20, 30))
    picture.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", "row 2")
    assert image[:, 1, 3].tolist() == [10, 20, 30]
    assert image.sum() == 60


def test_soft_masks_are_shares_and_hard_masks_are_not(tmp_path: Path) -> None:
    grey = torch.tensor([[0, 51, 127, 128, 255]], dtype=torch.uint8)
    Image.fromarray(grey.numpy()).save(tmp_path / "m.png")
    image = torch.zeros(3, 1, 5, dtype=torch.uint8)
    soft = read_mask(tmp_path / "m.png", "row 2", image, "soft")
    hard = read_mask(tmp_path / "m.png", "row 2", image, "hard")
    torch.testing.assert_close(torch.as_tensor(soft[0, 0]), torch.tensor([0, 0.2, 127 / 255, 128 / 255, 1]))
    assert hard[0, 0].tolist() == [0, 0, 0, 1, 1]
    assert soft.dtype == hard.dtype == torch.float32
    assert empty_mask(image).shape == soft.shape


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path: Path, suffix: str) -> None:
    levels = np.array([[0, 257, 300, 32768, 65535]], dtype=np.uint16)
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(levels).save(path)
    assert read_image(path, "row 2")[:, 0].tolist() == [[0, 1, 1, 128, 255]] * 3
    mask = read_mask(path, "row 2", torch.zeros(3, 1, 5), "soft")
    assert mask[0, 0].tolist() == pytest.approx([0, 1 / 255, 1 / 255, 128 / 255, 1])


@pytest.mark.parametrize("levels", [np.array([[0.0, 0.5, 1.0]], np.float32), np.array([[0, 70_000, 5]], np.int32)])
def test_levels_of_an_unknown_white_are_refused(tmp_path: Path, levels: np.ndarray) -> None:
    Image.fromarray(levels).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImageError, match=r"a.tif \(row 2\): its .*; save it with 8 or 16 bits$"):
        read_image(tmp_path / "a.tif", "row 2")


def test_a_pipe_is_no_picture(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    for read in (lambda: read_image(tmp_path / "a.png", "row 2"), lambda: read_image(tmp_path, "row 2")):
        with pytest.raises(UnreadableImageError, match=r"\(row 2\): it is no file$"):
            read()


def test_a_mask_of_class_numbers_is_refused(tmp_path: Path) -> None:
    palette = Image.new("P", (40, 30))
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    palette.putpixel((3, 3), 2)
    palette.save(tmp_path / "voc.png")
    with pytest.raises(PriorError, match=r"voc.png \(row 2\) has colours for numbers of classes"):
        read_mask(tmp_path / "voc.png", "row 2", IMAGE, "soft")
    path = save_mask(tmp_path / "numbers.png", level=3)
    with pytest.raises(PriorError, match=r"numbers.png \(row 2\) has levels from 0 to 3; the target's is 255"):
        read_mask(path, "row 2", IMAGE, "hard")


def test_a_mask_in_transparency_is_refused(tmp_path: Path) -> None:
    drawn = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    drawn.putpixel((3, 3), (0, 0, 0, 255))
    drawn.save(tmp_path / "m.png")
    with pytest.raises(PriorError, match=r"m.png \(row 2\) is drawn in transparency"):
        read_mask(tmp_path / "m.png", "row 2", IMAGE, "soft")


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "RGB"])
def test_masks_in_white_are_read_in_every_mode(tmp_path: Path, mode: str) -> None:
    grey = Image.new("L", (40, 30))
    grey.putpixel((3, 4), 255)
    grey.convert(mode).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", "row 2", IMAGE, "soft")
    assert (mask.sum().item(), mask[0, 4, 3].item()) == (1, 1)
    Image.new("L", (40, 30)).convert(mode).save(tmp_path / "empty.png")
    assert read_mask(tmp_path / "empty.png", "row 2", IMAGE, "soft").sum() == 0


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    path = save_mask(tmp_path / "m.png", size=(30, 40))
    with pytest.raises(PriorError, match=r"the mask \S*m.png \(row 7 of t.csv\) is 30 x 40, its image 40 x 30$"):
        read_mask(path, "row 7 of t.csv", IMAGE, "soft")


def test_a_mask_of_zeros_and_ones_is_refused(tmp_path: Path) -> None:
    path = save_mask(tmp_path / "m.png", level=1)
    with pytest.raises(PriorError, match=r"m.png \(row 2\) has the levels 0 and 1; the target's is 255"):
        read_mask(path, "row 2", IMAGE, "soft")


def test_a_missing_picture_is_named_with_its_row_and_the_nearest_file(tmp_path: Path) -> None:
    save_picture(tmp_path / "heron.png")
    with pytest.raises(
        UnreadableImageError, match=r"no file \S*herron.png \(row 3 of t.csv\): .*did you mean 'heron.png'"
    ):
        read_image(tmp_path / "herron.png", "row 3 of t.csv")


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\x00\x10JFIF", None])
def test_a_broken_picture_is_named_with_its_row(tmp_path: Path, content: bytes | None) -> None:
    path = save_picture(tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    with pytest.raises(UnreadableImageError, match=r"^cannot read \S*a.png \(row 3 of t.csv\): \w+") as caught:
        read_image(path, "row 3 of t.csv")
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("a.png") == 1


def test_boxes_are_clipped_for_rounding_only() -> None:
    boxes, valid = checked_boxes([[-0.5, 0.0, 20.0, 30.9], None], IMAGE, ["head", "tail"], "row 2")
    assert boxes.tolist() == [[0.0, 0.0, 20.0, 30.0], [0.0, 0.0, 0.0, 0.0]]
    assert valid.tolist() == [True, False]
    assert boxes.canvas_size == (30, 40)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([-3.0, 0.0, 20.0, 20.0], "lies outside its image of 40 x 30: x -3 to 20, y 0 to 20"),
        ([10.0, 10.0, 42.0, 20.0], "lies outside its image of 40 x 30: x 10 to 42"),
        ([10.0, 10.0, 20.0, 33.0], "lies outside its image of 40 x 30: x 10 to 20, y 10 to 33"),
        ([50.0, 40.0, 60.0, 50.0], "lies outside its image"),
        ([20.0, 10.0, 10.0, 20.0], "has no area: x 20 to 10"),
        ([10.0, 10.0, 20.0, 10.0], "has no area"),
    ],
)
def test_a_box_outside_the_picture_is_named(box: list[float], message: str) -> None:
    with pytest.raises(PriorError, match=r"the box head \(row 4 of t.csv\) " + message):
        checked_boxes([box], IMAGE, ["head"], "row 4 of t.csv")


def test_csv_rows_are_named_by_their_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('\ufeffpath, label\na.png,"x\ny"\n\nb.png, z \n', encoding="utf-8")
    rows = list(read_table(path, ["path"]))
    assert rows == [
        ("row 3 of t.csv", {"path": "a.png", "label": "x\ny"}),
        ("row 5 of t.csv", {"path": "b.png", "label": "z"}),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.png\n", r"row 2 of t.csv has 1 cells, the header 2 \(.*t.csv\)"),
        ("path,label\na.png,x,y\n", "row 2 of t.csv has 3 cells, the header 2"),
        ("path,lable\na.png,x\n", "t.csv has no column 'label', did you mean 'lable'"),
        ("", "t.csv has no column 'label'"),
        ("label,label\n", "the column of t.csv 'label' occurs twice"),
        ("label\n\udcff\n", "t.csv cannot be read as CSV: "),
    ],
)
def test_wrong_csv_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(PriorError, match=message):
        list(read_table(tmp_path / "t.csv", ["label"]))


def test_the_last_cell_of_a_column_file_may_have_spaces(tmp_path: Path) -> None:
    (tmp_path / "parts.txt").write_text("1 left eye\n\n2 beak\n")
    assert list(read_columns(tmp_path / "parts.txt", 2)) == [
        ("row 1 of parts.txt", ["1", "left eye"]),
        ("row 3 of parts.txt", ["2", "beak"]),
    ]
    with pytest.raises(PriorError, match=r"row 3 of parts.txt has 2 of 3 cells: '2 beak'"):
        list(read_columns(tmp_path / "parts.txt", 3))


@pytest.mark.parametrize("cell", ["", "abc", "nan", "inf"])
def test_a_cell_that_is_no_number_is_named(cell: str) -> None:
    with pytest.raises(PriorError, match=f"x0 in row 2 is '{cell}', not a number"):
        number_in(cell, "x0", "row 2")


def test_missing_files_and_folders_get_a_hint(tmp_path: Path) -> None:
    (tmp_path / "stampbirds").mkdir()
    save_picture(tmp_path / "metadata.csv.png")
    with pytest.raises(
        PriorError, match=r"no file \S*metadata.csv: .* has no 'metadata.csv', did you mean 'metadata.csv.png'"
    ):
        existing_file(tmp_path / "metadata.csv")
    with pytest.raises(
        PriorError, match=r"no folder \S*stampbird/inner: .* has no 'stampbird', did you mean 'stampbirds'"
    ):
        existing_folder(tmp_path / "stampbird" / "inner")
    assert hint_beside(tmp_path / "stampbirds" / "x") == f": {tmp_path / 'stampbirds'} is empty"
    assert existing_folder(tmp_path) == tmp_path


def test_names_occur_once() -> None:
    with pytest.raises(PriorError, match="the class 'cat' occurs twice"):
        named_once(["cat", "dog", "cat"], "class")
