"""The numbers of the page: plain values that JSON can hold, with null where there is nothing to measure."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_priors.explain.backgrounds import WHAT_IS_DONE
from lightning_priors.explain.measure import Answers, BackgroundAnswers
from lightning_priors.metrics import GroupAccuracy
from lightning_priors.metrics.ranking import AUROC, AveragePrecision, OneVersusRest
from lightning_priors.statistics import paired_difference
from lightning_priors.techniques.evaluation import class_metrics

Report = dict[str, Any]

BINS = 15  # of the confidence: as many as the metric ece has
SHARES = 10  # bins of the evidence inside the prior


def report(
    answers: Answers, backgrounds: BackgroundAnswers | None, classes: Sequence[str], groups: Sequence[str]
) -> Report:
    """Computes all numbers of one classifier.

    Args:
        answers: What it said.
        backgrounds: What it said when the backgrounds were changed.
        classes: K names.
        groups: Names of the groups; empty where they have none.

    Returns:
        Shares in [0, 1], counts and names.

    >>> nothing = torch.full((2,), torch.nan)
    >>> logits, label = torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])
    >>> no = torch.zeros(2, dtype=torch.bool)
    >>> made = report(Answers(logits, label, None, nothing, nothing, nothing, no), None, ["kakapo", "other"], [])
    >>> made["accuracy"], made["worst_class"]["name"], made["evidence"]
    (0.5, 'other', None)
    """
    by_class = _by(answers, answers.label, classes)
    by_group = [] if answers.group is None else _by(answers, answers.group, groups)
    found = class_metrics(len(classes), "test", {})
    found.update(
        preds=answers.logits,
        target=answers.label,
        group=answers.label if answers.group is None else answers.group,
    )
    metrics = {name.partition("/")[2]: plain(value) for name, value in found.compute().items()}
    return {
        "images": len(answers.label),
        "accuracy": metrics["acc"],
        "f1_macro": metrics["f1_macro"],
        "ece": metrics["ece"],
        "worst_group_acc": metrics["worst_group_acc"],
        **ranking(answers.logits, answers.label),
        "worst_class": _worst(by_class),
        "worst_group": _worst(by_group),
        "by_class": by_class,
        "by_group": by_group,
        "confidence": _by_confidence(answers),
        "evidence": _evidence(answers),
        "backgrounds": None if backgrounds is None else _backgrounds(answers, backgrounds, classes),
    }


def ranking(logits: Tensor, label: Tensor) -> dict[str, float | None]:
    """Computes how well the probabilities rank: area under the ROC curve, and average precision.

    Args:
        logits: (N, K).
        label: (N,) int64.

    Returns:
        Of each class against the others, their mean over the classes that occur; null where only one does.

    >>> ranking(torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 2.0]]), torch.tensor([0, 0, 1]))
    {'auroc': 1.0, 'average_precision': 1.0}
    """
    return {"auroc": _ranked(AUROC(), logits, label), "average_precision": _ranked(AveragePrecision(), logits, label)}


def _ranked(metric: OneVersusRest, logits: Tensor, label: Tensor) -> float | None:
    metric.update(preds=logits, target=label)
    return plain(metric.compute())


def difference(first: Tensor, second: Tensor) -> Report:
    """Computes how much more the first has on average, with a bootstrap interval over the images.

    Args:
        first: (N,) numbers, one for each image.
        second: (N,) those of the same images.

    Returns:
        The mean difference, its 95 % interval (null where there is none, and a note why), and the number of images.

    >>> difference(torch.tensor([1.0, 1.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0, 0.0]))["mean"]
    0.5
    """
    found = paired_difference(first.double().tolist(), second.double().tolist())
    numbers = {"mean": plain(found.mean), "low": plain(found.low), "high": plain(found.high)}
    return {**numbers, "images": found.pairs, "note": found.note}


def occurring(numbers: Tensor) -> list[int]:
    """Lists the numbers that occur, in ascending order.

    >>> occurring(torch.tensor([2, 0, 2]))
    [0, 2]
    """
    return sorted(set(numbers.tolist()))


def plain(value: Tensor | float) -> float | None:
    """Makes a number that JSON has: null where it is not a number.

    >>> plain(torch.tensor(0.5)), plain(float("nan"))
    (0.5, None)
    """
    number = float(value)
    return number if math.isfinite(number) else None


def _by(answers: Answers, key: Tensor, names: Sequence[str]) -> list[Report]:
    """Accuracy and evidence within classes or groups, of those that occur."""
    accuracy = GroupAccuracy(int(key.max()) + 1)
    accuracy.update(answers.predicted, answers.label, key)
    shares = accuracy.compute().reshape(-1)  # a single group's is a scalar
    return [
        {
            "name": names[number] if number < len(names) else f"group {number}",
            "images": int((key == number).sum()),
            "accuracy": plain(shares[number]),
            "inside": plain(answers.inside[key == number].nanmean()),
        }
        for number in occurring(key)
    ]


def _worst(rows: Sequence[Report]) -> Report | None:
    return min(rows, key=lambda row: row["accuracy"], default=None)


def _by_confidence(answers: Answers) -> list[Report]:
    """The images by the probability of the predicted class, in bins of the same width; empty bins are left out."""
    place = torch.bucketize(answers.confidence, torch.linspace(0, 1, BINS + 1)[1:-1])
    rows = []
    for number in occurring(place):
        chosen = place == number
        rows.append(
            {
                "from": number / BINS,
                "to": (number + 1) / BINS,
                "images": int(chosen.sum()),
                "confidence": plain(answers.confidence[chosen].mean()),
                "accuracy": plain(answers.right[chosen].float().mean()),
            }
        )
    return rows


def _evidence(answers: Answers) -> Report | None:
    """How much of the evidence for the true class lies inside the prior."""
    known = ~answers.inside.isnan()
    if not known.any():
        return None
    inside, right = answers.inside[known], answers.right[known]
    return {
        "images": int(known.sum()),
        "epg": plain(inside.mean()),
        "pointing_game": plain(answers.pointed[known].mean()),
        "covered": plain(answers.covered[known].mean()),
        "right": plain(inside[right].mean()),
        "wrong": plain(inside[~right].mean()),
        "histogram": {"right": _histogram(inside[right]), "wrong": _histogram(inside[~right])},
    }


def _histogram(shares: Tensor) -> list[int]:
    counts, _ = np.histogram(shares.numpy(), SHARES, range=(0, 1))
    return [int(count) for count in counts]


def _backgrounds(answers: Answers, changed: BackgroundAnswers, classes: Sequence[str]) -> Report:
    """The accuracy on the same images with their own, no and other backgrounds."""
    label = answers.label[changed.places]
    said = {"original": answers.logits[changed.places], "alone": changed.alone, "exchanged": changed.exchanged}
    right = {name: (logits.argmax(1) == label).float() for name, logits in said.items()}
    return {
        "images": len(label),
        "what_is_done": WHAT_IS_DONE,
        **{
            name: {"accuracy": plain(right[name].mean()), "auroc": ranking(logits, label)["auroc"]}
            for name, logits in said.items()
        },
        "changed": plain((said["original"].argmax(1) != said["exchanged"].argmax(1)).float().mean()),
        "gap": difference(right["original"], right["exchanged"]),
        "by_class": [
            {"name": classes[number], **{name: plain(hits[label == number].mean()) for name, hits in right.items()}}
            for number in occurring(label)
        ],
    }
