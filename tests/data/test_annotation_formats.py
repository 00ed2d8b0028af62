"""YOLO, LabelMe, CVAT, Label Studio and Hugging Face folders: all say the same of the same pictures."""

import base64
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from annotation_files import (
    BIRD,
    HEIGHT,
    SQUARE,
    STUDIO_BOX,
    WIDTH,
    coco_files,
    cvat_coco,
    fiftyone,
    label_studio_coco,
    pair,
    pair_cvat,
    pair_label_studio,
    pair_labelme,
    pair_yolo,
    roboflow,
    studio_entry,
    studio_task,
    write_yolo_labels,
)
from fake_data import edit, save_picture
from PIL import Image

from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import (
    Annotated,
    Coco,
    Cvat,
    HuggingFaceFolder,
    ImageFolderSource,
    LabelMe,
    LabelStudio,
    Source,
    Table,
    Yolo,
)
from lightning_priors.errors import PriorError

FORMATS = [(Yolo, pair_yolo), (LabelMe, pair_labelme), (Cvat, pair_cvat), (LabelStudio, pair_label_studio)]
WITH_POINTS = FORMATS[1:]


def ready(kind: type[Annotated], root: Path, **options: Any) -> Annotated:
    source = kind(str(root), **options)
    source.setup()
    return source


@pytest.mark.parametrize(("kind", "write"), FORMATS)
def test_an_outline_and_a_box_are_where_they_were_drawn(
    kind: type[Annotated], write: Callable[[Path], Path], tmp_path: Path
) -> None:
    source = ready(kind, write(tmp_path / "export"))
    assert source.classes == ["kakapo", "kea"]
    assert [source.file(index)[-5:] for index in source.indices("train")] == ["a.png", "b.png"]
    kakapo, kea = source.load(0), source.load(1)
    square = torch.zeros(1, HEIGHT, WIDTH)
    square[:, 4:26, 8:30] = 1
    assert (kakapo["label"], kea["label"]) == (0, 1)
    assert torch.equal(kakapo["mask"], square)
    assert (kakapo["mask_valid"], kea["mask_valid"]) == (True, False)
    for sample in (kakapo, kea):
        assert torch.allclose(sample["part_boxes"], torch.tensor([[8.0, 4, 30, 26]]), atol=1e-4)


@pytest.mark.parametrize(("kind", "write"), WITH_POINTS)
def test_points_are_keypoints_and_the_attributes_of_a_region_labels(
    kind: type[Annotated], write: Callable[[Path], Path], tmp_path: Path
) -> None:
    source = ready(kind, write(tmp_path / "export"), aux=["tame"])
    assert source.keypoint_names == ["beak"]
    assert torch.allclose(source.load(0)["keypoints"], torch.tensor([[16.0, 7.0]]), atol=1e-4)
    assert not source.load(1)["keypoint_valid"].any()
    assert [source.load(index)["aux_labels"] for index in (0, 1)] == [[0], [-1]]


# ---- YOLO


def test_yolo_splits_are_folders_or_lists_and_pictures_without_labels_are_background(tmp_path: Path) -> None:
    root = pair_yolo(tmp_path)
    save_picture(root / "images" / "val" / "empty.jpg")
    (root / "test.txt").write_text("./images/extra/c.jpg\n")
    save_picture(root / "images" / "extra" / "c.jpg")
    (root / "images" / "extra" / "c.txt").write_text("1 0.5 0.5 1 1\n")
    (root / "data.yaml").write_text(
        "path: .\ntrain: ../images/train\nval: images/val\ntest: test.txt\nnames: [kakapo, kea]\n"
    )
    source = ready(Yolo, root, background="nothing")
    assert [source.indices(split) for split in ("train", "val", "test")] == [[0, 1], [2], [3]]
    assert [source.classes[source.label(index)] for index in range(4)] == ["kakapo", "kea", "nothing", "kea"]
    assert source.load(3)["part_boxes"].tolist() == [[0, 0, WIDTH, HEIGHT]]


def test_yolo_without_a_description_has_its_classes_in_a_file(tmp_path: Path) -> None:
    write_yolo_labels(pair(tmp_path) / "labels", SQUARE[0])
    (tmp_path / "classes.txt").write_text("kakapo\nkea\n")
    assert ready(Yolo, tmp_path).load(0)["mask"].sum() == 22 * 22


