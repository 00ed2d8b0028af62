"""Labels that stay with an image: what they are, how many classes they have, and what a checkpoint keeps of them."""

import pytest
import torch

from lightning_priors.batch import PriorBatch
from lightning_priors.errors import PriorError
from lightning_priors.nn.fixed_labels import FixedLabels, auxiliary_classes


@pytest.fixture
def batch() -> PriorBatch:
    generator = torch.Generator().manual_seed(0)
    image, label = torch.rand(6, 3, 8, 8, generator=generator), torch.tensor([0, 1, 0, 1, 0, 1])
    return {"image": image, "label": label, "index": torch.arange(6), "aux_labels": label[:, None] * 2 - 1}


def test_the_numbers_of_classes() -> None:
    assert auxiliary_classes("none", 2, 5, [9], 0) == (0, [])
    assert auxiliary_classes("kmeans", 3, 2, [], 0) == (6, [2, 2, 2])


def test_a_missing_human_label_is_a_row_of_zeros(batch: PriorBatch) -> None:
    labels = FixedLabels("human", classes=2, sub_classes=[]).of(batch)
    assert labels.tolist() == [[False, False], [False, True]] * 3
    assert FixedLabels("none", classes=0, sub_classes=[]).of(batch).shape == (6, 0)


@pytest.mark.parametrize("kind", ["random", "kmeans"])
def test_labels_come_back_from_what_a_checkpoint_keeps(batch: PriorBatch, kind: str) -> None:
    first, second = FixedLabels(kind, 5, [3, 2], seed=7), FixedLabels(kind, 5, [3, 2], seed=8)
    if kind == "kmeans":
        with pytest.raises(PriorError, match="there are no clusters yet"):
            first.of(batch)
        first.find([batch], torch.device("cpu"))
    labels = first.of(batch)
    assert (labels.int().argmax(1) // 3).equal(batch["label"])
    assert labels.sum(1).eq(1).all()
    second.load_state_dict(first.state_dict())
    assert second.of(batch).equal(labels)
