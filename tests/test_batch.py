"""The one check of a batch."""

import pytest
import torch

from lightning_priors.batch import SHAPES, PriorBatch, checked
from lightning_priors.errors import PriorError


def batch() -> dict[str, torch.Tensor]:
    return {
        "image": torch.zeros(2, 3, 8, 6),
        "label": torch.tensor([0, 1]),
        "index": torch.arange(2),
        "aux_labels": torch.zeros(2, 4, dtype=torch.int64),
        "group": torch.tensor([0, 3]),
        "part_boxes": torch.zeros(2, 5, 4),
        "part_valid": torch.ones(2, 5, dtype=torch.bool),
        "keypoints": torch.zeros(2, 7, 2),
        "keypoint_valid": torch.ones(2, 7, dtype=torch.bool),
        "mask": torch.zeros(2, 8, 6),
        "mask_valid": torch.ones(2, dtype=torch.bool),
    }


def test_every_key_has_a_shape() -> None:
    assert SHAPES.keys() == PriorBatch.__annotations__.keys() == batch().keys()


def test_a_right_batch_stays_what_it_is() -> None:
    given = batch() | {"path": ["a.png", "b.png"]}
    found = checked(given)
    assert found.keys() == given.keys()
    assert all(found[key] is value for key, value in given.items())
    assert found is not given


def test_what_is_optional_may_be_left_out() -> None:
    assert checked({key: batch()[key] for key in ("image", "label")}).keys() == {"image", "label"}


@pytest.mark.parametrize(
    ("annotation", "valid"), [("mask", "mask_valid"), ("part_boxes", "part_valid"), ("keypoints", "keypoint_valid")]
)
def test_without_validity_all_are_valid(annotation: str, valid: str) -> None:
    given = {key: value for key, value in batch().items() if key != valid}
    assert torch.equal(checked(given)[valid], batch()[valid])
    assert valid not in given


def test_masks_may_have_a_channel() -> None:
    mask = torch.rand(2, 8, 6)
    assert torch.equal(checked(batch() | {"mask": mask.unsqueeze(1)})["mask"], mask)


@pytest.mark.parametrize("key", list(SHAPES))
def test_another_shape_is_named_with_the_key_and_the_shape_that_is_wanted(key: str) -> None:
    for wrong in (batch()[key].unsqueeze(0), batch()[key][:1]):
        with pytest.raises(PriorError) as error:
            checked(batch() | {key: wrong})
        assert f"has the shape {tuple(wrong.shape)}" in str(error.value) or key == "image"
        assert str(error.value).endswith(" is wanted")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": torch.zeros(2, 8, 7)}, r"batch['mask'] has the shape (2, 8, 7), but (B, H, W) = (2, 8, 6) is wanted"),
        ({"label": torch.zeros(3, dtype=torch.int64)}, "batch['label'] has the shape (3,), but (B,) = (2,) is wanted"),
        ({"part_boxes": torch.zeros(2, 5, 5)}, "batch['part_boxes'] has the shape (2, 5, 5), but (B, K, 4) is wanted"),
        ({"label": torch.zeros(2)}, "batch['label'] is float32, but int64 is wanted"),
        ({"label": torch.zeros(2, dtype=torch.int32)}, "batch['label'] is int32, but int64 is wanted"),
        ({"mask_valid": torch.ones(2)}, "batch['mask_valid'] is float32, but bool is wanted"),
        ({"image": torch.zeros(2, 3, 8, 6, dtype=torch.uint8)}, "batch['image'] is uint8, but floating is wanted"),
        ({"group": [0, 1]}, "batch['group'] is a list, but a tensor is wanted (int64)"),
    ],
)
def test_what_is_said(change: dict[str, object], message: str) -> None:
    with pytest.raises(PriorError) as error:
        checked(batch() | change)
    assert str(error.value) == message


def test_a_missing_key_and_another_kind_of_batch() -> None:
    with pytest.raises(PriorError, match=r"batch\['label'\] is missing; this data gives image"):
        checked({"image": torch.zeros(1, 3, 8, 8)})
    assert checked({"image": torch.zeros(1, 3, 8, 8)}, needs=("image",)).keys() == {"image"}
    with pytest.raises(
        PriorError, match="a batch is a dict with image and label, see PriorBatch; the loader gave a tuple"
    ):
        checked((torch.zeros(1, 3, 8, 8), torch.zeros(1)))