def test_yolo_keypoints(tmp_path: Path) -> None:
    root = pair_yolo(tmp_path)
    (root / "data.yaml").write_text(
        "train: images/train\nnames: [kakapo, kea]\nkpt_shape: [2, 3]\nkpt_names: {0: [beak, tail]}"
    )
    (root / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0.5 0.5 0.25 0.5 2 0 0 0\n")
    source = ready(Yolo, root)
    assert source.keypoint_names == ["beak", "tail"]
    assert source.load(0)["keypoints"].tolist() == [[10, 15], [0, 0]]
    assert source.load(0)["keypoint_valid"].tolist() == [True, False]
    assert source.load(0)["part_boxes"].tolist() == [[10, 7.5, 30, 22.5]]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("labels/train/a.txt", "2 0.5 0.5 0.1 0.1", r"no class '2' \(line 1 of a.txt\)"),
        ("labels/train/a.txt", "0 0.5 0.5 0.1", "line 1 of a.txt has 3 numbers, which are neither"),
        ("labels/train/a.txt", "0 0.5 0.5 0.1 x", "a coordinate in line 1 of a.txt is 'x'"),
        ("data.yaml", "train: images/train\nnames: {1: kea}", "are not numbered 0, 1, 2"),
        ("data.yaml", "train: images/train", "describes no YOLO data: it has no list 'names'"),
        ("data.yaml", "train: images/trian\nnames: [a, b]", "no images/trian .*did you mean 'train'"),
        ("data.yaml", "train: images/train\nval: images/train\nnames: [kakapo, kea]",
         r"images/train/a.png is annotated twice: train of data.yaml and val of data.yaml"),
        ("data.yaml", "names: [", "line 1: expected the node content"),
    ],
)  # fmt: skip
def test_mistakes_in_yolo_files_are_named(tmp_path: Path, file: str, text: str, message: str) -> None:
    root = pair_yolo(tmp_path)
    (root / file).write_text(text)
    with pytest.raises(PriorError, match=message):
        ready(Yolo, root)


# ---- LabelMe


def test_labelme_circles_masks_and_flags(tmp_path: Path) -> None:
    root = pair_labelme(tmp_path)
    inside = np.zeros((10, 6), np.uint8)
    inside[2:, 1:] = 255
    png = io.BytesIO()
    Image.fromarray(inside).save(png, format="PNG")
    content = json.loads((root / "a.json").read_text())
    content["flags"] = {"kakapo": True, "blurred": False}
    code = base64.b64encode(png.getvalue()).decode()
    content["shapes"] = [

        {"label": "x", "points": [[5, 6], [10, 15]], "shape_type": "mask", "mask": code},
        {"label": "x", "points": [[30.0, 15.0], [33.0, 19.0]], "shape_type": "circle"},
    ]  # fmt: skip
    (root / "a.json").write_text(json.dumps(content))
    sample = ready(LabelMe, root).load(0)
    assert sample["label"] == 0, "the flag is the class"
    assert sample["mask"][0, 8:16, 6:11].all()
    assert sample["mask"][0, :, :20].sum() == 8 * 5
    assert sample["mask"][0, :, 20:].sum().item() == pytest.approx(np.pi * 25, rel=0.03)


def test_labelme_folders_are_splits(tmp_path: Path) -> None:
    pair_labelme(tmp_path / "train")
    pair_labelme(tmp_path / "valid")
    source = ready(LabelMe, tmp_path)
    assert [len(source.indices(split)) for split in ("train", "val", "test")] == [2, 2, 0]


# ---- CVAT


