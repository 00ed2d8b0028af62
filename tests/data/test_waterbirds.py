"""Waterbirds in its real layout, alone and joined with CUB-200-2011."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from fake_data import HEAD, PARTS, SPECIES, edit, save_mask, write_lines

from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import Waterbirds
from lightning_priors.errors import PriorError


def test_labels_groups_and_splits_come_from_the_metadata(waterbirds: Path) -> None:
    source = Waterbirds(str(waterbirds))
    source.setup()
    assert [source.indices(split) for split in ("train", "val", "test")] == [[0, 1, 4, 5], [2, 6], [3, 7]]
    assert source.classes == ["landbird", "waterbird"]
    assert [source.label(index) for index in range(8)] == [1] * 4 + [0] * 4
    assert [source.load(index)["group"] for index in range(8)] == [2, 3, 2, 3, 0, 1, 0, 1]
    assert source.group_names == ["landbird on land", "landbird on water", "waterbird on land", "waterbird on water"]
    assert source.aux_classes == {"species": SPECIES[:2]}
    assert [source.load(index)["aux_labels"] for index in (0, 4)] == [[0], [1]]


def test_without_a_cub_folder_there_are_no_priors(waterbirds: Path) -> None:
    source = Waterbirds(str(waterbirds))
    source.setup()
    assert set(source.load(0)) == {"image", "label", "group", "aux_labels"}
    assert (source.part_names, source.keypoint_names) == ([], [])


def test_priors_are_joined_by_the_name_of_the_file(waterbirds: Path, cub: Path) -> None:
    lines = (waterbirds / "metadata.csv").read_text().splitlines()
    write_lines(waterbirds / "metadata.csv", [lines[0], *reversed(lines[1:])])  # another order than in CUB-200-2011
    source = Waterbirds(str(waterbirds), cub_root=str(cub), masks="hard", head_margin=0.0)
    source.setup()
    assert (source.part_names, source.keypoint_names) == (["head"], PARTS)
    # the first image of each species has a mask that few annotators agreed on
    assert [bool(source.load(index)["mask"].any()) for index in range(8)] == [True, True, True, False] * 2
    assert source.load(0)["part_boxes"].tolist() == [list(HEAD)]
    assert source.load(0)["keypoint_valid"].sum() == 5


def test_a_cub_folder_inside_is_found(waterbirds: Path, cub: Path) -> None:
    cub.rename(waterbirds / "CUB_200_2011")
    source = Waterbirds(str(waterbirds), masks="none", boxes=["bird"])
    source.setup()
    sample = source.load(0)
    assert "mask" not in sample
    assert sample["part_boxes"].tolist() == [[8.0, 4.0, 30.0, 26.0]]


def test_head_boxes_of_the_root_come_first(waterbirds: Path, cub: Path) -> None:
    write_lines(waterbirds / "head_boxes.csv", ["img_id,x0,y0,x1,y1", "1,3,4,9,8.5", "3,0,0,90,9"])
    source = Waterbirds(str(waterbirds), cub_root=str(cub), boxes=["bird", "head"])
    source.setup()
    first, second = source.load(0), source.load(1)
    assert first["part_boxes"][1].tolist() == [3.0, 4.0, 9.0, 8.5]
    assert second["part_valid"].tolist() == [True, False]
    with pytest.raises(
        PriorError, match=r"the box head \(row 4 of metadata.csv, img_id 3 of head_boxes.csv\) lies outside"
    ):
        source.load(2)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",1,0,0,/o", ",2,0,0,/o", r"no label y '2' \(row 2 of metadata.csv\), choose from 0, 1"),
        (",1,0,0,/o", ",1,3,0,/o", r"no split '3' \(row 2 of metadata.csv\), choose from 0, 1, 2"),
        (",1,0,0,/o", ",1,0,5,/o", r"no place '5' \(row 2 of metadata.csv\)"),
        ("place,place_filename", "plcae,place_filename", "metadata.csv has no column 'place', did you mean 'plcae'"),
        (",1,0,0,/o", ",1,0,/o", "row 2 of metadata.csv has 5 cells, the header 6"),
    ],
)
def test_wrong_rows_are_named(waterbirds: Path, old: str, new: str, message: str) -> None:
    edit(waterbirds / "metadata.csv", old, new)
    with pytest.raises(PriorError, match=message):
        Waterbirds(str(waterbirds)).setup()


def test_an_image_that_cub_does_not_have_is_named(waterbirds: Path, cub: Path) -> None:
    edit(waterbirds / "metadata.csv", "Albatross_0001.jpg", "Albatross_9999.jpg")
    with pytest.raises(PriorError, match=r"CUB-200-2011 has no image \S*Albatross_9999.jpg \(row 3 of metadata.csv\)"):
        Waterbirds(str(waterbirds), cub_root=str(cub)).setup()


def test_a_missing_image_and_a_mask_of_another_size_are_named(waterbirds: Path, cub: Path) -> None:
    source = Waterbirds(str(waterbirds), cub_root=str(cub))
    source.setup()
    (waterbirds / SPECIES[0] / "Black_footed_Albatross_0001.jpg").unlink()
    with pytest.raises(PriorError, match=r"no file \S*Albatross_0001.jpg \(row 3 of metadata.csv\)"):
        source.load(1)
    save_mask(cub.parent / "segmentations" / SPECIES[0] / "Black_footed_Albatross_0002.png", size=(9, 9))
    with pytest.raises(PriorError, match=r"Albatross_0002.png \(row 4 of metadata.csv\) is 9 x 9, its image 40 x 30"):
        source.load(2)


def test_missing_folders_are_named(waterbirds: Path, tmp_path: Path) -> None:
    with pytest.raises(PriorError, match=r"no folder .* did you mean 'waterbird_complete95_forest2water2'"):
        Waterbirds(str(tmp_path / "waterbird_complete95")).setup()
    with pytest.raises(PriorError, match=r"no folder \S*cab: .* did you mean 'cub'"):
        Waterbirds(str(waterbirds), cub_root=str(tmp_path / "cab")).setup()
    (waterbirds / "metadata.csv").unlink()
    with pytest.raises(PriorError, match=r"no file \S*metadata.csv"):
        _ = Waterbirds(str(waterbirds)).aux_classes


def test_stampbirds_is_what_its_description_says(shared_data: Path) -> None:
    source = Waterbirds(str(shared_data / "stampbirds"))
    data = PriorDataModule(source, batch_size=16, image_size=64, augmentation="crop")
    data.setup()
    train, val, test = (source.indices(split) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (1200, 300, 900)
    groups = Counter(source._rows[index].label == source._rows[index].place for index in train)
    assert groups[True] / len(train) == pytest.approx(0.95, abs=0.01)
    species = [{source._rows[index].species for index in split} for split in (train, test)]
    assert not species[0] & species[1]
    batch = next(iter(data.val_dataloader()))
    assert batch["mask_valid"].all()
    assert batch["part_valid"].all()
    for mask, box in zip(batch["mask"], batch["part_boxes"][:, 0].round().int().tolist(), strict=True):
        x0, y0, x1, y1 = box
        assert mask[y0:y1, x0:x1].mean() > mask.mean()  # heads lie on birds


def test_masks_of_stampbirds_tell_bird_from_background(shared_data: Path) -> None:
    source = Waterbirds(str(shared_data / "stampbirds"))
    source.setup()
    masks = torch.stack([torch.as_tensor(source.load(index)["mask"]) for index in range(0, 2400, 100)])
    assert masks.min() == 0
    assert masks.max() == 1
    assert 0.05 < masks.mean() < 0.6


def test_each_image_is_a_file(waterbirds: Path) -> None:
    source = Waterbirds(str(waterbirds))
    assert all((waterbirds / source.file(index)).is_file() for index in source.indices("train"))
