"""Small annotated data sets, written by hand in the form of each tool's export."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fake_data import SIZE, save_picture

WIDTH, HEIGHT = SIZE
BIRD = [8.0, 4.0, 22.0, 22.0]  # x, y, width, height
SQUARE = [[8.0, 4.0, 30.0, 4.0, 30.0, 26.0, 8.0, 26.0]]
HEAD = [10.0, 5.0, 10.0, 6.0]
CATEGORIES = [
    {"id": 2, "name": "kakapo", "supercategory": "parrot"},
    {"id": 5, "name": "kea", "supercategory": "parrot"},
    {"id": 90, "name": "takahe", "supercategory": "rail"},
    {"id": 91, "name": "head", "supercategory": "part"},
]
KAKAPO, KEA, TAKAHE, HEAD_ID = 2, 5, 90, 91


def image(identity: int, name: str, **further: Any) -> dict[str, Any]:
    return {"id": identity, "file_name": name, "width": WIDTH, "height": HEIGHT, **further}


def annotation(identity: int, image_id: int, category_id: int, **further: Any) -> dict[str, Any]:
    return {"id": identity, "image_id": image_id, "category_id": category_id, **further}


def write_coco(
    path: Path,
    images: Sequence[dict[str, Any]],
    annotations: Sequence[dict[str, Any]],
    categories: Sequence[dict[str, Any]] = CATEGORIES,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"images": list(images), "annotations": list(annotations), "categories": list(categories)})
    )
    return path


def coco_files(root: Path) -> Path:
    """One file with five pictures in ``images/``: a polygon, a box, a mask, a tag, and nothing."""
    for number, name in enumerate("abcde"):
        save_picture(root / "images" / f"{name}.jpg", level=20 * number)
    counts = [8 * HEIGHT + 4]  # columns of 22 pixels inside
    for _ in range(22):
        counts += [22, HEIGHT - 22]
    counts[-1] = WIDTH * HEIGHT - sum(counts[:-1])
    write_coco(
        root / "birds.json",
        [image(number, f"{name}.jpg") for number, name in enumerate("abcde", 10)],
        [
            annotation(1, 10, KAKAPO, bbox=BIRD, segmentation=SQUARE, iscrowd=0, attributes={"sex": "f"}),
            annotation(2, 10, HEAD_ID, bbox=HEAD, segmentation=[]),
            annotation(3, 11, KEA, bbox=BIRD, segmentation=[], attributes={"sex": "m"}),
            annotation(4, 12, KEA, bbox=BIRD, segmentation={"size": [HEIGHT, WIDTH], "counts": counts}),
            annotation(5, 13, TAKAHE),
        ],
    )
    return root


def roboflow(root: Path) -> Path:
    """``_annotations.coco.json`` among the pictures of each split; category 0 is the project's own name."""
    categories = [
        {"id": 0, "name": "birds", "supercategory": "none"},
        {"id": 1, "name": "kakapo", "supercategory": "birds"},
        {"id": 2, "name": "kea", "supercategory": "birds"},
    ]
    for split, count in {"train": 4, "valid": 2, "test": 2}.items():
        names = [f"{split}{number}_jpg.rf.0a1b.jpg" for number in range(count)]
        for name in names:
            save_picture(root / split / name)
        write_coco(
            root / split / "_annotations.coco.json",
            [
                image(i, name, license=1, date_captured="2024-01-01", extra={"name": name})
                for i, name in enumerate(names)
            ],
            [annotation(i, i, 1 + i % 2, bbox=BIRD, area=484, segmentation=SQUARE, iscrowd=0) for i in range(count)],
            categories,
        )
    return root


def fiftyone(root: Path) -> Path:
    """``labels.json`` and ``data/``; attributes stand beside the other entries, and there is no supercategory."""
    for number in range(2):
        save_picture(root / "data" / f"{number:06d}.jpg")
    write_coco(
        root / "labels.json",
        [image(i + 1, f"{i:06d}.jpg", license=None, coco_url=None) for i in range(2)],
        [
            annotation(i + 1, i + 1, i, bbox=BIRD, area=484, segmentation=SQUARE, iscrowd=0, sex="fm"[i], score=0.5)
            for i in range(2)
        ],
        [{"id": i, "name": name, "supercategory": None} for i, name in enumerate(("kakapo", "kea"))],
    )
    return root


def cvat_coco(root: Path) -> Path:
    """``annotations/instances_default.json`` and ``images/default/``, with run lengths and attributes."""
    for name in ("a.jpg", "walk/b.jpg"):
        save_picture(root / "images" / "default" / name)
    mask = {"counts": [0, WIDTH * HEIGHT], "size": [HEIGHT, WIDTH]}
    write_coco(
        root / "annotations" / "instances_default.json",
        [
            image(1, "a.jpg", license=0, flickr_url="", coco_url="", date_captured=0),
            image(2, "walk/b.jpg", license=0, flickr_url="", coco_url="", date_captured=0),
        ],
        [
            annotation(1, 1, 1, segmentation=SQUARE, area=484.0, bbox=BIRD, iscrowd=0, attributes={"occluded": False}),
            annotation(2, 2, 2, segmentation=mask, area=1200.0, bbox=[0, 0, WIDTH, HEIGHT], iscrowd=1,
                       attributes={"occluded": True, "rotation": 0.0}),
        ],
        [{"id": i, "name": name, "supercategory": ""} for i, name in enumerate(("kakapo", "kea"), 1)],
    )  # fmt: skip
    return root