def test_cvat_masks_skeletons_tags_and_turned_boxes(tmp_path: Path) -> None:
    root = pair_cvat(tmp_path)
    edit(root / "annotations.xml", "</image>", '<tag label="kakapo"/><mask label="x" left="1" top="6" width="3" '
         'height="2" rle="1, 3, 2"/></image>')  # fmt: skip
    edit(root / "annotations.xml", '<polygon label="kakapo"', '<polygon label="y"')
    edit(root / "annotations.xml", 'ybr="26.00"', 'ybr="15.00" rotation="90"')
    edit(root / "annotations.xml", "</box>", '</box><skeleton label="kea"><points label="eye" outside="0" '
         'points="9,5"/><points label="tail" outside="1" points="1,1"/></skeleton>')  # fmt: skip
    source = ready(Cvat, root)
    kakapo, kea = source.load(0), source.load(1)
    assert kakapo["mask"].sum() == 22 * 22 + 3
    assert kakapo["mask"][0, 6:8, 1:4].tolist() == [[0, 1, 1], [1, 0, 0]], "stored line by line"

    assert source.keypoint_names == ["beak", "eye"]
    assert kea["keypoints"].tolist() == [[0, 0], [9, 5]]
    assert kea["mask"].sum() == 11 * 21
    assert kea["part_boxes"][0].tolist() == pytest.approx([13.5, 0, 24.5, 20.5]), "the part in the picture"


def test_cvat_subsets_are_splits_and_videos_are_refused(tmp_path: Path) -> None:
    root = pair_cvat(tmp_path)
    edit(root / "annotations.xml", 'subset="default"', 'subset="Train"')
    edit(root / "annotations.xml", 'subset="default"', 'subset="Validation"')
    (root / "images" / "Train").mkdir()
    (root / "images" / "a.png").rename(root / "images" / "Train" / "a.png")
    source = ready(Cvat, root)
    assert [source.indices(split) for split in ("train", "val")] == [[0], [1]]
    edit(root / "annotations.xml", "</annotations>", '<track id="0" label="kea"></track></annotations>')
    with pytest.raises(PriorError, match=r"annotations.xml is of a video; export it as 'CVAT for images 1.1'"):
        ready(Cvat, root)


# ---- Label Studio


def write_tasks(root: Path, *tasks: dict[str, Any]) -> Path:
    (pair(root) / "tasks.json").write_text(json.dumps(tasks))
    return root


def choice(name: str, bird: str) -> dict[str, Any]:
    return {"id": name, "type": "choices", "from_name": name, "value": {"choices": [bird]}}


def test_label_studio_choices_are_classes_and_attributes(tmp_path: Path) -> None:
    root = write_tasks(
        tmp_path,
        studio_task(1, "a.png", choice("species", "kea"), choice("sex", "f")),
        studio_task(2, "b.png", choice("species", "kakapo"), choice("sex", "m")),
    )
    with pytest.raises(PriorError, match=r"has 2 classes: kea, f; .* or label \(place, species, sex\)"):
        ready(LabelStudio, root)
    source = ready(LabelStudio, root, label="species", aux=["sex"])
    assert source.classes == ["kakapo", "kea"]
    assert [source.load(index)["aux_labels"] for index in (0, 1)] == [[0], [1]]


