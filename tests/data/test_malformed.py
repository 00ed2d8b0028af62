"""Whatever is wrong with the files of a data set: it is used as it is meant, or refused in one line, and soon."""

import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import annotation_files as tools
import pytest
import torch
from malformed import spoil

from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import (
    CUB200,
    Coco,
    Cvat,
    ImageFolderSource,
    LabelMe,
    LabelStudio,
    Source,
    Table,
    Waterbirds,
    Yolo,
)
from lightning_priors.data.sources.annotation_table import Region, check_places, size_of
from lightning_priors.errors import PriorError

pytestmark = pytest.mark.faults

BOXES = {"head": ["head_x0", "head_y0", "head_x1", "head_y1"]}
POINTS = {"left eye": ["left_eye_x", "left_eye_y"], "right eye": ["right_eye_x", "right_eye_y"]}
SECONDS = 20
SEEDS = range(40)

ON_DISK: dict[str, tuple[Callable[[Path], object] | str, Callable[[Path], Source]]] = {
    "folder": ("pictures", lambda root: ImageFolderSource(str(root))),
    "table": ("table", lambda root: Table(str(root), aux=["species"], boxes=BOXES, keypoints=POINTS)),
    "cub": ("cub", lambda root: CUB200(str(root))),
    "waterbirds": ("waterbirds", lambda root: Waterbirds(str(root))),
    "coco": (tools.coco_files, lambda root: Coco(str(root), parts=["head"])),
    "roboflow": (tools.roboflow, lambda root: Coco(str(root))),
    "cvat": (tools.pair_cvat, lambda root: Cvat(str(root))),
    "yolo": (tools.pair_yolo, lambda root: Yolo(str(root))),
    "labelme": (tools.pair_labelme, lambda root: LabelMe(str(root))),
    "label studio": (tools.pair_label_studio, lambda root: LabelStudio(str(root))),
}


@pytest.fixture
def no_hang():
    """Ends a test that waits for something, such as the other end of a pipe."""

    def ring(number, frame):
        raise TimeoutError(f"still busy after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def use(source: Source) -> None:
    """Serves every picture of every split, as training and evaluation would, and checks what comes."""
    data = PriorDataModule(source, batch_size=2, image_size=16, val_fraction=0, augmentation="none")
    data.setup()
    classes = data.num_classes
    for dataset in data.datasets.values():
        for item in range(len(dataset)):
            sample = dataset[item]
            assert sample["image"].shape == (3, 16, 16)
            assert sample["image"].isfinite().all()
            assert 0 <= int(sample["label"]) < classes
            if "mask" in sample:
                assert 0 <= sample["mask"].min() <= sample["mask"].max() <= 1
            for boxes, valid in (("part_boxes", "part_valid"), ("keypoints", "keypoint_valid")):
                if boxes in sample:
                    assert torch.isfinite(sample[boxes]).all()
                    assert (sample[boxes][sample[valid]] >= -1).all()
                    assert (sample[boxes][sample[valid]] <= 17).all()


def prepared(name: str, request, tmp_path: Path) -> Path:
    build, _ = ON_DISK[name]
    if isinstance(build, str):
        return Path(request.getfixturevalue(build))
    root = tmp_path / "export"
    root.mkdir()
    build(root)
    return root


@pytest.mark.parametrize("name", ON_DISK)
def test_the_files_are_right_before_they_are_spoilt(name, request, tmp_path):
    use(ON_DISK[name][1](prepared(name, request, tmp_path)))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ON_DISK)
def test_malformed_files_are_one_line(name, seed, request, tmp_path, no_hang):
    root = prepared(name, request, tmp_path)
    what = spoil(root, random.Random(f"{name} {seed}"))
    start = time.monotonic()
    try:
        use(ON_DISK[name][1](root))
    except PriorError as error:
        message = str(error)
        assert message, what
        assert len(message.splitlines()) == 1, f"{what}: {message}"
        assert len(message) < 1000, f"{what}: {message[:300]}"
        assert not re.search(r"[\x00-\x08\x0b-\x1f]", message), f"{what}: {message!r}"
    assert time.monotonic() - start < SECONDS, what
    shutil.rmtree(root)


@pytest.mark.parametrize("value", [1e30, 10**30, float("nan"), -2e6])
def test_a_place_that_no_picture_reaches_is_refused_before_it_is_drawn(value):
    with pytest.raises(PriorError, match=r"annotation 1 reaches to .*, which no picture does"):
        check_places(Region("annotation 1", "kea", outline=[[0, 0, value, 0, 4, 4]]))
    with pytest.raises(PriorError, match="reaches to"):
        check_places(Region("annotation 1", "kea", box=(0, 0, 4, value)))


@pytest.mark.parametrize("size", [(10**6, 10**6), (-3, 4), (1e300, 4), ("x", 4), ([3], 4)])
def test_a_size_that_no_picture_has_is_refused(size):
    with pytest.raises(PriorError, match=r"image 1 has the size .*, which is no picture's"):
        size_of(*size, "image 1")
