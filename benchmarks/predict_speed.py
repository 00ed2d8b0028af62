"""Measures what ``predict`` costs: its pictures per second over those of a bare loop with timm, and its memory.

Both read the same files, resize and normalise them alike, and run the same network with as many threads that read. They
take turns, so that whatever else the machine does meets both alike; the ratio is the median of those of the rounds. The
memory is the greatest of a process of its own that classifies so many files and writes the table.

    python benchmarks/predict_speed.py [--backbone resnet18 ...] [--files 500] [--rounds 5] [--memory 500 10000]
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import timm
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from lightning_priors import Pretrained, TrainedClassifier
from lightning_priors.batch import IMAGE_MEAN, IMAGE_STD
from lightning_priors.techniques.facts import Facts
from lightning_priors.trained.classifier import READERS
from lightning_priors.trained.finding import find_pictures
from lightning_priors.trained.output import open_output

BATCH = 32
MEMORY = """
import re, sys
sys.path.insert(0, {folder!r})
import predict_speed as own
own.classify(own.classifier({backbone!r}, {size}), {files!r}, {out!r})
print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])
"""


def write_pictures(folder: Path, count: int, side: int = 160) -> None:
    """Writes noisy pictures as JPEG files."""
    generator = np.random.default_rng(0)
    few = [Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(20)]
    for number in range(count):
        few[number % len(few)].save(folder / f"{number:05}.jpg")


def classifier(backbone: str, size: int) -> TrainedClassifier:
    """Makes a classifier that has not been trained, which is as fast."""
    facts = Facts(
        class_names=["kakapo", "other"], image_size=[size, size], mean=list(IMAGE_MEAN), std=list(IMAGE_STD), data=""
    )
    return TrainedClassifier(Pretrained(num_classes=2, backbone=backbone), facts)


def classify(asked: TrainedClassifier, folder: str, out: str) -> int:
    """Classifies the files of a folder as the command does, and gives their number."""
    found = find_pictures([folder])
    with open_output(out, asked.class_names, []) as write:
        for said in asked.stream((each.path for each in found), BATCH):
            write(said, {})
    return len(found)


@torch.inference_mode()
def bare(network: torch.nn.Module, files: Sequence[Path], size: int) -> list[int]:
    """Classifies files as one does without a library."""

    def read(path: Path) -> torch.Tensor:
        with Image.open(path) as picture:
            image = v2.functional.pil_to_tensor(picture.convert("RGB"))
        image = F.to_dtype(F.resize(image, [size, size], antialias=True), torch.float32, scale=True)
        return F.normalize(image, IMAGE_MEAN, IMAGE_STD)

    said: list[int] = []
    with ThreadPoolExecutor(READERS) as pool:
        batches = [files[first : first + BATCH] for first in range(0, len(files), BATCH)]
        coming = [pool.submit(read, path) for path in batches[0]]
        for number in range(len(batches)):
            images = torch.stack([each.result() for each in coming])
            coming = [pool.submit(read, path) for path in batches[number + 1]] if number + 1 < len(batches) else []
            said += network(images).softmax(1).argmax(1).tolist()
    return said


def seconds(action: object, *arguments: object) -> float:
    start = time.perf_counter()
    action(*arguments)  # type: ignore[operator]
    return time.perf_counter() - start


def peak(backbone: str, size: int, folder: str, out: str) -> float:
    """The greatest memory of a process that classifies a folder, in MiB; getrusage would count that of its parent."""
    code = MEMORY.format(folder=str(Path(__file__).parent), backbone=backbone, size=size, files=folder, out=out)
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return int(shown.split()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", nargs="+", default=["resnet18", "tf_efficientnet_lite0"])
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, nargs="*", default=[500, 10_000], help="numbers of files")
    options = parser.parse_args()
    print(f"{options.image_size} px, batch {BATCH}, {options.files} files, {torch.get_num_threads()} threads")
    print(f"{'backbone':24}{'predict /s':>12}{'bare /s':>12}{'ratio':>8}")
    with TemporaryDirectory() as name:
        folder, out = Path(name, "pictures"), str(Path(name, "said.csv"))
        folder.mkdir()
        write_pictures(folder, options.files)
        files = sorted(folder.iterdir())
        for backbone in options.backbone:
            asked = classifier(backbone, options.image_size)
            network = timm.create_model(backbone, num_classes=2).eval()
            pairs = [
                (seconds(classify, asked, str(folder), out), seconds(bare, network, files, options.image_size))
                for _ in range(options.rounds + 1)
            ][1:]  # the first fills caches
            ours, theirs = (median(times) for times in zip(*pairs, strict=True))
            ratio = median(other / own for own, other in pairs)
            print(f"{backbone:24}{len(files) / ours:12.0f}{len(files) / theirs:12.0f}{ratio:8.3f}", flush=True)
        for count in options.memory:
            many = Path(name, f"pictures_{count}")
            many.mkdir()
            write_pictures(many, count)
            print(f"{count} files: {peak('tiny', 64, str(many), out):.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
