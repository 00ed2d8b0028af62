"""Tells whether finer labels help on Fashion-MNIST in arbitrary mixed groups with few images, on validation alone.

For each grouping of the ten classes, each number of training images and each seed, which draws its own images, the same
network learns the groups alone, and the groups with the ten classes as auxiliary labels. The table has the accuracy on
validation images of the network that learned the groups alone, and how much the other's is greater.

    python experiments/fashion_headroom.py [--root DIR] [--images 100 200 300] [--seeds 3] [--steps 400]
        [--output FILE.json]
"""

import argparse
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.datasets import FashionMNIST

from lightning_priors.data.sources.fashion_mnist import CLASSES
from lightning_priors.functional.focal import per_class_losses
from lightning_priors.nn import Classifier
from lightning_priors.techniques.maxl.label_generator import TwoTasks
from lightning_priors.techniques.maxl.soft_labels import soft_label_loss

GROUPINGS = {
    "two groups": [
        ["T-shirt/top", "Trouser", "Coat", "Sneaker", "Bag"],
        ["Pullover", "Dress", "Shirt", "Sandal", "Ankle boot"],
    ],
    "three groups": [
        ["T-shirt/top", "Coat", "Sandal", "Bag"],
        ["Pullover", "Dress", "Sneaker"],
        ["Trouser", "Shirt", "Ankle boot"],
    ],
    "five pairs": [
        ["T-shirt/top", "Sandal"],
        ["Trouser", "Coat"],
        ["Pullover", "Ankle boot"],
        ["Dress", "Bag"],
        ["Shirt", "Sneaker"],
    ],
}
BATCH, LR, VALIDATION = 32, 2e-3, 5000


class Images:
    """The training images of Fashion-MNIST, 32 x 32; the last 5,000 are for validation."""

    def __init__(self, root: Path) -> None:
        read = FashionMNIST(str(root), train=True)
        grey = F.pad(read.data.float() / 255, (2, 2, 2, 2))
        self.image = ((grey - 0.286) / 0.353)[:, None]  # mean and standard deviation of the training images
        self.kind = read.targets

    def batch(self, rows: Tensor) -> Tensor:
        """Gives images (B, 3, 32, 32)."""
        return self.image[rows].expand(-1, 3, -1, -1)


def accuracy(images: Images, group_of: Tensor, drawn: Tensor, human: bool, seed: int, steps: int) -> float:
    """Trains on the drawn images, mirrored at random, and measures the accuracy on validation images."""
    torch.manual_seed(seed)
    network = TwoTasks(Classifier(int(group_of.max()) + 1), len(CLASSES))
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = drawn[torch.randperm(len(drawn))[:BATCH]]
        mirrored = torch.rand(len(rows), 1, 1, 1) < 0.5
        batch = images.batch(rows)
        outputs = network({"image": torch.where(mirrored, batch.flip(3), batch)})
        loss = F.cross_entropy(outputs.seen.logits, group_of[images.kind[rows]])
        if human:
            labels = F.one_hot(images.kind[rows], len(CLASSES)).float()
            loss = loss + soft_label_loss(per_class_losses(outputs.auxiliary), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        rows = torch.arange(len(images.kind) - VALIDATION, len(images.kind))
        found = torch.cat([network({"image": images.batch(part)}).seen.logits.argmax(1) for part in rows.split(500)])
    return float((found == group_of[images.kind[rows]]).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("../shared/data"))
    parser.add_argument("--images", type=int, nargs="+", default=[100, 200, 300])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--output", type=Path, default=Path("runs/maxl/fashion_headroom.json"))
    options = parser.parse_args()
    images, rows = Images(options.root), []
    print(f"{'':14}{'images':>8}{'groups alone':>14}{'classes too, points':>21}  (standard error)")
    for name, groups in GROUPINGS.items():
        group_of = torch.tensor([next(i for i, group in enumerate(groups) if kind in group) for kind in CLASSES])
        for count in options.images:
            pairs = []
            for seed in range(options.seeds):
                drawn = torch.randperm(len(images.kind) - VALIDATION, generator=torch.Generator().manual_seed(seed))
                given = images, group_of, drawn[:count]
                none, human = (accuracy(*given, human, seed, options.steps) for human in (False, True))
                pairs.append([none, human])
                rows.append({"grouping": name, "images": count, "seed": seed, "none": none, "human": human})
            alone, both = torch.tensor(pairs, dtype=torch.float64).T
            gain = 100 * (both - alone)
            error = float(gain.std()) / math.sqrt(len(gain))
            print(f"{name:14}{count:>8}{alone.mean():>14.3f}{gain.mean():>+21.1f}  ({error:.1f})", flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
