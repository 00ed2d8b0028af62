"""Tells how many steps ahead one has to look to see that human finer labels help, on letters and digits (`Glyphs`).

A network learns for some epochs with uniform sub-class labels. From there it learns on with human, random or uniform
labels, each time on the same batches, and after 1, 2, 4, ... steps the primary loss is compared, on training images and
on images in fonts that training never sees. MAXL looks one step ahead: what shows only later it cannot find.

A second table says whether the exact derivative by the labels of one step prefers the human sub-class of an image: by
how much the primary loss of the next batch falls with it more than with the mean sub-class, in units of the root mean
square over the sub-classes.

    python experiments/maxl_horizon.py [--seeds 3] [--epochs 2] [--steps 128] [--output FILE.json]
"""

import argparse
import copy
import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import Glyphs
from lightning_priors.functional.focal import per_class_losses
from lightning_priors.hypergradient import InnerStep, named_gradients
from lightning_priors.nn import Classifier
from lightning_priors.techniques.maxl.label_generator import TaskOutputs, TwoTasks
from lightning_priors.techniques.maxl.soft_labels import hierarchy_mask, soft_label_loss

KINDS = ("human", "random", "uniform")
BATCH, LR = 32, 1e-3


class Task:
    """The images of a seed, their groups, and their sub-classes by each kind of label."""

    def __init__(self, seed: int) -> None:
        source = Glyphs(seed=seed)
        data = PriorDataModule(source, image_size=source.size, augmentation="none", batch_size=10**6)
        data.setup("fit")
        train, val = (next(iter(loader)) for loader in (data.train_dataloader(), data.val_dataloader()))
        self.image, self.group = train["image"], train["label"]
        self.held_out = val["image"], val["label"]
        owner = torch.empty(47, dtype=torch.int64).index_copy_(0, train["aux_labels"][:, 0], self.group)
        order = torch.argsort(owner, stable=True)  # sub-classes in the order of their groups
        self.sub_classes = owner.bincount().tolist()
        self.mask = hierarchy_mask(self.sub_classes)
        human = torch.argsort(order)[train["aux_labels"][:, 0]]
        random = torch.multinomial(self.mask[self.group].float(), 1)[:, 0]
        uniform = self.mask[self.group].float()
        self.labels = {
            "human": F.one_hot(human, 47).float(),
            "random": F.one_hot(random, 47).float(),
            "uniform": uniform / uniform.sum(1, keepdim=True),
        }

    def batches(self) -> Iterator[Tensor]:
        """Goes through the training images for ever, in another order each time."""
        while True:
            yield from torch.randperm(len(self.image)).split(BATCH)[:-1]


def losses(outputs: TaskOutputs) -> Tensor:
    """Computes what each sub-class would cost each image, as MAXL does."""
    return per_class_losses(outputs.auxiliary)


