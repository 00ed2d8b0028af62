"""COCO annotations: what pycocotools and the eye say of them, the tools' layouts, and mistakes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from annotation_files import (
    BIRD,
    HEIGHT,
    KAKAPO,
    KEA,
    SQUARE,
    TAKAHE,
    WIDTH,
    annotation,
    coco_files,
    cvat_coco,
    fiftyone,
    image,
    label_studio_coco,
    roboflow,
    write_coco,
)
from coco_export import export_coco
from fake_data import save_picture
from PIL import Image
from pycocotools.coco import COCO

from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import Coco, Kakapo, Source, UnreadableImageError, Waterbirds
from lightning_priors.errors import PriorError


def ready(root: Path, **options: Any) -> Coco:
    source = Coco(str(root), **options)
    source.setup()
    return source


def names(source: Coco) -> list[str]:
    return [source.classes[source.label(index)] for index in source.indices("train")]


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    return coco_files(tmp_path / "birds")


def edited(root: Path, change: Callable[[dict[str, Any]], object], file: str = "birds.json") -> Path:
    content = json.loads((root / file).read_text())
    change(content)
    (root / file).write_text(json.dumps(content))
    return root


# ---- classes, targets and further labels


def test_the_class_is_the_category_of_the_annotations_in_the_order_of_the_ids(birds: Path) -> None:
    source = ready(birds, parts=["head"])
    assert source.classes == ["kakapo", "kea", "takahe"]
    assert names(source) == ["kakapo", "kea", "kea", "takahe"]


def test_masks_boxes_and_parts_are_where_they_were_drawn(birds: Path) -> None:
    source = ready(birds, parts=["head", "target"])
    polygon, box, mask, tag = (source.load(index) for index in range(4))
    square = torch.zeros(1, HEIGHT, WIDTH)
    square[:, 4:26, 8:30] = 1
    assert torch.equal(polygon["mask"], square)
    assert torch.equal(mask["mask"], square)
    assert [sample["mask_valid"] for sample in (polygon, box, mask, tag)] == [True, False, True, False]
    assert not box["mask"].any()
    assert polygon["part_boxes"].tolist() == [[10, 5, 20, 11], [8, 4, 30, 26]]
    assert [sample["part_valid"].tolist() for sample in (box, mask, tag)] == [
        [False, True],
        [False, True],
        [False, False],
    ]


def test_the_target_has_a_box_by_default(birds: Path) -> None:
    source = ready(birds, classes=["kakapo", "kea", "takahe"])
    assert source.part_names == ["target"]
    assert source.load(0)["part_boxes"].tolist() == [[8, 4, 30, 26]]


def test_masks_are_those_of_pycocotools(tmp_path: Path) -> None:
    """Polygons with holes between them, run lengths in both forms, several annotations and a crowd."""
    rng = np.random.default_rng(0)
    polygons = [[(rng.random((5, 2)) * [WIDTH, HEIGHT]).ravel().tolist() for _ in range(2)] for _ in range(4)]
    entries = [
        annotation(i, i % 3, 1 + i % 2, segmentation=p, bbox=[0, 0, 9, 9], iscrowd=0, area=1)
        for i, p in enumerate(polygons)
    ]
    counts = {"size": [HEIGHT, WIDTH], "counts": [5, 100, WIDTH * HEIGHT - 105]}
    entries.append(annotation(4, 1, 2, segmentation=counts, bbox=[0, 0, 4, 30], iscrowd=1, area=100))
    entries[3]["category_id"] = 1
    for number in range(3):
        save_picture(tmp_path / f"{number}.png")
    path = write_coco(
        tmp_path / "any.json",
        [image(i, f"{i}.png") for i in range(3)],
        entries,
        [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    )
    source, oracle = ready(tmp_path), COCO(str(path))
    for index in range(3):
        drawn = [oracle.annToMask(entry) for entry in oracle.loadAnns(oracle.getAnnIds(imgIds=index))]
        assert np.array_equal(source.load(index)["mask"][0].numpy(), np.maximum.reduce(drawn))


def test_a_crowd_is_in_the_mask_but_not_in_the_box(birds: Path) -> None:
    crowd = {"size": [HEIGHT, WIDTH], "counts": [0, WIDTH * HEIGHT]}
    edited(birds, lambda c: c["annotations"].append(
        annotation(9, 10, KAKAPO, segmentation=crowd, bbox=[0, 0, WIDTH, HEIGHT], iscrowd=1)
    ))  # fmt: skip
    sample = ready(birds, parts=["head", "target"]).load(0)
    assert sample["mask"].all()
    assert sample["part_boxes"][1].tolist() == [8, 4, 30, 26]


def test_a_target_of_which_one_has_no_outline_has_no_mask_and_a_box_around_all(birds: Path) -> None:
    edited(birds, lambda c: c["annotations"].append(annotation(9, 10, KAKAPO, bbox=[30, 20, 5, 5])))
    sample = ready(birds, parts=["head", "target"]).load(0)
    assert not sample["mask_valid"]
    assert not sample["mask"].any()
    assert sample["part_boxes"][1].tolist() == [8, 4, 35, 26]


def test_keypoints_are_those_that_are_labelled(tmp_path: Path) -> None:
    for name in "ab":
        save_picture(tmp_path / f"{name}.png")
    kinds = [
        {"id": i, "name": name, "keypoints": ["beak", "left eye", "tail"]} for i, name in enumerate(("cat", "dog"))
    ]
    write_coco(
        tmp_path / "points.json",
        [image(0, "a.png"), image(1, "b.png")],
        [
            annotation(0, 0, 0, bbox=BIRD, keypoints=[10, 5, 2, 12.5, 6, 1, 0, 0, 0], num_keypoints=2),
            annotation(1, 1, 1, bbox=BIRD),
        ],
        kinds,
    )
    source = ready(tmp_path)
    assert source.keypoint_names == ["beak", "left eye", "tail"]
    assert source.load(0)["keypoints"].tolist() == [[10, 5], [12.5, 6], [0, 0]]
    assert source.load(0)["keypoint_valid"].tolist() == [True, True, False]
    assert not source.load(1)["keypoint_valid"].any()


def test_a_tag_goes_before_what_lies_in_the_picture(birds: Path) -> None:
    edited(birds, lambda c: c["annotations"].append(annotation(9, 10, TAKAHE)))
    source = ready(birds, parts=["head"])
    assert names(source)[0] == "takahe"
    assert source.load(0)["mask_valid"], "nothing else is a kakapo, so that it is no class, and marks the target"
    edited(birds, lambda c: c["annotations"].append(annotation(10, 14, KAKAPO)))
    assert not ready(birds, parts=["head"]).load(0)["mask_valid"], "the mask is of another class"


def test_one_class_against_all_others_has_targets_and_finer_labels_for_all(birds: Path) -> None:
    source = ready(birds, classes=["kakapo"], background="other", parts=["head", "target"], aux=["category"])
    assert source.classes == ["kakapo", "other"]
    assert [source.load(index)["aux_labels"] for index in range(5)] == [[0], [1], [1], [2], [-1]]
    assert [source.load(index)["part_valid"][1].item() for index in range(5)] == [True, True, True, False, False]


def test_the_supercategory_is_the_class_and_the_category_the_finer_label(birds: Path) -> None:
    source = ready(birds, label="supercategory", aux=["category"], parts=["head"])
    assert source.classes == ["parrot", "rail"]
    assert source.aux_classes == {"category": ["kakapo", "kea", "takahe"]}
    assert [source.load(index)["aux_labels"] for index in range(4)] == [[0], [1], [1], [2]]
    assert source.load(0)["mask_valid"]


def test_a_picture_that_says_several_things_has_no_auxiliary_label(birds: Path) -> None:
    edited(birds, lambda c: c["annotations"].append(annotation(9, 10, KEA, bbox=[1, 1, 3, 3])))
    source = ready(birds, label="supercategory", aux=["category"], parts=["head"])
    assert [source.load(index)["aux_labels"] for index in (0, 1)] == [[-1], [1]]


def test_attributes_are_labels_of_any_kind(birds: Path) -> None:
    def add_place(content: dict[str, Any]) -> None:
        for entry, place in zip(content["images"], ("forest", "alps", "alps", "forest", "alps"), strict=True):
            entry["place"] = place

    source = ready(edited(birds, add_place), parts=["head"], aux=["sex", "place"], group="place")
    assert source.aux_classes == {"sex": ["f", "m"], "place": ["alps", "forest"]}
    assert [source.load(index)["aux_labels"] for index in range(4)] == [[0, 1], [1, 0], [-1, 0], [-1, 1]]
    assert [source.load(index)["group"] for index in range(4)] == [1, 0, 0, 1]
    by_sex = ready(birds, label="sex")
    assert (by_sex.classes, names(by_sex)) == (["f", "m"], ["f", "m"])


def test_classes_by_an_attribute_may_be_listed_too(birds: Path) -> None:
    edited(birds, lambda c: [entry.update(place="forest" if entry["id"] > 12 else "alps") for entry in c["images"]])
    source = ready(birds, label="place", classes=["forest"], background="elsewhere", parts=["head"])
    assert names(source) == ["elsewhere"] * 3 + ["forest"] * 2
    assert source.load(0)["mask_valid"]


def test_an_unclear_group_is_named(birds: Path) -> None:
    with pytest.raises(PriorError, match=r"the group of images/c.jpg \(image 12 of birds.json\) is unclear"):
        ready(birds, parts=["head"], group="sex")


def test_pictures_without_a_class_are_left_out_or_background(birds: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    ready(birds, parts=["head"])
    assert "left out 1 of 5 pictures with no category, such as images/e.jpg (background gives" in caplog.text
    source = ready(birds, classes=["kakapo"], background="other")
    assert source.classes == ["kakapo", "other"]
    assert names(source) == ["kakapo", "other", "other", "other", "other"]


def test_several_classes_in_one_picture_are_refused_or_decided(birds: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(
        PriorError,
        match=r"images/a.jpg \(image 10 of birds.json\) has 2 classes: kakapo, head; set classes, .* or label \(sex\)$",
    ):
        ready(birds)
    assert names(ready(birds, on_several_classes="largest"))[0] == "kakapo"
    caplog.set_level("INFO")
    assert len(names(ready(birds, on_several_classes="skip"))) == 3
    assert "left out 1 of 5 pictures with several classes, such as images/a.jpg (on_several_classes)" in caplog.text


def test_other_categories_may_be_the_target(birds: Path) -> None:
    source = ready(birds, classes=["kakapo", "kea"], target=["head"])
    assert source.load(0)["part_boxes"].tolist() == [[10, 5, 20, 11]]
    assert not source.load(1)["part_valid"].any()


def test_one_class_alone_is_no_task(birds: Path) -> None:
    with pytest.raises(
        PriorError, match=r"have the class kakapo, and two are needed; set background, .* or label \(sex\)"
    ):
        ready(birds, classes=["kakapo"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["kakapoo", "kea"]}, "no category 'kakapoo' .*, did you mean 'kakapo'"),
        ({"parts": ["haed"]}, "no category 'haed' .*, did you mean 'head'"),
        ({"target": ["Kea"]}, "no category 'Kea' .*, did you mean 'kea'"),
        ({"label": "sexx"}, "no attribute 'sexx' .*, did you mean 'sex'"),
        ({"aux": ["categories"]}, "no attribute 'categories' .*, did you mean 'category'"),
        ({"group": "place"}, "no attribute 'place' .*, choose from category, supercategory, sex"),
        ({"on_several_classes": "larges"}, "no on_several_classes 'larges' .* did you mean 'largest'"),
        ({"annotations": "bird.json"}, "no file .*bird.json: .* did you mean 'birds.json'"),
        ({"images": "pictures"}, r"no picture pictures/a.jpg \(image 10 of birds.json\) in .*; set images"),
        ({"split_table": "splits.csv"}, "no file .*splits.csv"),
    ],
)
def test_wrong_options_are_named(birds: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PriorError, match=message):
        ready(birds, **{"parts": ["head"], **options})


# ---- splits


def test_each_split_may_have_its_file(birds: Path) -> None:
    for name, kept in (("train", (10, 11)), ("val", (12,)), ("test", (13, 14))):
        content = json.loads((birds / "birds.json").read_text())
        content["images"] = [entry for entry in content["images"] if entry["id"] in kept]
        content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in kept]
        (birds / f"birds_{name}.json").write_text(json.dumps(content))
    (birds / "birds.json").unlink()
    files = {name: f"birds_{name}.json" for name in ("train", "val", "test")}
    for source in (ready(birds, parts=["head"]), ready(birds, parts=["head"], annotations=files)):
        assert [len(source.indices(split)) for split in ("train", "val", "test")] == [2, 1, 1]


def test_the_split_may_stand_in_an_attribute_or_a_table(birds: Path) -> None:
    def add(content: dict[str, Any]) -> None:
        for entry, split in zip(content["images"], ("Train", "train", "valid", "test", "test"), strict=True):
            entry["split"] = split

    wanted = [[0, 1], [2], [3]]
    (birds / "splits.csv").write_text("path,split\na.jpg,train\nimages/b.jpg,train\nc.jpg,val\nd.jpg,test\ne.jpg,val\n")
    source = ready(birds, parts=["head"], split_table="splits.csv", background="none")
    assert [source.indices(split) for split in ("train", "val", "test")] == [[0, 1], [2, 4], [3]]
    source = ready(edited(birds, add), parts=["head"])
    assert [source.indices(split) for split in ("train", "val", "test")] == wanted


def test_a_picture_without_a_split_is_named(birds: Path) -> None:
    (birds / "splits.csv").write_text("path,split\na.jpg,train\n")
    with pytest.raises(PriorError, match=r"3 pictures are in no split, such as images/b.jpg"):
        ready(birds, parts=["head"], split_table="splits.csv")
    (birds / "splits.csv").write_text("path,split\naa.jpg,train\n")
    with pytest.raises(PriorError, match=r"no annotated picture 'aa.jpg' \(row 2 of splits.csv\)"):
        ready(birds, parts=["head"], split_table="splits.csv")


def test_without_splits_the_data_module_sets_pictures_aside(birds: Path) -> None:
    data = PriorDataModule(ready(birds, classes=["kakapo", "kea"], background="other"), val_fraction=0.5, image_size=16)
    data.setup("fit")
    assert len(data._datasets["val"]) == 2


# ---- what tools write


@pytest.mark.parametrize("write", [fiftyone, cvat_coco, label_studio_coco])
def test_the_folder_that_a_tool_exports_is_enough(write: Callable[[Path], Path], tmp_path: Path) -> None:
    source = ready(write(tmp_path / "export"))
    assert source.classes == ["kakapo", "kea"]
    for index in source.indices("train"):
        sample = source.load(index)
        assert sample["image"].shape == (3, HEIGHT, WIDTH)
        assert sample["mask"].sum() == (22 * 22 if index == 0 or write is not cvat_coco else WIDTH * HEIGHT)


def test_roboflow_has_a_file_in_each_splits_folder(tmp_path: Path) -> None:
    source = ready(roboflow(tmp_path / "export"))
    assert source.classes == ["kakapo", "kea"], "the project's own name is no class"
    assert [len(source.indices(split)) for split in ("train", "val", "test")] == [4, 2, 2]
    assert source.file(source.indices("val")[0]).startswith("valid/")
    data = PriorDataModule(source, batch_size=2, image_size=16, augmentation="none")
    data.setup()
    assert next(iter(data.train_dataloader()))["mask_valid"].all()


def test_fiftyone_writes_attributes_beside_the_other_entries(tmp_path: Path) -> None:
    source = ready(fiftyone(tmp_path), aux=["sex"])
    assert source.aux_classes == {"sex": ["f", "m"]}


# ---- files, sizes and rotation


def test_the_size_in_the_file_tells_whether_the_picture_was_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees to the right: stored 40 x 30, seen 30 x 40
    stored = np.zeros((30, 40, 3), np.uint8)
    stored[:, :20] = 200
    for name in ("seen", "stored", "unknown"):
        Image.fromarray(stored).save(tmp_path / f"{name}.png", exif=exif)
    sizes: dict[str, dict[str, Any]] = {
        "seen": {"width": 30, "height": 40},
        "stored": {"width": 40, "height": 30},
        "unknown": {"width": None, "height": None},
    }
    write_coco(
        tmp_path / "a.json",
        [{**image(i, f"{name}.png"), **size} for i, (name, size) in enumerate(sizes.items())],
        [annotation(i, i, 1 + i % 2, bbox=[1, 1, 5, 5]) for i in range(3)],
        [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    )
    seen, flat, unknown = (ready(tmp_path).load(index)["image"] for index in range(3))
    assert (seen.shape, flat.shape, unknown.shape) == ((3, 40, 30), (3, 30, 40), (3, 40, 30))
    assert seen[0, :20].min() == 200, "the left half has become the upper half"
    assert seen[0, 20:].max() == 0
    assert flat[0, :, :20].min() == 200
    edited(tmp_path, lambda c: c["images"][0].update(width=99), "a.json")
    with pytest.raises(PriorError, match=r"seen.png is 40 x 30, but it was annotated at 99 x 40 \(image 0 of a.json\)"):
        ready(tmp_path).load(0)


def test_a_missing_picture_is_an_unreadable_one(birds: Path) -> None:
    (birds / "images" / "b.jpg").unlink()
    source = ready(birds, parts=["head"])
    with pytest.raises(UnreadableImageError, match=r"no file \S*images/b.jpg \(image 11 of birds.json\)"):
        source.load(1)
    data = PriorDataModule(source, on_bad_image="skip", val_fraction=0)
    data.setup("fit")
    assert list(data.unreadable) == [1]


def test_places_without_area_are_left_out_and_said(birds: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    edited(birds, lambda c: c["annotations"].extend([
        annotation(9, 10, KEA, bbox=[5, 5, 0, 4]),
        annotation(10, 10, KAKAPO, segmentation=[SQUARE[0], [1, 2, 3, 4]], bbox=[0, 0, 0, 0]),
    ]))  # fmt: skip
    sample = ready(birds, parts=["head"]).load(0)
    assert "left out 1 annotations whose place has no area, such as annotation 9 of birds.json" in caplog.text
    assert sample["mask"].sum() == 22 * 22


def broken(kind: str) -> Callable[[dict[str, Any]], object]:
    mask = {"size": [HEIGHT, WIDTH], "counts": [4, 5]}
    return {
        "image id": lambda c: c["images"].append(image(10, "e.jpg")),
        "annotation id": lambda c: c["annotations"].append(annotation(1, 10, KEA)),
        "category id": lambda c: c["categories"].append({"id": KEA, "name": "emu"}),
        "unknown image": lambda c: c["annotations"][0].update(image_id=77),
        "unknown category": lambda c: c["annotations"][0].update(category_id=3),
        "twice": lambda c: c["images"].append(image(77, "a.jpg")),
        "no list": lambda c: c.pop("images"),
        "box": lambda c: c["annotations"][2].update(bbox=[1, 2, 3]),
        "polygon": lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
        "mask": lambda c: c["annotations"][0].update(segmentation={"file": "a.png"}),
        "counts": lambda c: c["annotations"][0].update(segmentation=mask),
        "size": lambda c: c["annotations"][0].update(segmentation={"size": [8, 8], "counts": [64]}),
        "points": lambda c: c["annotations"][0].update(keypoints=[1, 2, 2]),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("image id", "two entries of .*birds.json are image 10"),
        ("annotation id", "two entries of .*birds.json are annotation 1$"),
        ("category id", "two entries of .*birds.json are category 5"),
        ("unknown image", "annotation 1 of birds.json has the image_id 77, which .*birds.json does not have"),
        ("unknown category", "annotation 1 of birds.json has the category_id 3, which"),
        ("twice", "images/a.jpg is annotated twice: image 10 of birds.json and image 77 of birds.json"),
        ("no list", "birds.json is no COCO file: it has no list 'images', but annotations, categories"),
        ("box", "bbox of annotation 3 of birds.json has 3 numbers, but x, y, width, height"),
        ("polygon", "segmentation of annotation 1 of birds.json is neither"),
        ("mask", "segmentation of annotation 1 of birds.json has no size and counts, but file"),
        ("counts", "the mask of image 10 of birds.json is broken: its counts add up to 9, not to 1200"),
        ("size", "the mask of image 10 of birds.json is 8 x 8, its image 40 x 30"),
        ("points", "keypoints of annotation 1 of birds.json are 3 numbers, not three for each of 0 names"),
    ],
)
def test_a_file_that_contradicts_itself_is_named(birds: Path, kind: str, message: str) -> None:
    edited(birds, broken(kind))
    with pytest.raises(PriorError, match=message):
        ready(birds, parts=["head"]).load(0)


def test_a_file_that_is_no_json_is_named(birds: Path) -> None:
    (birds / "birds.json").write_text('{"images": [')
    with pytest.raises(PriorError, match=r"birds.json is no JSON: Expecting value at character"):
        ready(birds)


# ---- there and back


def species(source: Source, sample: Any) -> str:
    return source.aux_classes["species"][sample["aux_labels"][0]]


def test_drawn_birds_come_back_from_a_coco_export(tmp_path: Path) -> None:
    kakapo = Kakapo(size=32)
    indices = {split: kakapo.indices(split)[:4] for split in ("train", "val", "test")}
    options = {"classes": kakapo.classes, "parts": kakapo.part_names, "aux": list(kakapo.aux_classes)}
    source = ready(export_coco(kakapo, tmp_path, indices), **options)
    for split, chosen in indices.items():
        for mine, original in zip(source.indices(split), chosen, strict=True):
            one, other = source.load(mine), kakapo.load(original)
            assert (
                source.aux_classes["species"][one["aux_labels"][0]]
                == kakapo.aux_classes["species"][other["aux_labels"][0]]
            )
            assert torch.equal(one["image"], other["image"])
            assert torch.equal(one["mask"], (other["mask"] >= 0.5).float())
            assert torch.allclose(one["part_boxes"], other["part_boxes"])


def test_stampbirds_come_back_from_a_coco_export(shared_data: Path, tmp_path: Path) -> None:
    """60 photographs: the batches are those of the source itself."""
    birds = Waterbirds(str(shared_data / "stampbirds"), masks="hard")
    birds.setup()
    indices = {
        split: birds.indices(split)[:: len(birds.indices(split)) // 20][:20] for split in ("train", "val", "test")
    }
    source = ready(
        export_coco(birds, tmp_path, indices),
        classes=birds.classes,
        parts=birds.part_names,
        aux=["species"],
        group="group",
    )
    assert source.group_names == birds.group_names
    assert source.keypoint_names == birds.keypoint_names
    modules = [PriorDataModule(each, batch_size=20, image_size=64, augmentation="none") for each in (birds, source)]
    for module in modules:
        module.setup()
    for split, chosen in indices.items():
        for mine, original in zip(source.indices(split), chosen, strict=True):
            one, other = (module._datasets[split] for module in modules)
            one = one[list(one.indices).index(original)]
            other = other[list(other.indices).index(mine)]
            assert species(birds, one) == species(source, other)
            for key in ("aux_labels", "index"):
                del one[key], other[key]
            torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
