"""CUB-200-2011 in its real layout."""

from pathlib import Path

import pytest
import torch
from fake_data import BODY, HEAD, PARTS, SPECIES, edit

from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import CUB200
from lightning_priors.data.sources.cub200 import head_box
from lightning_priors.errors import PriorError


def test_species_are_the_primary_classes_without_a_target(cub: Path) -> None:
    source = CUB200(str(cub))
    source.setup()
    assert source.classes == SPECIES
    assert source.aux_classes == {}
    assert "aux_labels" not in source.load(0)
    assert [source.label(index) for index in range(12)] == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize("target", ["004.Groove_billed_Ani", "Groove_billed_Ani"])
def test_a_target_makes_the_species_auxiliary(cub: Path, target: str) -> None:
    source = CUB200(str(cub), target=target)
    source.setup()
    assert source.classes == ["004.Groove_billed_Ani", "other"]
    assert source.aux_classes == {"species": SPECIES}
    assert [source.label(index) for index in range(12)] == [1] * 4 + [0] * 4 + [1] * 4
    assert [source.load(index)["aux_labels"] for index in (0, 4, 8)] == [[0], [1], [2]]


def test_the_split_is_the_authors_and_validation_is_carved_from_training(cub: Path) -> None:
    data = PriorDataModule(CUB200(str(cub)), batch_size=2, image_size=16, val_fraction=0.5)
    data.setup()
    train, val, test = (data._datasets[split].indices for split in ("train", "val", "test"))
    assert sorted([*train, *val]) == [0, 1, 4, 5, 8, 9]
    assert [data.source.label(index) for index in val] == [0, 1, 2]
    assert test == [2, 3, 6, 7, 10, 11]


def test_the_folder_or_the_one_above_it_may_be_named(cub: Path) -> None:
    for root in (cub, cub.parent):
        source = CUB200(str(root))
        source.setup()
        assert source.load(3)["mask_valid"]


def test_parts_are_keypoints_with_visibility(cub: Path) -> None:
    source = CUB200(str(cub))
    source.setup()
    sample = source.load(5)
    assert source.keypoint_names == PARTS
    seen = {PARTS[part] for part in sample["keypoint_valid"].nonzero().flatten().tolist()}
    assert seen == {"beak", "nape", "crown", "left eye", "tail"}
    assert sample["keypoints"][PARTS.index("left eye")].tolist() == [16.0, 7.0]
    assert sample["keypoints"].shape == (15, 2)


def test_the_head_box_surrounds_the_parts_of_the_head(cub: Path) -> None:
    source = CUB200(str(cub), boxes=["bird", "head"], head_margin=0.1)
    source.setup()
    sample = source.load(0)
    assert source.part_names == ["bird", "head"]
    wanted = [list(BODY), [HEAD[0] - 1, HEAD[1] - 1, HEAD[2] + 1, HEAD[3] + 1]]  # a tenth of its longer side, ten
    assert sample["part_boxes"].tolist() == wanted
    assert sample["part_valid"].tolist() == [True, True]


def test_a_head_of_one_visible_part_has_no_box(cub: Path) -> None:
    for part in ("10 10.0 5.0", "5 14.0 5.0", "7 16.0 7.0"):
        edit(cub / "parts" / "part_locs.txt", f"1 {part} 1", f"1 {part} 0")
    source = CUB200(str(cub))
    source.setup()
    assert source.load(0)["part_valid"].tolist() == [False]
    assert source.load(1)["part_valid"].tolist() == [True]


def test_head_boxes_stay_inside_and_have_an_area() -> None:
    names = ["beak", "nape", "tail"]
    assert head_box({0: (2, 2), 1: (98, 50)}, names, 0.5, 100, 60) == [0, 0, 100, 60]
    assert head_box({0: (2, 2), 2: (98, 50)}, names, 0.5, 100, 60) is None
    assert head_box({0: (5, 5), 1: (5, 5)}, names, 0.5, 100, 60) is None
    assert head_box({0: (5, 5), 1: (9, 5)}, names, 0.25, 100, 60) == [4, 4, 10, 6]


@pytest.mark.parametrize(("masks", "levels"), [("soft", [0, 100 / 255]), ("hard", [0])])
def test_masks_are_the_agreement_of_annotators(cub: Path, masks: str, levels: list[float]) -> None:
    source = CUB200(str(cub), masks=masks)
    source.setup()
    torch.testing.assert_close(
        torch.as_tensor(source.load(0)["mask"]).unique(), torch.tensor(levels, dtype=torch.float32)
    )
    clear = source.load(1)["mask"]
    assert clear[0, BODY[1] : BODY[3], BODY[0] : BODY[2]].min() == 1
    assert clear.sum() == 22 * 22


def test_no_masks_are_read_where_none_are_wanted(cub: Path) -> None:
    (cub.parent / "segmentations").rename(cub.parent / "elsewhere")
    source = CUB200(str(cub), masks="none")
    source.setup()
    assert "mask" not in source.load(0)
    with pytest.raises(
        PriorError, match=r"no folder \S*segmentations: unpack segmentations.tgz there, or set masks: none"
    ):
        CUB200(str(cub)).setup()


