"""The same test images under every config of a comparison."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from lightning_priors.cli.quiet import less_warnings
from lightning_priors.compare.picture import evenly_chosen
from lightning_priors.compare.resolve import Task
from lightning_priors.compare.rows import Row
from lightning_priors.compare.run import PreparedFit, logged_to
from lightning_priors.data.datamodule import PriorDataset
from lightning_priors.explain.measure import images_of
from lightning_priors.explain.pictures import Shown, shown
from lightning_priors.trained import TrainedClassifier, load

IMAGES = 6


class Answer(NamedTuple):
    """What a config's network says of an image."""

    config: str
    evidence: str
    """The image with its evidence, a data URI."""
    label: str
    right: bool
    probability: float
    inside: float | None
    """The share of the evidence for the true class inside the prior."""


class Compared(NamedTuple):
    """An image and what every config's network says of it."""

    picture: str
    """A data URI."""
    label: str
    group: str
    answers: list[Answer]


@less_warnings()
def compared_pictures(tasks: Sequence[Task], rows: Sequence[Row], output: Path, number: int = IMAGES) -> list[Compared]:
    """Draws a few test images with the evidence of every config's network.

    Shown are the runs of the first split and seed that most configs have; a run whose checkpoint has been deleted
    since is left out.

    Args:
        tasks: All runs.
        rows: The finished ones.
        output: Folder of the comparison.
        number: How many images.

    Returns:
        The images, of all classes and groups as evenly as can be; none where no checkpoint is left.
    """
    finished = {row.key: row for row in rows if Path(row.checkpoint).is_file()}
    places = [(task.split, task.seed) for task in tasks if task.key in finished]
    if not places:
        return []
    place_of_most = max(dict.fromkeys(places), key=places.count)
    chosen = [task for task in tasks if (task.split, task.seed) == place_of_most and task.key in finished]
    drawn: dict[str, tuple[TrainedClassifier, PriorDataset]] = {}
    for task in chosen:
        # nothing is run, so nothing is written to the folder
        with TemporaryDirectory() as folder, logged_to(output / "comparison.log"):
            prepared = PreparedFit(task.arguments, Path(folder), [])
        prepared.datamodule.setup("test")
        checkpoint = finished[task.key].checkpoint
        classifier = load(checkpoint, technique=type(prepared.model))
        drawn[task.run] = classifier, images_of(classifier, checkpoint, prepared.datamodule, "test")
    images = next(iter(drawn.values()))[1]
    samples = (images[place] | {"index": torch.tensor(place)} for place in range(len(images)))
    places_shown = [int(sample["index"]) for sample in evenly_chosen(samples, number)]
    return [_compared(shown(place, list(drawn.values())), drawn) for place in places_shown]


@torch.inference_mode()
def _compared(picture: Shown, drawn: dict[str, tuple[TrainedClassifier, PriorDataset]]) -> Compared:
    """What the configs say of one image."""
    answers = []
    sample: Any = {}
    for (name, (classifier, images)), evidence, inside in zip(
        drawn.items(), picture.evidence, picture.inside, strict=True
    ):
        sample = images[picture.place]
        logits, _ = classifier(sample["image"][None].to(classifier.device))
        best = int(logits[0].argmax())
        probability = float(logits[0].softmax(0)[best])
        answers.append(
            Answer(name, evidence, classifier.class_names[best], best == int(sample["label"]), probability, inside)
        )
    classifier, images = next(iter(drawn.values()))
    names = images.source.group_names
    group = names[int(sample["group"])] if "group" in sample and names else ""
    return Compared(picture.picture, classifier.class_names[int(sample["label"])], group, answers)
