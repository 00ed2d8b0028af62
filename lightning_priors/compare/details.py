"""What is measured of a finished run beside its row: the answers by group, the backgrounds, and what it had to know."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning as L

from lightning_priors.data import PriorDataModule
from lightning_priors.data.datamodule import PriorDataset
from lightning_priors.data.sources.wrapper import innermost
from lightning_priors.explain.measure import Answers, images_of, measure, measure_backgrounds
from lightning_priors.explain.report import occurring, report
from lightning_priors.techniques import PriorModule
from lightning_priors.trained import load
from lightning_priors.whole_files import write_text

Details = dict[str, Any]

NAMES = {
    "mask": "masks",
    "part_boxes": "boxes",
    "keypoints": "keypoints",
    "aux_labels": "auxiliary labels",
    "group": "groups",
}
"""What the keys of a batch are called."""

MOST_CLASSES = 20
"""For which the confusion is kept."""

BACKGROUNDS = {
    "test/acc_alone": ("alone", "accuracy"),
    "test/acc_exchanged": ("exchanged", "accuracy"),
    "test/background_gap": ("gap", "mean"),
}
"""Columns of the rows, and where their numbers stand in the report of `lightning_priors.explain`."""


def needs(module: PriorModule, callbacks: Iterable[L.Callback]) -> list[str]:
    """Lists in words what training had to know beside the labels.

    Args:
        module: What was trained.
        callbacks: Those of its training.

    >>> import lightning_priors as lp
    >>> needs(lp.CAMRestriction(), [])
    ['masks or boxes']
    """
    asked = [*module.needs(), *(keys for callback in callbacks for keys in getattr(callback, "requires", ()))]
    return list(dict.fromkeys(" or ".join(NAMES.get(key, key) for key in keys) for keys in asked))


def measure_details(module: PriorModule, trainer: L.Trainer, data: PriorDataModule, checkpoint: str) -> Details:
    """Asks a run's selected checkpoint about the test images once more, and with other backgrounds where it can.

    Args:
        module: What was trained.
        trainer: With the callbacks of the training and the limit of the test.
        data: It is set up for the test.
        checkpoint: Path of the checkpoint.

    Returns:
        Plain values for JSON.
    """
    classifier = load(checkpoint, technique=type(module), device=module.device)
    images = images_of(classifier, checkpoint, data, "test")
    tested = _tested(trainer, len(images), data.batch_size)
    images = PriorDataset(images.source, images.indices[:tested], images.transform, seed=data.seed)
    asked = classifier, images
    answers = measure(*asked, data.batch_size, data.num_workers)
    backgrounds = measure_backgrounds(*asked, answers.masked, data.batch_size, data.num_workers)
    classes, groups = data.classes, data.source.group_names
    return {
        "needs": needs(module, trainer.callbacks),  # type: ignore[attr-defined]  # Lightning adds it
        "annotated_fraction": data.annotated_fraction,
        "data": type(innermost(data.source)).__name__,
        "classes": classes,
        "groups": groups,
        "test": report(answers, backgrounds, classes, groups),
        "confusion": confusion(answers, classes, groups) if len(classes) <= MOST_CLASSES else [],
    }


def background_columns(details: Details) -> dict[str, float]:
    """Takes the columns about backgrounds out of the details; none where nothing has a mask.

    >>> background_columns({"test": {"backgrounds": None}})
    {}
    """
    measured = details["test"]["backgrounds"]
    if measured is None:
        return {}
    found = {name: measured[of][what] for name, (of, what) in BACKGROUNDS.items()}
    return {name: value for name, value in found.items() if value is not None}


def confusion(answers: Answers, classes: Sequence[str], groups: Sequence[str]) -> list[dict[str, Any]]:
    """Counts the answers for each class, and in it for each group.

    Args:
        answers: What was said.
        classes: K names.
        groups: Their names; empty where the data has none.

    Returns:
        For each class and group that occurs together its names, and how often each of the K classes was the answer.
    """
    group = answers.label.new_zeros(len(answers.label)) if answers.group is None else answers.group
    rows = []
    for true in occurring(answers.label):
        for number in occurring(group[answers.label == true]):
            chosen = (answers.label == true) & (group == number)
            rows.append(
                {
                    "class": classes[true],
                    "group": groups[number] if number < len(groups) else "",
                    "answers": answers.predicted[chosen].bincount(minlength=len(classes)).tolist(),
                }
            )
    return rows


def _tested(trainer: L.Trainer, images: int, batch_size: int) -> int:
    """How many of the test images the test had."""
    limit = trainer.limit_test_batches
    batches = limit if isinstance(limit, int) else int(limit * math.ceil(images / batch_size))
    return min(images, batches * batch_size)


def details_file(folder: str | Path) -> Path:
    """Names the file in a run's folder that keeps its details."""
    return Path(folder) / "details.json"


def write_details(folder: str | Path, details: Details) -> None:
    """Keeps the details in the run's folder."""
    write_text(details_file(folder), json.dumps(details, indent=1, ensure_ascii=False))


def read_details(folder: str | Path) -> Details | None:
    """Reads the details of a run; None if it has none."""
    file = details_file(folder)
    found: Details | None = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    return found