@pytest.mark.parametrize("place", ["beside", "inside", "attributes"])
def test_attributes_are_binary_auxiliary_tasks(cub: Path, place: str) -> None:
    listed = cub.parent / "attributes.txt"
    target = {"beside": listed, "inside": cub / "attributes.txt", "attributes": cub / "attributes" / "attributes.txt"}
    listed.rename(target[place])
    source = CUB200(str(cub), target="American_Crow", attributes=["has_bill_shape", "has_head"])
    source.setup()
    assert list(source.aux_classes) == [
        "species",
        "has_bill_shape::curved_(up_or_down)",
        "has_bill_shape::cone",
        "has_head_pattern::spotted",
    ]
    assert source.aux_classes["has_bill_shape::cone"] == ["absent", "present"]
    # present alternates with image and attribute; of the third one every annotator says "not visible"
    assert source.load(0)["aux_labels"] == [0, 0, 1, -1]
    assert source.load(5)["aux_labels"] == [1, 1, 0, -1]


def test_attributes_without_a_target_are_the_only_auxiliary_tasks(cub: Path) -> None:
    source = CUB200(str(cub), attributes=["has_bill_shape::cone"])
    source.setup()
    assert list(source.aux_classes) == ["has_bill_shape::cone"]
    assert source.load(0)["aux_labels"] == [1]


def test_an_unknown_attribute_is_named(cub: Path) -> None:
    with pytest.raises(PriorError, match="no attribute 'has_bil_shap', did you mean 'has_bill_shape'"):
        CUB200(str(cub), attributes=["has_bil_shap"]).setup()


def test_an_unknown_target_is_named(cub: Path) -> None:
    with pytest.raises(PriorError, match=r"no class 'American_Crew' \(target\), did you mean '.*American_Crow'"):
        _ = CUB200(str(cub), target="American_Crew").classes


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("image_class_labels.txt", "3 1\n", "3 9\n", r"no class '9' \(row 3 of image_class_labels.txt\)"),
        ("image_class_labels.txt", "3 1\n", "", r"image_class_labels.txt has no class for .* \(row 3 of images.txt\)"),
        (
            "image_class_labels.txt",
            "3 1\n",
            "99 1\n",
            r"images.txt has no image 99 \(row 3 of image_class_labels.txt\)",
        ),
        (
            "bounding_boxes.txt",
            "2 8.0 4.0 22.0",
            "2 8.0 x 22.0",
            r"y in row 2 of bounding_boxes.txt is 'x', not a number",
        ),
        ("bounding_boxes.txt", "2 8.0 4.0 22.0 22.0", "2 8.0", r"row 2 of bounding_boxes.txt has 2 of 5 cells"),
        ("parts/part_locs.txt", "1 2 20.0", "1 77 20.0", r"no part '77' \(row 2 of part_locs.txt\)"),
        ("classes.txt", "2 004.Groove_billed_Ani", "2 001.Black_footed_Albatross", "the class .* occurs twice"),
    ],
)
def test_wrong_rows_are_named(cub: Path, name: str, old: str, new: str, message: str) -> None:
    edit(cub / name, old, new)
    with pytest.raises(PriorError, match=message):
        CUB200(str(cub)).setup()


@pytest.mark.parametrize("name", ["images.txt", "classes.txt", "parts/parts.txt", "bounding_boxes.txt"])
def test_missing_files_are_named(cub: Path, name: str) -> None:
    (cub / name).rename(cub / f"{name}.bak")
    with pytest.raises(PriorError, match=rf"no file \S*{name}: .* did you mean '.*{Path(name).name}.bak'"):
        CUB200(str(cub)).setup()


def test_a_box_outside_the_picture_is_named(cub: Path) -> None:
    edit(cub / "bounding_boxes.txt", "2 8.0 4.0 22.0 22.0", "2 8.0 4.0 92.0 22.0")
    source = CUB200(str(cub), boxes=["bird"])
    source.setup()
    with pytest.raises(PriorError, match=r"the box bird \(row 2 of images.txt\) lies outside its image of 40 x 30"):
        source.load(1)


def test_stampbirds_is_in_this_layout(shared_data: Path) -> None:
    source = CUB200(str(shared_data / "stampbirds"), boxes=["head", "bird"])
    source.setup()
    assert len(source.classes) == 35
    for index in (0, 777, 2399):
        sample = source.load(index)
        mask, (head, bird) = sample["mask"][0], sample["part_boxes"].tolist()
        rows, columns = (mask > 0).any(1).nonzero(), (mask > 0).any(0).nonzero()
        extent = [columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1]
        # the box is that of the pasted picture, whose border may be transparent
        torch.testing.assert_close(bird, [float(side) for side in extent], rtol=0, atol=8.0)
        assert bird[0] <= extent[0] <= extent[2] <= bird[2]
        assert sample["part_valid"].all()
        assert head[0] < head[2] <= 160


def test_each_image_is_a_file(cub: Path) -> None:
    source = CUB200(str(cub))
    assert all((cub / source.file(index)).is_file() for index in source.indices("train"))