def test_label_studio_reads_one_annotation_of_a_task(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    first = studio_task(1, "a.png", choice("species", "kea"))
    for name, flags in (("emu", {}), ("moa", {"was_cancelled": True})):
        first["annotations"].append({"result": [choice("species", name)], **flags})
    second = studio_task(2, "b.png", choice("species", "kakapo"))
    second["annotations"][0]["ground_truth"] = True
    second["annotations"].append({"result": [choice("species", "kea")]})
    source = ready(LabelStudio, write_tasks(tmp_path, first, second))
    assert [source.classes[source.label(index)] for index in (0, 1)] == ["emu", "kakapo"]
    assert "2 tasks have several annotations" in caplog.text


def test_label_studio_turned_boxes_and_ellipses(tmp_path: Path) -> None:
    turned = studio_entry("r", "rectanglelabels", **{**STUDIO_BOX, "x": 75.0}, rotation=90, rectanglelabels=["kea"])
    turned["value"]["width"], turned["value"]["height"] = 100 * 5 / WIDTH, 100 * 10 / HEIGHT
    egg = studio_entry("e", "ellipselabels", x=50, y=50, radiusX=25, radiusY=20, ellipselabels=["kakapo"])
    root = write_tasks(tmp_path, studio_task(1, "a.png", turned), studio_task(2, "b.png", egg))
    source = ready(LabelStudio, root)

    mask = source.load(0)["mask"][0]
    assert mask[4:9, 20:30].all(), "turned clockwise about its corner (30, 4)"
    assert mask.sum() == 50
    assert source.load(1)["mask"].sum().item() == pytest.approx(np.pi * 10 * 6, rel=0.05)


def test_label_studio_masks_of_the_brush_are_refused(tmp_path: Path) -> None:
    brush = studio_entry("m", "brushlabels", format="rle", rle=[0, 1, 2], brushlabels=["kea"], x=0)
    with pytest.raises(
        PriorError,
        match=r"brushlabels kea of task 1 of tasks.json is painted .* 'Brush labels to COCO'",
    ):
        ready(LabelStudio, write_tasks(tmp_path, studio_task(1, "a.png", brush)))


def test_label_studios_short_export_is_refused(tmp_path: Path) -> None:
    root = write_tasks(tmp_path, {"image": "a.png", "species": "kea", "annotation_id": 3})
    with pytest.raises(PriorError, match=r"tasks.json has no tasks with data and annotations; export .* not JSON-MIN"):
        ready(LabelStudio, root)


# ---- Hugging Face


def test_hugging_face_folders_have_labels_and_objects(tmp_path: Path) -> None:
    boxes = {"bbox": [[*BIRD]], "categories": [7]}
    for split in ("train", "test"):
        rows = [
            {"file_name": "a.png", "label": 10, "place": "alps", "objects": boxes},
            {"file_name": "sub/b.png", "label": 9, "place": None, "objects": {"bbox": [], "categories": []}},
        ]
        for row in rows:
            save_picture(tmp_path / split / str(row["file_name"]))
        (tmp_path / split / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = ready(HuggingFaceFolder, tmp_path, aux=["place"])
    assert source.classes == ["9", "10"]
    assert [len(source.indices(split)) for split in ("train", "val", "test")] == [2, 0, 2]
    first, second = (source.load(index) for index in source.indices("train"))
    assert (first["label"], second["label"], first["aux_labels"], second["aux_labels"]) == (1, 0, [0], [-1])
    assert first["part_boxes"].tolist() == [[8, 4, 30, 26]]
    assert not second["part_valid"].any()


def test_one_table_of_a_hugging_face_folder_names_the_splits_by_its_paths(tmp_path: Path) -> None:
    for name in ("train/a.png", "validation/b.png"):
        save_picture(tmp_path / name)
    (tmp_path / "metadata.csv").write_text("file_name,label\ntrain/a.png,kea\nvalidation/b.png,kakapo\n")
    source = ready(HuggingFaceFolder, tmp_path)
    assert [source.indices(split) for split in ("train", "val")] == [[0], [1]]
    flat = Table(str(tmp_path), table="metadata.csv", path="file_name")
    assert flat.classes == source.classes, "a flat one is a table too"
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "train/a.png", "objects": {"bbox": [[1, 2, 3, 4]]}}')
    with pytest.raises(PriorError, match=r"objects of row 1 of metadata.jsonl has 1 boxes and 0 categories"):
        ready(HuggingFaceFolder, tmp_path)


# ---- the right source for a folder


def write_text(*names: str, text: str = "") -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        return root

    return write


def by_class(root: Path) -> Path:
    for name in ("train/cat/a.png", "train/dog/b.png"):
        save_picture(root / name)
    return root


READ: list[tuple[Callable[[Path], Path], str]] = [
    (roboflow, "Coco"),
    (fiftyone, "Coco"),
    (cvat_coco, "Coco"),
    (label_studio_coco, "Coco"),
    (coco_files, "Coco"),
    (pair_yolo, "Yolo"),
    (pair_labelme, "LabelMe"),
    (pair_cvat, "Cvat"),
    (pair_label_studio, "LabelStudio"),
    (write_text("train/metadata.jsonl", text='{"file_name": "a.png"}'), "HuggingFaceFolder"),
    (write_text("table.csv", text="path,label"), "Table"),
    (by_class, "ImageFolderSource"),
]
SOURCES = (Coco, Yolo, LabelMe, Cvat, LabelStudio, HuggingFaceFolder, Table, ImageFolderSource)


@pytest.mark.parametrize(("write", "right"), READ)
def test_a_wrong_source_names_the_right_one(write: Callable[[Path], Path], right: str, tmp_path: Path) -> None:
    root = write(tmp_path / "export")
    for kind in SOURCES:
        if kind.__name__ != right:
            with pytest.raises(PriorError, match=f": the source {right} reads them, {kind.__name__} does not"):
                kind(str(root)).setup()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_text("Annotations/a.xml", text="<annotation><object/></annotation>"),
         "Pascal VOC annotations .* which are not read: pip install globox; globox convert Annotations coco.json"),
        (write_text("train/birds.tfrecord-00001"), "has TFRecord files .* export the same annotations as COCO"),
        (write_text("data/train-0.parquet"), "has Parquet files .* then the source HuggingFaceFolder"),
        (write_text("scan/1.dcm"), "has DICOM files .* save the pictures as PNG"),
        (write_text("train/_annotations.csv"), "has CSV files with a row for each box"),
        (write_text("train/_annotations.createml.json"), "has CreateML annotations"),
        (write_text("via.json", text='{"a.jpg9": {"filename": "a.jpg", "regions": []}}'), "has VIA annotations"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [Coco, ImageFolderSource, Table])
