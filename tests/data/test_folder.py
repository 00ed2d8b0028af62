"""Pictures in folders, with a twin folder of masks."""

import shutil
from pathlib import Path

import pytest
from fake_data import BODY, save_mask, save_picture
from PIL import Image

from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import ImageFolderSource
from lightning_priors.errors import PriorError


def ready(root: Path, masks: str = "soft") -> ImageFolderSource:
    source = ImageFolderSource(str(root), masks=masks)
    source.setup()
    return source


def test_classes_splits_and_labels_are_folders(pictures: Path) -> None:
    source = ready(pictures)
    assert source.classes == ["cat", "dog"]
    assert [len(source.indices(split)) for split in ("train", "val", "test")] == [4, 2, 2]
    assert [source.label(index) for index in source.indices("train")] == [0, 0, 1, 1]
    assert source.load(0)["image"].shape == (3, 30, 40)


def test_masks_are_of_the_pictures_that_have_one(pictures: Path) -> None:
    source = ready(pictures)
    samples = [source.load(index) for index in source.indices("train")]
    assert [sample["mask_valid"] for sample in samples] == [True, False, False, True]
    assert [sample["mask"].max().item() for sample in samples] == pytest.approx([0.2, 0, 0, 1])
    assert samples[3]["mask"][0, BODY[1] : BODY[3], BODY[0] : BODY[2]].min() == 1
    assert not source.load(source.indices("test")[0])["mask_valid"]
    assert not ready(pictures, "hard").load(0)["mask"].any()


def test_without_masks_there_is_no_key(pictures: Path) -> None:
    assert "mask" not in ready(pictures, "none").load(0)
    shutil.rmtree(pictures / "masks")
    assert set(ready(pictures).load(0)) == {"image", "label"}


def test_photographs_are_upright_unless_masks_tell_of_their_stored_pixels(pictures: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    for path in (pictures / "train").rglob("*.*"):
        with Image.open(path) as picture:
            stored = picture.copy()
        stored.save(path, exif=exif)
    assert ready(pictures).load(0)["image"].shape == (3, 30, 40)
    assert ready(pictures, "none").load(0)["image"].shape == (3, 40, 30)


def test_pictures_may_lie_deeper_and_other_files_are_left_alone(pictures: Path) -> None:
    save_picture(pictures / "train" / "cat" / "2024" / "july.PNG")
    save_mask(pictures / "masks" / "train" / "cat" / "2024" / "july.png")
    (pictures / "train" / "cat" / "notes.txt").write_text("")
    (pictures / "train" / ".DS_Store").mkdir()
    source = ready(pictures)
    assert [str(file.path) for file in source._files[:3]] == [
        "train/cat/2024/july.PNG",
        "train/cat/cat0.jpg",
        "train/cat/cat1.jpg",
    ]
    assert source.load(0)["mask_valid"]


def not_used(root: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.set_level("INFO")
    ready(root).setup()
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("not used")]


def test_what_is_not_used_is_named_once(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("train/a.png", "train/cat/b.heic", "train/cat/.hidden", "train/.cache/c.png", "unlabelled/d.png"):
        (pictures / name).parent.mkdir(exist_ok=True)
        (pictures / name).write_text("")
    assert not_used(pictures, caplog) == [f"not used of {pictures}: unlabelled/, train/a.png, train/cat/b.heic"]
    (pictures / "val" / "c.png").write_text("")
    assert not_used(pictures, caplog)[-1].endswith("train/cat/b.heic and 1 more")


def test_nothing_is_said_where_everything_is_used(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not_used(pictures, caplog) == []


def test_validation_is_carved_where_there_is_no_folder(pictures: Path) -> None:
    shutil.rmtree(pictures / "val")
    data = PriorDataModule(ready(pictures), image_size=16, val_fraction=0.5)
    data.setup()
    val = data._datasets["val"].indices
    assert [data.source.label(index) for index in val] == [0, 1]
    assert {data.source._files[index].split for index in val} == {"train"}


def test_a_class_that_training_does_not_have_is_named(pictures: Path) -> None:
    save_picture(pictures / "test" / "dgo" / "a.jpg")
    with pytest.raises(PriorError, match=r"no class folder in train 'dgo' \(\S*test/dgo\), did you mean 'dog'"):
        ready(pictures)


def test_an_empty_class_folder_is_named(pictures: Path) -> None:
    (pictures / "train" / "eel").mkdir()
    with pytest.raises(PriorError, match=r"the class folder \S*train/eel has no pictures"):
        ready(pictures)


@pytest.mark.parametrize(
    ("wrong", "right"), [("valid", "val"), ("Test", "test"), ("mask", "masks"), ("testing", "test")]
)
def test_a_misspelt_folder_is_named(pictures: Path, wrong: str, right: str) -> None:
    (pictures / wrong).mkdir()
    with pytest.raises(PriorError, match=rf"\S*{wrong} is no split, did you mean '{right}'"):
        ready(pictures)


def test_other_folders_may_lie_beside(pictures: Path) -> None:
    (pictures / "papers").mkdir()
    ready(pictures)


def test_missing_folders_are_named(pictures: Path) -> None:
    (pictures / "train").rename(pictures / "tarin")
    with pytest.raises(PriorError, match=r"no folder \S*train: .* did you mean 'tarin'"):
        ready(pictures)
    with pytest.raises(PriorError, match=r"no folder \S*picture: .* did you mean 'pictures'"):
        _ = ImageFolderSource(str(pictures.parent / "picture")).classes


def test_a_training_folder_without_classes_is_named(pictures: Path) -> None:
    shutil.rmtree(pictures / "train")
    save_picture(pictures / "train" / "a.jpg")
    with pytest.raises(PriorError, match=r"\S*train has no class folders"):
        ready(pictures)


def test_a_mask_without_a_picture_is_named(pictures: Path) -> None:
    save_mask(pictures / "masks" / "train" / "cat" / "cat9.png")
    with pytest.raises(PriorError, match=r"the mask \S*masks/train/cat/cat9.png has no picture \(1 masks have none\)"):
        ready(pictures)


def test_masks_need_pictures_of_different_names(pictures: Path) -> None:
    other = save_mask(pictures / "masks" / "train" / "cat" / "cat0.bmp")
    with pytest.raises(PriorError, match=r"\S*masks/train/cat/cat0.bmp and \S*cat0.png have one name"):
        ready(pictures)
    other.unlink()
    save_picture(pictures / "train" / "cat" / "cat0.png")
    with pytest.raises(PriorError, match=r"train/cat/cat0.jpg and train/cat/cat0.png have one name"):
        ready(pictures)
    ready(pictures, "none")


def test_a_mask_of_another_size_is_named(pictures: Path) -> None:
    save_mask(pictures / "masks" / "train" / "cat" / "cat0.png", size=(8, 8))
    with pytest.raises(PriorError, match=r"the mask \S*cat0.png \(the train split\) is 8 x 8, its image 40 x 30"):
        ready(pictures).load(0)


def test_the_file_of_an_image_is_below_the_root(pictures: Path) -> None:
    source = ready(pictures)
    assert source.file(0) == "train/cat/cat0.jpg"
    assert all((pictures / source.file(index)).is_file() for index in source.indices("test"))
