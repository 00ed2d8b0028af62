"""Your own data in one table."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from fake_data import edit, save_mask

from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import Table
from lightning_priors.errors import PriorError

OPTIONS: dict[str, Any] = {
    "aux": ["species"],
    "boxes": {"head": ["head_x0", "head_y0", "head_x1", "head_y1"]},
    "keypoints": {"left eye": ["left_eye_x", "left_eye_y"], "right eye": ["right_eye_x", "right_eye_y"]},
}


def ready(root: Path, **options: Any) -> Table:
    source = Table(str(root), **options)
    source.setup()
    return source


def test_every_kind_of_column(table: Path) -> None:
    source = ready(table, **OPTIONS)
    assert source.classes == ["kakapo", "other"]
    assert source.aux_classes == {"species": ["kakapo", "kea"]}
    assert source.group_names == ["land", "water"]
    assert (source.part_names, source.keypoint_names) == (["head"], ["left eye", "right eye"])
    assert [source.indices(split) for split in ("train", "val", "test")] == [[0, 1], [2], [3]]
    first, bare, third = (source.load(index) for index in (0, 1, 2))
    assert [sample["label"] for sample in (first, bare, third)] == [0, 1, 1]
    assert [sample["group"] for sample in (first, bare, third)] == [0, 0, 1]
    assert [sample["aux_labels"] for sample in (first, bare, third)] == [[0], [1], [-1]]
    assert first["mask"].max().item() == pytest.approx(0.6)
    assert first["part_boxes"].tolist() == [[10.0, 5.0, 20.0, 11.0]]
    assert first["keypoints"].tolist() == [[16.0, 7.0], [0.0, 0.0]]
    assert first["keypoint_valid"].tolist() == [True, False]
    assert third["keypoints"].tolist() == [[16.0, 7.0], [18.0, 7.5]]


def test_empty_cells_are_no_annotation(table: Path) -> None:
    bare = ready(table, **OPTIONS).load(1)
    assert not bare["mask_valid"]
    assert bare["mask"].shape == (1, 30, 40)
    for key in ("mask", "part_boxes", "part_valid", "keypoints", "keypoint_valid"):
        assert not bare[key].any()


def test_json_lines_say_the_same(table: Path) -> None:
    with (table / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = {"head_x0", "head_y0", "head_x1", "head_y1", "left_eye_x", "left_eye_y", "right_eye_x", "right_eye_y"}
    entries = [
        {name: None if cell == "" else float(cell) if name in numbers else cell for name, cell in row.items()}
        for row in rows
    ]
    del entries[1]["mask"]  # a missing key is an empty cell
    (table / "birds.jsonl").write_text("\n".join(json.dumps(entry) for entry in entries) + "\n\n")
    one, other = ready(table, **OPTIONS), ready(table, table="birds.jsonl", **OPTIONS)
    for index in range(4):
        first, second = one.load(index), other.load(index)
        assert first.keys() == second.keys()
        for key in first:
            assert (
                (first[key] == second[key]) if isinstance(first[key], int | list) else (first[key] == second[key]).all()
            )


def test_a_table_of_paths_and_labels_is_enough(table: Path) -> None:
    (table / "small.csv").write_text("path,label\na.png,cat\nb.png,dog\nc.png,cat\nd.png,dog\n")
    data = PriorDataModule(Table(str(table), table="small.csv"), batch_size=2, image_size=16, val_fraction=0.5)
    data.setup("fit")
    assert set(next(iter(data.train_dataloader()))) == {"image", "label", "index"}
    assert [data.source.label(index) for index in data._datasets["val"].indices] == [0, 1]
    data.setup("test")
    with pytest.raises(PriorError, match="test split of Table is empty"):
        data.test_dataloader()


def test_columns_may_have_other_names(table: Path) -> None:
    text = (table / "table.csv").read_text()
    renamed = text.replace("path,label,split,mask,group", "file,kind,part,outline,place", 1)
    (table / "table.csv").write_text(renamed)
    names = {"path": "file", "label": "kind", "split": "part", "mask": "outline", "group": "place"}
    source = ready(table, **names)
    sample = source.load(3)
    assert (source.indices("test"), sample["label"], sample["group"], sample["mask_valid"]) == ([3], 0, 1, True)


def test_masks_may_be_hard_or_left_out(table: Path) -> None:
    assert ready(table, masks="hard").load(0)["mask"].unique().tolist() == [0, 1]
    assert "mask" not in ready(table, masks="none").load(0)


def test_the_default_box_has_the_columns_x0_to_y1(table: Path) -> None:
    edit(table / "table.csv", "head_x0,head_y0,head_x1,head_y1", "x0,y0,x1,y1")
    source = ready(table)
    assert source.part_names == ["box"]
    assert source.load(0)["part_boxes"].tolist() == [[10.0, 5.0, 20.0, 11.0]]
    assert "part_boxes" not in ready(table, boxes={}).load(0)


def test_listed_classes_fix_the_labels(table: Path) -> None:
    source = ready(table, classes=["other", "emu", "kakapo"])
    assert source.classes == ["other", "emu", "kakapo"]
    assert [source.label(index) for index in range(4)] == [2, 0, 0, 2]


@pytest.mark.parametrize(("labels", "classes"), [("0 1 0 2", "0 1 2"), ("1 2 1 2", "1 2"), ("8 10 9 b", "10 8 9 b")])
def test_numbers_are_labels_in_their_order(table: Path, labels: str, classes: str) -> None:
    cells = "".join(f"{name}.png,{label}\n" for name, label in zip("abcd", labels.split(), strict=True))
    (table / "table.csv").write_text("path,label\n" + cells)
    source = ready(table)
    assert source.classes == classes.split()
    assert [source.classes[source.label(index)] for index in range(4)] == labels.split()


def test_numbers_are_positions_in_listed_classes(table: Path) -> None:
    (table / "table.csv").write_text("path,label\na.png,1\nb.png,0\nc.png,cat\n")
    source = ready(table, classes=["cat", "dog"])
    assert [source.label(index) for index in range(3)] == [1, 0, 0]


@pytest.mark.parametrize("cell", ["2", "-1"])
def test_a_label_out_of_range_is_named(table: Path, cell: str) -> None:
    (table / "table.csv").write_text(f"path,label\na.png,1\nb.png,{cell}\n")
    with pytest.raises(PriorError, match=rf"label {cell} \(row 3 of table.csv\) is out of range: there are 2 classes"):
        ready(table, classes=["cat", "dog"])


def test_a_gap_in_the_labels_is_named(table: Path) -> None:
    (table / "table.csv").write_text("path,label\na.png,0\nb.png,1\nc.png,7\n")
    with pytest.raises(
        PriorError, match=r"label 7 \(row 4 of table.csv\) is out of range: the labels have a gap before it"
    ):
        ready(table)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("a.png,kakapo", "a.png,kakapoo", r"no label 'kakapoo' \(row 2 of table.csv\), did you mean 'kakapo'"),
        ("a.png,kakapo", "a.png,", r"no label '' \(row 2 of table.csv\)"),
        ("b.png", "", "no path in row 3 of table.csv"),
        ("other,val", "other,vall", r"no split 'vall' \(row 4 of table.csv\), did you mean 'val'"),
        ("other,val", "other,", r"no split '' \(row 4 of table.csv\)"),
        ("d.png", "a.png", r"a.png is in the train split \(row 2 of table.csv\) and in test \(row 5 of table.csv\)"),
        ("kea,,,,", "kea,x,,,", "head_x0 in row 3 of table.csv is 'x', not a number"),
        ("kea,,,,", "kea,3,,7,8,9", "row 3 of table.csv has 15 cells, the header 14"),
        ("kea,,,,", "kea,3,,7,", "head_y0 in row 3 of table.csv is '', not a number"),
        (",16,7,,", ",16,,,", "left_eye_y in row 2 of table.csv is '', not a number"),
        ("path,", "file,", r"table.csv has no column 'path'"),
        ("label", "lable", "table.csv has no column 'label', did you mean 'lable'"),
        ("split", " Split", "table.csv has no column 'split', did you mean 'Split'"),
        ("mask,", "Mask,", "table.csv has no column 'mask', did you mean 'Mask'"),
        ("head_x1", "head_xx", "table.csv has no column 'head_x1', did you mean 'head_"),
        ("species", "kind", "table.csv has no column 'species'"),
        ("left_eye_x", "left_eye", "table.csv has no column 'left_eye_x', did you mean 'left_eye"),
    ],
)
def test_wrong_cells_and_columns_are_named(table: Path, old: str, new: str, message: str) -> None:
    edit(table / "table.csv", old, new)
    with pytest.raises(PriorError, match=message):
        ready(table, classes=["kakapo", "other"], **OPTIONS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": "outline"}, "table.csv has no column 'outline'"),
        ({"split": "splits"}, "table.csv has no column 'splits', did you mean 'split'"),
        ({"group": "groups"}, "table.csv has no column 'groups', did you mean 'group'"),
        ({"boxes": {"head": ["head_x0", "head_y0"]}}, "'head' needs 4 columns, not 2: head_x0, head_y0"),
        ({"keypoints": {"eye": ["left_eye_x"]}}, "'eye' needs 2 columns, not 1"),
        ({"classes": ["kakapo", "kakapo"]}, "the class 'kakapo' occurs twice"),
        ({"table": "tabel.csv"}, r"no file \S*tabel.csv: .* did you mean 'table.csv'"),
    ],
)
def test_wrong_options_are_named(table: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PriorError, match=message):
        ready(table, **options)


def test_half_a_default_box_is_named(table: Path) -> None:
    edit(table / "table.csv", "head_x0,head_y0,head_x1,head_y1", "x0,y0,x1,height")
    with pytest.raises(PriorError, match=r"table.csv has no column 'y1'"):
        ready(table)


def test_a_row_without_a_label_is_named(table: Path) -> None:
    edit(table / "table.csv", "b.png,other", "b.png,")
    with pytest.raises(PriorError, match=r"no label in row 3 of table.csv"):
        ready(table)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("10,5,20,11", "10,5,90,11", r"the box head \(row 2 of table.csv\) lies outside its image of 40 x 30"),
        ("16,7,,", "41,7,,", r"the keypoint left eye \(row 2 of table.csv\) lies outside its image of 40 x 30: 41, 7"),
        ("a_mask.png", "b_mask.png", r"no file \S*b_mask.png \(row 2 of table.csv\): .* did you mean 'a_mask.png'"),
        ("a.png", "z.png", r"no file \S*z.png \(row 2 of table.csv\): "),
    ],
)
def test_what_does_not_fit_the_picture_is_named(table: Path, old: str, new: str, message: str) -> None:
    edit(table / "table.csv", old, new)
    source = ready(table, **OPTIONS)
    with pytest.raises(PriorError, match=message):
        source.load(0)


def test_a_mask_of_another_size_is_named(table: Path) -> None:
    save_mask(table / "a_mask.png", size=(4, 3))
    with pytest.raises(PriorError, match=r"a_mask.png \(row 2 of table.csv\) is 4 x 3, its image 40 x 30"):
        ready(table).load(0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"path": "a.png",', "row 2 of t.jsonl is no JSON: "),
        ('["a.png"]', "row 2 of t.jsonl is no flat JSON object"),
        ('{"path": "a.png", "label": ["x"]}', "row 2 of t.jsonl is no flat JSON object"),
        ('{"path": "b.png"}', "no label in row 2 of t.jsonl"),
    ],
)
def test_wrong_json_lines_are_named(table: Path, line: str, message: str) -> None:
    (table / "t.jsonl").write_text('{"path": "a.png", "label": "x"}\n' + line + "\n")
    with pytest.raises(PriorError, match=message):
        ready(table, table="t.jsonl")


def test_an_empty_table_is_named(table: Path) -> None:
    (table / "table.csv").write_text("path,label\n")
    with pytest.raises(PriorError, match=r"\S*table.csv has no rows"):
        ready(table)


def test_the_file_of_an_image_is_the_cell_of_its_row(table: Path) -> None:
    assert [ready(table).file(index) for index in range(4)] == ["a.png", "b.png", "c.png", "d.png"]
