"""What an annotator may give, and what is refused."""

from typing import Any

import pytest
import torch

from lightning_priors.annotation import Annotation
from lightning_priors.annotation.annotator import checked
from lightning_priors.errors import PriorError

IMAGES = [torch.zeros(3, 4, 6, dtype=torch.uint8)]


def test_masks_become_float32() -> None:
    (given,) = checked([Annotation(1, mask=torch.ones(4, 6, dtype=torch.bool))], IMAGES, [], "mine")
    assert given.mask is not None
    assert given.mask.dtype == torch.float32
    assert given.mask.sum() == 24


@pytest.mark.parametrize(
    ("given", "parts", "message"),
    [
        ([], [], "mine gave 0, not a list of 1 annotations"),
        (None, [], "mine gave a NoneType, not a list of 1 annotations"),
        ([torch.ones(4, 6)], [], r"mine gave a Tensor for a picture, not an Annotation\(score, mask\)"),
        ([Annotation(float("nan"))], [], "mine gave the score nan"),
        ([Annotation(1.0, mask=torch.ones(6, 4))], [], r"a mask of shape \(6, 4\) for a picture of shape \(4, 6\)"),
        ([Annotation(1.0, mask=torch.full((4, 6), 255.0))], [], "a mask with values from 255 to 255, not from 0 to 1"),
        ([Annotation(1.0, mask=torch.full((4, 6), float("nan")))], [], "a mask with values from nan"),
        ([Annotation(1.0)], ["head"], "mine gave 0 boxes; part_names has 1"),
        ([Annotation(1.0, boxes=[[2, 2, 2, 3]])], ["head"], r"the box head \(of mine\) has no area"),
        (
            [Annotation(1.0, boxes=[[0, 0, 9, 4]])],
            ["head"],
            "lies outside its image of 6 x 4",
        ),
    ],
)
def test_what_does_not_fit_is_named(given: Any, parts: list[str], message: str) -> None:
    with pytest.raises(PriorError, match=message):
        checked(given, IMAGES, parts, "mine")
