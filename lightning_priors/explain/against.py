"""Two classifiers on the same images."""

from collections.abc import Sequence

import torch

from lightning_priors.explain.measure import Answers, BackgroundAnswers
from lightning_priors.explain.report import Report, difference, occurring


def compared(
    first: Answers,
    second: Answers,
    backgrounds: tuple[BackgroundAnswers | None, BackgroundAnswers | None],
    groups: Sequence[str],
) -> Report:
    """Computes how much more the first has than the second, image by image.

    Args:
        first: What a classifier said.
        second: What another one said of the same images.
        backgrounds: What both said when the backgrounds were changed.
        groups: Names of the groups.

    Returns:
        Differences with their intervals, and how many images which of them gets right.

    >>> none, no = torch.full((2,), torch.nan), torch.zeros(2, dtype=torch.bool)
    >>> first = Answers(torch.eye(2), torch.tensor([0, 1]), None, none, none, none, no)
    >>> made = compared(first, first._replace(logits=1 - torch.eye(2)), (None, None), [])
    >>> made["accuracy"]["mean"], made["images"]["only_first"]
    (1.0, 2)
    """
    right, other = first.right, second.right
    found: Report = {
        "images": {
            "both": int((right & other).sum()),
            "only_first": int((right & ~other).sum()),
            "only_second": int((~right & other).sum()),
            "neither": int((~right & ~other).sum()),
        },
        "accuracy": difference(right.float(), other.float()),
        "by_group": [],
        "inside": None if first.inside.isnan().all() else difference(first.inside, second.inside),
        "exchanged": None,
    }
    if first.group is not None:
        found["by_group"] = [
            {
                "name": groups[number] if number < len(groups) else f"group {number}",
                **difference(right[first.group == number].float(), other[first.group == number].float()),
            }
            for number in occurring(first.group)
        ]
    one, two = backgrounds
    if one is not None and two is not None:
        label = first.label[one.places]
        hits = [(each.exchanged.argmax(1) == label).float() for each in (one, two)]
        found["exchanged"] = difference(*hits)
    return found


def disagreements(first: Answers, second: Answers, number: int) -> tuple[list[int], list[int]]:
    """Chooses images that one gets right and the other wrong, those first of which the other was most certain.

    Args:
        first: What a classifier said.
        second: What another one said of the same images.
        number: How many at most, of each kind.

    Returns:
        The places of those that only the first gets right, and of those that only the second does.

    >>> none, no = torch.full((2,), torch.nan), torch.zeros(2, dtype=torch.bool)
    >>> first = Answers(torch.eye(2), torch.tensor([0, 1]), None, none, none, none, no)
    >>> disagreements(first, first._replace(logits=torch.tensor([[0.0, 1.0], [0.0, 1.0]])), 4)
    ([0], [])
    """
    return _wrong_where(second, first.right, number), _wrong_where(first, second.right, number)


def most_wrong(answers: Answers, number: int) -> list[int]:
    """Chooses the worst mistakes: the wrong answers with the most confidence.

    Args:
        answers: What a classifier said.
        number: How many at most.

    Returns:
        The places of the images, the worst first.

    >>> none, no = torch.full((3,), torch.nan), torch.zeros(3, dtype=torch.bool)
    >>> logits = torch.tensor([[0.0, 1.0], [0.0, 9.0], [0.0, 9.0]])
    >>> most_wrong(Answers(logits, torch.tensor([0, 0, 1]), None, none, none, none, no), 4)
    [1, 0]
    """
    return _wrong_where(answers, torch.ones_like(answers.right), number)


def _wrong_where(answers: Answers, wanted: torch.Tensor, number: int) -> list[int]:
    """The places of wrong answers among some of the images, the most certain first."""
    certain = torch.where(~answers.right & wanted, answers.confidence, -1.0)
    order = certain.argsort(descending=True, stable=True)[:number].tolist()
    return [place for place in order if certain[place] >= 0]