def label_studio_coco(root: Path) -> Path:
    """``result.json`` and ``images/``, in whose names Windows leaves its own separator."""
    for name in ("3f2504e0-a.jpg", "b.jpg"):
        save_picture(root / "images" / name)
    write_coco(
        root / "result.json",
        [image(0, "images\\3f2504e0-a.jpg"), image(1, "../../data/media/upload/1/b.jpg")],
        [annotation(i, i, i, segmentation=SQUARE, bbox=BIRD, ignore=0, iscrowd=0, area=484) for i in range(2)],
        [{"id": i, "name": name} for i, name in enumerate(("kakapo", "kea"))],
    )
    return root


def pair(root: Path, folder: str = "images") -> Path:
    """Two pictures: a kakapo with an outline and its beak at (16, 7), and a kea with a box."""
    for number, name in enumerate("ab"):
        save_picture(root / folder / f"{name}.png", level=30 * number)
    return root


def pair_yolo(root: Path) -> Path:
    write_yolo_labels(pair(root, "images/train") / "labels" / "train", SQUARE[0])
    (root / "data.yaml").write_text("train: images/train\nnc: 2\nnames:\n  0: kakapo\n  1: kea\n")
    return root


def write_yolo_labels(folder: Path, corners: Sequence[float]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shares = [value / (HEIGHT if place % 2 else WIDTH) for place, value in enumerate(corners)]
    (folder / "a.txt").write_text("0 " + " ".join(map(str, shares)) + "\n")
    (folder / "b.txt").write_text(f"1 {19 / WIDTH} {15 / HEIGHT} {22 / WIDTH} {22 / HEIGHT}\n")


def pair_labelme(root: Path) -> Path:
    corners = [[8.0, 4.0], [30.0, 4.0], [30.0, 26.0], [8.0, 26.0]]
    shapes = {
        "a": [
            {"label": "kakapo", "points": corners, "group_id": None, "shape_type": "polygon", "flags": {"tame": True}},
            {"label": "beak", "points": [[16.0, 7.0]], "group_id": None, "shape_type": "point", "flags": {}},
            {"label": "branch", "points": [[0, 0], [9, 9]], "group_id": None, "shape_type": "line", "flags": {}},
        ],
        "b": [{"label": "kea", "points": [[30.0, 4.0], [8.0, 26.0]], "shape_type": "rectangle", "flags": {}}],
    }
    for name, drawn in shapes.items():
        content = {"version": "5.4.1", "flags": {}, "shapes": drawn, "imagePath": f"{name}.png", "imageData": None}
        pair(root, ".")
        (root / f"{name}.json").write_text(json.dumps({**content, "imageHeight": HEIGHT, "imageWidth": WIDTH}))
    return root


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
  <meta><task><name>birds</name><labels>
    <label><name>kakapo</name></label><label><name>kea</name></label><label><name>beak</name></label>
  </labels></task></meta>
  <image id="0" name="a.png" subset="default" task_id="1" width="40" height="30">
    <polygon label="kakapo" source="manual" occluded="0" points="8.00,4.00;30.00,4.00;30.00,26.00;8.00,26.00"
      z_order="0"><attribute name="tame">true</attribute></polygon>
    <points label="beak" source="manual" occluded="0" points="16.00,7.00" z_order="0"></points>
    <polyline label="branch" points="0,0;9,9"></polyline>
  </image>
  <image id="1" name="b.png" subset="default" task_id="1" width="40" height="30">
    <box label="kea" source="manual" occluded="0" xtl="8.00" ytl="4.00" xbr="30.00" ybr="26.00" z_order="0"></box>
  </image>
</annotations>
"""


def pair_cvat(root: Path) -> Path:
    (pair(root) / "annotations.xml").write_text(CVAT)
    return root


def studio_task(identity: int, name: str, *result: dict[str, Any], **further: Any) -> dict[str, Any]:
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "to_name": "image"}
    entries = [{**size, **entry} if {"x", "points"} & set(entry["value"]) else entry for entry in result]
    annotations = [{"id": identity, "was_cancelled": False, "ground_truth": False, "result": entries}]
    data = {"image": f"/data/upload/1/3f2504e0-{name}", "place": "alps"}
    return {"id": identity, "annotations": annotations, "predictions": [], "data": data, **further}


def studio_entry(identity: str, kind: str, **value: Any) -> dict[str, Any]:
    return {"id": identity, "type": kind, "from_name": "label", "value": value}


STUDIO_BOX = {"x": 100 * 8 / WIDTH, "y": 100 * 4 / HEIGHT, "width": 100 * 22 / WIDTH, "height": 100 * 22 / HEIGHT}


def pair_label_studio(root: Path) -> Path:
    corners = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in ((8, 4), (30, 4), (30, 26), (8, 26))]
    beak = {"x": 100 * 16 / WIDTH, "y": 100 * 7 / HEIGHT, "width": 0.5}
    tasks = [
        studio_task(
            1,
            "a.png",
            studio_entry("k", "polygonlabels", points=corners, closed=True, polygonlabels=["kakapo"]),
            {"id": "k", "type": "choices", "from_name": "tame", "value": {**beak, "choices": ["true"]}},
            studio_entry("b", "keypointlabels", **beak, keypointlabels=["beak"]),
        ),
        studio_task(2, "b.png", studio_entry("r", "rectanglelabels", **STUDIO_BOX, rectanglelabels=["kea"])),
    ]
    (pair(root) / "project-1-at-2024.json").write_text(json.dumps(tasks))
    return root
