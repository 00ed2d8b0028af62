"""Measures what the data module's training loader costs: its processor time per image over that of bare torchvision.

Both read the same JPEG files and cut out, mirror, normalise and collate them alike; the bare pipeline reads the picture
alone, whatever is annotated. They take turns, so that whatever else the machine does meets both alike; the ratio is the
median of those of the rounds.

    python benchmarks/loader.py [--images 256] [--size 128] [--side 256] [--rounds 9]
"""

import argparse
import csv
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from lightning_priors.batch import IMAGE_MEAN, IMAGE_STD
from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import ImageFolderSource, Source, Table

BATCH = 32
BOXES = {"head": ["head_x0", "head_y0", "head_x1", "head_y1"], "body": ["body_x0", "body_y0", "body_x1", "body_y1"]}
POINTS = {"left eye": ["left_x", "left_y"], "right eye": ["right_x", "right_y"]}


class Bare(Dataset[tuple[Tensor, int]]):
    """Pictures and labels as one reads them without a library."""

    def __init__(self, files: list[Path], size: int) -> None:
        self.files = files
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(size, scale=(0.5, 1.0), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(IMAGE_MEAN, IMAGE_STD),
            ]
        )

    def __len__(self) -> int:
        """Returns the number of pictures."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Reads and transforms a picture."""
        with Image.open(self.files[index]) as picture:
            image = v2.functional.pil_to_tensor(picture.convert("RGB"))
        return self.transform(image), index % 2


def write_pictures(root: Path, count: int, side: int) -> list[Path]:
    """Writes pictures in folders, and a table that has them with a mask, two boxes and two keypoints each."""
    draw = np.random.default_rng(0)
    files, rows = [], []
    for number in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((side, side), Image.BICUBIC)
        noisy = np.asarray(coarse, np.int16) + draw.integers(-12, 13, (side, side, 3))
        file = root / "train" / "ab"[number % 2] / f"{number:05}.jpg"
        outline = root / "outlines" / f"{number:05}.png"
        for folder in (file.parent, outline.parent):
            folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, quality=90)
        across, down = np.meshgrid(*(np.linspace(-1, 1, side) + draw.uniform(-0.3, 0.3) for _ in range(2)))
        Image.fromarray(((across**2 + down**2 < 0.3) * 255).astype(np.uint8)).save(outline)
        places = np.round(np.array([0.3, 0.3, 0.6, 0.6, 0.1, 0.1, 0.9, 0.9, 0.4, 0.4, 0.5, 0.4]) * side, 1)
        rows.append([file.relative_to(root), file.parent.name, outline.relative_to(root), *places])
        files.append(file)
    with (root / "table.csv").open("w", newline="") as table:
        places = [column for columns in (BOXES | POINTS).values() for column in columns]
        csv.writer(table).writerows([["path", "label", "mask", *places], *rows])
    return files


def loader_of(source: Source, size: int) -> Iterable[object]:
    data = PriorDataModule(source, batch_size=BATCH, image_size=size, augmentation="crop", val_fraction=0)
    data.setup("fit")
    return data.train_dataloader()


def milliseconds(loader: Iterable[object], images: int) -> float:
    """Processor time per image of one pass."""
    start = time.process_time()
    for _ in loader:
        pass
    return (time.process_time() - start) * 1000 / images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--size", type=int, default=128, help="side of the images in the batch")
    parser.add_argument("--side", type=int, default=256, help="side of the pictures in the files")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{options.images} pictures of {options.side} px to {options.size} px, batch {BATCH}, ms of processor per image"
    )
    print(f"{'':28}{'loader':>8}{'bare':>8}{'ratio':>8}")
    with TemporaryDirectory() as folder:
        root = Path(folder)
        files = write_pictures(root, options.images, options.side)
        bare = DataLoader(Bare(files, options.size), batch_size=BATCH, shuffle=True)
        sources = {
            "folders": ImageFolderSource(folder),
            "masks and boxes": Table(folder, boxes=BOXES),
            "masks, boxes and keypoints": Table(folder, boxes=BOXES, keypoints=POINTS),
        }
        for name, source in sources.items():
            loader = loader_of(source, options.size)
            pairs = [
                (milliseconds(loader, len(files)), milliseconds(bare, len(files))) for _ in range(options.rounds + 1)
            ][1:]  # the first fills caches
            ours, theirs = (median(times) for times in zip(*pairs, strict=True))
            ratio = median(own / other for own, other in pairs)
            print(f"{name:28}{ours:8.2f}{theirs:8.2f}{ratio:8.2f}", flush=True)


if __name__ == "__main__":
    main()