def step(network: TwoTasks, optimizer: torch.optim.Optimizer, task: Task, batch: Tensor, kind: str) -> None:
    """Makes a training step with labels of a kind."""
    outputs = network({"image": task.image[batch]})
    loss = F.cross_entropy(outputs.seen.logits, task.group[batch])
    loss = loss + soft_label_loss(losses(outputs), task.labels[kind][batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def primary_loss(network: TwoTasks, image: Tensor, group: Tensor) -> float:
    """Computes the cross entropy, with the statistics of these images in batch normalisation."""
    with torch.no_grad():
        return float(F.cross_entropy(copy.deepcopy(network)({"image": image}).seen.logits, group))


def start(task: Task, epochs: int) -> tuple[TwoTasks, torch.optim.Optimizer]:
    """Trains a network with uniform labels."""
    network = TwoTasks(Classifier(len(task.sub_classes)), 47)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2 * LR)
    batches = task.batches()
    for _ in range(epochs * (len(task.image) // BATCH)):
        step(network, optimizer, task, next(batches), "uniform")
    return network, optimizer


def horizon(seed: int, epochs: int, steps: int) -> list[dict[str, float]]:
    """Compares the kinds of labels after 1, 2, 4, ... steps."""
    L.seed_everything(seed, verbose=False)
    task = Task(seed)
    network, optimizer = start(task, epochs)
    batches = task.batches()
    order, others = [next(batches) for _ in range(steps)], torch.randperm(len(task.image))[:512]
    found: dict[int, dict[str, float]] = {}
    for kind in KINDS:
        branch = copy.deepcopy(network)
        follower = torch.optim.AdamW(branch.parameters(), lr=LR)
        follower.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for number, batch in enumerate(order, start=1):
            step(branch, follower, task, batch, kind)
            if number & (number - 1) == 0:
                row = found.setdefault(number, {"seed": seed, "steps": number})
                row[f"train {kind}"] = primary_loss(branch, task.image[others], task.group[others])
                row[f"held out {kind}"] = primary_loss(branch, *task.held_out)
    return list(found.values())


def preference(seed: int, epochs: int, kind: str) -> list[float]:
    """Measures how much the derivative of single steps prefers the human sub-class, while training with a kind."""
    L.seed_everything(seed, verbose=False)
    task = Task(seed)
    network, optimizer = start(task, epochs)
    parameters, batches, found = dict(network.named_parameters()), task.batches(), []
    for _ in range(len(task.image) // BATCH):
        batch, following = next(batches), next(batches)
        outputs = network({"image": task.image[batch]})
        loss = F.cross_entropy(outputs.seen.logits, task.group[batch])
        loss = loss + soft_label_loss(losses(outputs), task.labels[kind][batch])
        gradients = named_gradients(loss, parameters)
        for name, parameter in parameters.items():
            parameter.grad = gradients.get(name)
        inner = InnerStep(network, optimizer)
        optimizer.step()
        later = network({"image": task.image[following]}).seen.logits
        v = named_gradients(F.cross_entropy(later, task.group[following]), parameters)
        derivative = inner.label_gradient(({"image": task.image[batch]},), losses, v)
        mask = task.mask[task.group[batch]]
        centred = (derivative - (derivative * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)) * mask
        size = (centred.square().sum() / mask.sum()).sqrt()
        found.append(float(-(centred * task.labels["human"][batch]).sum(1).mean() / size))
    return found


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Computes the mean and its standard error."""
    tensor = torch.tensor(values)
    return float(tensor.mean()), float(tensor.std() / math.sqrt(len(values)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2, help="with uniform labels, before")
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--output", type=Path, default=Path("runs/maxl/horizon.json"))
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rows = [row for seed in range(options.seeds) for row in horizon(seed, options.epochs, options.steps)]
    print("primary loss with human labels, less that with other labels: mean over the seeds (standard error)\n")
    pairs = [(place, other) for place in ("train", "held out") for other in ("random", "uniform")]
    print(f"{'steps':>5}" + "".join(f"{f'{place}, {other}':>26}" for place, other in pairs))
    for number in sorted({row["steps"] for row in rows}):
        line = f"{number:>5.0f}"
        for place, other in pairs:
            chosen = [row for row in rows if row["steps"] == number]
            differences = [row[f"{place} human"] - row[f"{place} {other}"] for row in chosen]
            mean, error = mean_and_error(differences)
            line += f"{f'{mean:+.4f} ({error:.4f})':>26}"
        print(line)
    print("\npreference of the derivative for the human sub-class: mean (standard error); 0 is none, at most 3")
    preferences = {}
    for kind in ("uniform", "human"):
        found = [value for seed in range(options.seeds) for value in preference(seed, options.epochs, kind)]
        preferences[kind] = mean_and_error(found)
        print(f"trained with {kind:8} {preferences[kind][0]:+.3f} ({preferences[kind][1]:.3f})", flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"horizon": rows, "preference": preferences}, indent=1) + "\n")


if __name__ == "__main__":
    main()
