"""What is written is read back as it was said, and what was known stays as it was."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from outlines import Corner, Half, as_stored, save_birds
from torchvision import tv_tensors

from lightning_priors.annotation.annotate import records
from lightning_priors.annotation.annotator import Annotation, Annotator
from lightning_priors.annotation.writing import FILLED, NOTHING, POOR, TableWriter
from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import Kakapo, NoisyMasks, Source, Table
from lightning_priors.data.transforms import PriorTransform
from lightning_priors.errors import PriorError

OPTIONS: dict[str, Any] = {"aux": ["species"], "keypoints": {"eye": ["eye_x", "eye_y"]}}


def ready(source: Source, **options: Any) -> PriorDataModule:
    data = PriorDataModule(source, **{"image_size": 16, "augmentation": "none", "batch_size": 3, **options})
    data.setup()
    return data


def written(data: PriorDataModule, annotator: Annotator, folder: Path, least: float = 0.0, **options: Any) -> Any:
    writer = TableWriter(folder, data, list(annotator.part_names), least)
    for record in records(data, annotator, **{"splits": ["train"], **options}):
        writer.add(record)
    _, configuration = writer.finish()
    return writer, yaml.safe_load(configuration.read_text())["data"]


def read_back(configuration: dict[str, Any]) -> PriorDataModule:
    options = dict(configuration)
    source = options.pop("source")
    assert source["class_path"] == "Table"
    data = PriorDataModule(Table(**source["init_args"]), **options)
    data.setup()
    return data


def assert_same_samples(one: PriorDataModule, other: PriorDataModule, but: tuple[str, ...] = ("index",)) -> None:
    """Compares the images of both in their order, as a network gets them."""
    for split in ("train", "val", "test"):
        assert len(one.datasets[split]) == len(other.datasets[split])
        for first, second in zip(one.datasets[split], other.datasets[split], strict=True):
            assert first.keys() == second.keys()
            for name in first.keys() - set(but):
                torch.testing.assert_close(first[name], second[name], msg=name)


def names_of(data: PriorDataModule) -> list[tuple[str, list[str]]]:
    """The group and the auxiliary classes of each image."""
    source, aux = data.source, list(data.source.aux_classes.values())
    samples = [sample for split in ("train", "val", "test") for sample in data.datasets[split]]
    return [
        (source.group_names[s["group"]], [names[label] for names, label in zip(aux, s["aux_labels"], strict=True)])
        for s in samples
    ]


def test_masks_are_read_back_as_the_annotator_gave_them(tmp_path: Path) -> None:
    """In pictures that are not square, and in one that is to be turned."""
    root = save_birds(tmp_path / "birds")
    _, configuration = written(ready(Table(str(root), **OPTIONS)), Half(), tmp_path / "out")
    back = read_back(configuration)
    names = [back.source.file(index) for index in back.datasets["train"].indices]
    assert [Path(name).name for name in names] == ["0.png", "1.png", "3.png", "4.png", "5.png", "7.png"]
    transform = PriorTransform(16)
    for name, sample in zip(names, back.datasets["train"], strict=True):
        image = as_stored(root / name)
        given = Half().annotate([image])[0].mask
        raw = {"image": tv_tensors.Image(image), "label": 0, "mask": tv_tensors.Image(given[None]), "mask_valid": True}
        expected = transform(raw, 0)  # type: ignore[arg-type]
        torch.testing.assert_close(sample["image"], expected["image"])
        torch.testing.assert_close(sample["mask"], expected["mask"], atol=0.5 / 255 + 1e-6, rtol=0)
        assert sample["mask_valid"]


def test_what_is_known_stays_as_it_is(tmp_path: Path) -> None:
    root = save_birds(tmp_path / "birds", masks=8)
    data = ready(Table(str(root), **OPTIONS))
    writer, configuration = written(data, Half(), tmp_path / "out")
    assert writer.counts.total() == 0
    assert writer.copied == 0
    assert configuration["image_size"] == 16
    back = read_back(configuration)
    assert (back.classes, back.source.aux_classes) == (data.classes, data.source.aux_classes)
    assert_same_samples(data, back)


def test_judging_changes_no_known_mask(tmp_path: Path) -> None:
    data = ready(Table(str(save_birds(tmp_path / "birds", masks=8)), **OPTIONS))
    writer, configuration = written(data, Half(), tmp_path / "out", splits=["train", "val", "test"], ask_all=True)
    assert writer.counts.total() == 0
    assert_same_samples(data, read_back(configuration))


def test_only_the_asked_splits_are_filled_in(tmp_path: Path) -> None:
    data = ready(Table(str(save_birds(tmp_path / "birds")), **OPTIONS))
    _, configuration = written(data, Half(), tmp_path / "out", splits=["val"])
    back = read_back(configuration)
    valid = {split: [bool(sample["mask_valid"]) for sample in back.datasets[split]] for split in back.datasets}
    assert valid == {"train": [False] * 6, "val": [True], "test": [False]}


def test_hidden_masks_are_filled_in_and_shown_ones_kept(tmp_path: Path) -> None:
    data = ready(Table(str(save_birds(tmp_path / "birds", masks=8)), **OPTIONS), annotated_fraction=0.5)
    hidden = [index in data.datasets["train"].without_priors for index in data.datasets["train"].indices]
    assert sum(hidden) == 3
    writer, configuration = written(data, Half(), tmp_path / "out")
    assert writer.counts == {FILLED: 3}
    soft = [
        bool(((s["mask"] > 0.01) & (s["mask"] < 0.4)).sum() > 99) for s in read_back(configuration).datasets["train"]
    ]
    assert soft == hidden


def test_poor_and_empty_annotations_are_left_out_and_counted(tmp_path: Path) -> None:
    class Scores(Annotator):
        """The scores 0, 0.1, 0.2 and so on; the fifth mask stays below the half."""

        seen = 0

        def annotate(self, images):
            return [self._next(image) for image in images]

        def _next(self, image):
            number, self.seen = self.seen, self.seen + 1
            return Annotation(number / 10, torch.full(image.shape[1:], 0.2 if number == 4 else 1.0))

    data = ready(Table(str(save_birds(tmp_path / "birds")), **OPTIONS))
    writer, configuration = written(data, Scores(), tmp_path / "out", least=0.2)
    assert writer.counts == {POOR: 2, NOTHING: 1, FILLED: 3}
    valid = [bool(sample["mask_valid"]) for sample in read_back(configuration).datasets["train"]]
    assert valid == [False, False, True, True, False, True]


def test_boxes_fill_in_what_is_not_known(tmp_path: Path) -> None:
    """The box of another part is kept beside them."""
    data = ready(Table(str(save_birds(tmp_path / "birds")), **OPTIONS))
    writer, configuration = written(data, Corner(), tmp_path / "out")
    assert writer.counts == {FILLED: 4, NOTHING: 2}
    back = read_back(configuration)
    assert back.source.part_names == ["box", "head"]
    for before, after in zip(data.datasets["train"], back.datasets["train"], strict=True):
        torch.testing.assert_close(after["part_boxes"][0], before["part_boxes"][0])
        assert after["part_valid"][0] == before["part_valid"][0]
        if after["part_valid"][1]:
            torch.testing.assert_close(after["part_boxes"][1], torch.tensor([0.0, 0, 8, 8]))


def test_drawn_pictures_are_written_as_files(tmp_path: Path) -> None:
    """And the images that are set aside for validation, or left out, stay so."""
    data = ready(Kakapo(train_size=20, val_size=0, test_size=4, size=32), val_fraction=0.2, train_fraction=0.5)
    writer, configuration = written(data, Half(), tmp_path / "out")
    assert writer.copied == 8 + 4 + 4
    back = read_back(configuration)
    assert_same_samples(data, back, but=("index", "group", "aux_labels"))  # they are numbered by the names that occur
    assert names_of(back) == names_of(data)


def test_pictures_that_a_source_shows_otherwise_are_written_as_files(tmp_path: Path) -> None:
    class Dark(NoisyMasks):
        def load(self, index):
            sample = super().load(index)
            sample["image"] = tv_tensors.Image(sample["image"] // 2)
            return sample

    data = ready(Dark(Table(str(save_birds(tmp_path / "birds", masks=8)), **OPTIONS), "shifted"))
    writer, configuration = written(data, Half(), tmp_path / "out")
    assert writer.copied == 8
    assert_same_samples(data, read_back(configuration))


def test_a_table_is_never_overwritten(tmp_path: Path) -> None:
    root = save_birds(tmp_path / "birds")
    with pytest.raises(PriorError, match=r"table\.csv is there already; give another folder"):
        TableWriter(root, ready(Table(str(root), **OPTIONS)), [], 0.0)
    assert not (root / "masks").exists()


def test_a_task_with_the_name_of_a_column_is_refused(tmp_path: Path) -> None:
    data = ready(Table(str(save_birds(tmp_path / "birds")), aux=["split"]))
    with pytest.raises(PriorError, match="the auxiliary task 'split' has the name of a column"):
        TableWriter(tmp_path / "out", data, [], 0.0)