def test_a_format_that_is_not_read_names_a_way(
    kind: Callable[[str], Source], write: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    with pytest.raises(PriorError, match=message):
        kind(str(write(tmp_path / "data"))).setup()


def test_the_command_in_the_message_converts_pascal_voc(tmp_path: Path) -> None:
    pytest.importorskip("globox")
    for number, name in enumerate(("kakapo", "kea")):
        save_picture(tmp_path / f"{name}.jpg")
        box = "<bndbox><xmin>8</xmin><ymin>4</ymin><xmax>30</xmax><ymax>26</ymax></bndbox>"
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        text = (
            f"<annotation><filename>{name}.jpg</filename>{size}<object><name>{name}</name>{box}</object></annotation>"
        )
        write_text(f"Annotations/{number}.xml", text=text)(tmp_path)
    with pytest.raises(PriorError) as caught:
        ready(Coco, tmp_path)
    command = str(caught.value).partition("globox; ")[2].partition(";")[0].split()
    subprocess.run([str(Path(sys.executable).with_name(command[0])), *command[1:]], cwd=tmp_path, check=True)
    source = ready(Coco, tmp_path)
    assert source.classes == ["kakapo", "kea"]
    assert source.load(0)["part_boxes"].tolist() == [[8, 4, 30, 26]]


@pytest.mark.parametrize("kind", [Coco, LabelMe, Cvat, Yolo])
def test_boxes_are_those_that_another_library_writes(kind: type[Annotated], tmp_path: Path) -> None:
    globox = pytest.importorskip("globox")
    corners = np.random.default_rng(0).integers(0, (20, 15), size=(6, 2)).astype(float)
    wanted = np.concatenate([corners, corners + np.array([15, 10])], 1).tolist()
    known = globox.AnnotationSet()
    for number, box in enumerate(wanted):
        name = f"{number}.png"
        save_picture(tmp_path / "images" / name)
        boxes = [globox.BoundingBox.create(label=("kakapo", "kea")[number % 2], coords=tuple(box))]
        known.add(globox.Annotation(name, (WIDTH, HEIGHT), boxes))
    if kind is Coco:
        known.save_coco(tmp_path / "coco.json", auto_ids=True)
    elif kind is LabelMe:
        known.save_labelme(tmp_path)
    elif kind is Cvat:
        known.save_cvat(tmp_path / "annotations.xml")
    else:
        known.save_yolo_v5(tmp_path / "labels", label_to_id={"kakapo": 0, "kea": 1})
        (tmp_path / "data.yaml").write_text("train: images\nnames: [kakapo, kea]\n")
    source = ready(kind, tmp_path)
    files = {Path(source.file(index)).name: index for index in source.indices("train")}
    for number, box in enumerate(wanted):
        sample = source.load(files[f"{number}.png"])
        assert sample["label"] == number % 2
        assert sample["part_boxes"][0].tolist() == pytest.approx(box, abs=1e-3)


def test_their_batches_are_complete(tmp_path: Path) -> None:
    data = PriorDataModule(LabelMe(str(pair_labelme(tmp_path))), batch_size=2, image_size=16, val_fraction=0)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert (batch["mask"].shape, batch["part_boxes"].shape, batch["keypoints"].shape) == (
        (2, 16, 16),
        (2, 1, 4),
        (2, 1, 2),
    )
