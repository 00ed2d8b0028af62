"""The configurations of the data sets fit the classes and load."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from annotation_files import coco_files, pair_labelme, pair_yolo
from fake_data import SPECIES, edit
from jsonargparse import ArgumentParser

from lightning_priors.data import PriorDataModule, sources
from lightning_priors.data.sources import Source

FOLDER = Path(__file__).parents[2] / "configs" / "data"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
ALL_SOURCES = [
    value
    for value in vars(sources).values()
    if inspect.isclass(value) and issubclass(value, Source) and not inspect.isabstract(value)
]

WRAPPED = ("clustered_labels.yaml", "random_labels.yaml", "random_sub_classes.yaml")


def instantiated(name: str, root: Path | None = None) -> PriorDataModule:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(PriorDataModule, "data")
    arguments = [f"--config={FOLDER / name}", "--data.num_workers=0", "--data.batch_size=2"]
    if root is not None:
        inner = "source." if name in WRAPPED else ""
        arguments.append(f"--data.source.{inner}root={root}")
    return parser.instantiate(parser.parse_args(arguments)).data


def first_batch(data: PriorDataModule) -> dict[str, Any]:
    data.prepare_data()
    data.setup()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        batch = next(iter(loader))
        assert torch.isfinite(batch["image"]).all()
    return next(iter(data.train_dataloader()))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_fits_its_classes(path: Path) -> None:
    data = instantiated(path.name)
    assert type(data.source).__name__ == class_of(yaml.safe_load(path.read_text())["data"]["source"])


def class_of(source: str | Mapping[str, Any]) -> str:
    return source if isinstance(source, str) else source["class_path"]


def test_every_source_has_a_configuration() -> None:
    described: set[str] = set()
    for path in CONFIGS:
        source = yaml.safe_load(path.read_text())["data"]["source"]
        while source is not None:  # and the one inside of it
            described.add(class_of(source))
            source = None if isinstance(source, str) else (source.get("init_args") or {}).get("source")
    assert described == {kind.__name__ for kind in ALL_SOURCES}


def test_folder(pictures: Path) -> None:
    assert first_batch(instantiated("folder.yaml", pictures))["mask"].shape == (2, 128, 128)


def test_table(table: Path) -> None:
    batch = first_batch(instantiated("table.yaml", table))
    assert batch["keypoints"].shape == (2, 2, 2)
    assert batch["aux_labels"].shape == (2, 1)


@pytest.mark.parametrize(("name", "write"), [("coco", coco_files), ("yolo", pair_yolo), ("labelme", pair_labelme)])
def test_annotations_of_tools(name: str, write: Callable[[Path], Path], tmp_path: Path) -> None:
    data = instantiated(f"{name}.yaml", write(tmp_path))
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["mask"].shape == (2, 128, 128)
    assert batch["part_boxes"].shape == (2, 2 if name == "coco" else 1, 4)


def test_cub200(cub: Path) -> None:
    edit(cub / "train_test_split.txt", "5 1\n6 1\n7 0", "5 1\n6 1\n7 1")
    batch = first_batch(instantiated("cub200.yaml", cub))
    assert batch["part_boxes"].shape == (2, 2, 4)
    assert batch["aux_labels"].shape == (2, 4)


def test_waterbirds(waterbirds: Path, cub: Path) -> None:
    data = instantiated("waterbirds.yaml", waterbirds)
    data.source.cub_root = str(cub)
    batch = first_batch(data)
    assert batch["mask"].shape == (2, 224, 224)
    assert data.source.aux_classes["species"] == SPECIES[:2]


def test_stampbirds(shared_data: Path) -> None:
    assert first_batch(instantiated("stampbirds.yaml", shared_data / "stampbirds"))["mask_valid"].all()


@pytest.mark.parametrize(
    ("name", "tasks", "classes"),
    [("fashion_mnist", 2, 2), ("fashion_mnist_groups", 1, 3), ("random_labels", 2, 2), ("random_sub_classes", 1, 2)],
)
def test_fashion_mnist(shared_data: Path, name: str, tasks: int, classes: int) -> None:
    data = instantiated(f"{name}.yaml", shared_data)
    assert first_batch(data)["aux_labels"].shape == (2, tasks)
    assert data.num_classes == classes
