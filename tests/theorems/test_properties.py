"""Properties that hold for whatever hypothesis finds: prior maps, pictures that are augmented, CAMs and labels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from torch import Tensor
from torchvision import tv_tensors

from lightning_priors.data.transforms import PriorTransform
from lightning_priors.functional.cam import class_activation_map, evidence_map, logits_from_cam, signed_cam
from lightning_priors.functional.guidance import masked_mean
from lightning_priors.functional.prior_maps import prior_map, resize_to_grid
from lightning_priors.nn import CAMHead
from lightning_priors.techniques.maxl.soft_labels import hierarchy_mask, masked_softmax, sinkhorn

PLAIN = settings(
    max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
SIDES = st.integers(1, 13)
VALUES = st.floats(-50, 50, width=32)


def tensors(*shape: int, values: st.SearchStrategy[float] = VALUES) -> st.SearchStrategy[Tensor]:
    """Tensors in double precision."""
    return arrays(np.float32, shape, elements=values).map(lambda array: torch.from_numpy(array).double())


@st.composite
def boxed(draw: st.DrawFn, least: int = 1) -> tuple[Tensor, Tensor]:
    """A box (4,) of whole pixels and its mask (H, W)."""
    height, width = draw(st.integers(least + 2, 40)), draw(st.integers(least + 2, 40))
    x0, y0 = draw(st.integers(0, width - least)), draw(st.integers(0, height - least))
    x1, y1 = draw(st.integers(x0 + least, width)), draw(st.integers(y0 + least, height))
    mask = torch.zeros(height, width)
    mask[y0:y1, x0:x1] = 1
    return torch.tensor([x0, y0, x1, y1], dtype=torch.float32), mask


# -------------------------------------------------------------------- prior maps


@PLAIN
@given(boxed(), st.tuples(SIDES, SIDES), st.floats(0, 1), st.booleans())
def test_a_box_and_its_mask_have_one_prior_that_is_mirrored_with_the_picture(case, size, dilation, hard):
    box, mask = case
    height, width = mask.shape
    image = torch.zeros(1, 3, height, width)
    by_box = {"image": image, "part_boxes": box[None, None]}
    there, valid = prior_map(by_box, size, "part_boxes", dilation, hard=hard)
    assert valid.all()
    assert 0 <= there.min() <= there.max() <= 1 + 1e-6
    mirrored_box = torch.stack([width - box[2], box[1], width - box[0], box[3]])
    mirrored, _ = prior_map({"image": image, "part_boxes": mirrored_box[None, None]}, size, "part_boxes", dilation)
    if not hard:
        torch.testing.assert_close(mirrored, there.flip(2), rtol=1e-4, atol=1e-5)
    if dilation == 0:
        by_mask, _ = prior_map({"mask": mask[None]}, size, "mask", hard=hard)
        if not hard:
            torch.testing.assert_close(by_mask, there, rtol=1e-4, atol=1e-5)


@PLAIN
@given(boxed(), st.tuples(SIDES, SIDES), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_wider_prior_holds_the_narrower_one(case, size, first, more):
    box, mask = case
    batch = {"image": torch.zeros(1, 3, *mask.shape), "part_boxes": box[None, None]}
    narrow, wide = (prior_map(batch, size, "part_boxes", width)[0] for width in (first, first + more))
    assert (wide >= narrow - 1e-5).all()


@PLAIN
@given(arrays(np.float32, st.tuples(SIDES, SIDES), elements=st.floats(0, 1, width=32)), st.tuples(SIDES, SIDES))
def test_a_grid_keeps_the_mean_and_what_no_cell_can_exceed(array, size):
    mask = torch.from_numpy(array)[None]
    grid = resize_to_grid(mask, size)
    torch.testing.assert_close(grid.mean(), mask.mean(), rtol=1e-4, atol=1e-5)
    assert mask.min() - 1e-5 <= grid.min()
    assert grid.max() <= mask.max() + 1e-5


# -------------------------------------------------------------------- pictures that are augmented


@PLAIN
@given(boxed(least=8), st.integers(24, 64), st.sampled_from(["none", "flip", "crop"]), st.integers(0, 10**6))
def test_box_keypoint_mask_and_picture_stay_together(case, size, augmentation, seed):
    """The picture shows the target, so that picture and mask must stay alike, and box and point must fit them."""
    box, mask = case
    middle = torch.stack([box[0] + box[2], box[1] + box[3]]) / 2
    raw = {
        "image": tv_tensors.Image((mask * 255).to(torch.uint8).expand(3, -1, -1).contiguous()),
        "label": 1,
        "mask": tv_tensors.Image(mask[None]),
        "mask_valid": True,
        "part_boxes": tv_tensors.BoundingBoxes(box[None], format="XYXY", canvas_size=tuple(mask.shape)),
        "part_valid": torch.tensor([True]),
        "keypoints": middle[None],
        "keypoint_valid": torch.tensor([True]),
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sample = PriorTransform(size, augmentation, ["body"], ["middle"])(raw, index=0)
    seen = sample["image"] - sample["image"].amin((1, 2), keepdim=True)
    shown = (seen / seen.amax((1, 2), keepdim=True).clamp(min=1e-6)).mean(0)
    if 0 < sample["mask"].mean() < 1 and sample["mask"].min() < 0.01 and sample["mask"].max() > 0.99:
        assert (shown - sample["mask"]).abs().max() < 0.02
    if sample["part_valid"]:
        x0, y0, x1, y1 = sample["part_boxes"][0]
        inside = (sample["mask"] > 0.5).nonzero()
        if len(inside):
            wide = 1.5 * max(size / mask.shape[0], size / mask.shape[1], 1.0)  # what interpolation smears
            low, high = inside.min(0).values, inside.max(0).values + 1
            for edge, found in ((y0, low[0]), (x0, low[1]), (y1, high[0]), (x1, high[1])):
                assert abs(edge - found) <= wide + 0.5
    if sample["keypoint_valid"] and sample["part_valid"]:
        x0, y0, x1, y1 = sample["part_boxes"][0]
        x, y = sample["keypoints"][0]
        assert x0 - 1e-3 <= x <= x1 + 1e-3
        assert y0 - 1e-3 <= y <= y1 + 1e-3


# -------------------------------------------------------------------- class activation maps


@PLAIN
@given(st.data(), st.integers(1, 3), st.integers(2, 5), st.integers(1, 6), SIDES, SIDES)
def test_the_mean_of_a_map_and_the_bias_are_the_logit(data, images, classes, channels, height, width):
    """That of a pooled feature through a linear layer, for every map; also in the head that all techniques share."""
    features = data.draw(tensors(images, channels, height, width))
    weight, bias = data.draw(tensors(classes, channels)), data.draw(tensors(classes))
    cam = class_activation_map(features, weight)
    expected = F.linear(features.mean((2, 3)), weight, bias)
    torch.testing.assert_close(logits_from_cam(cam, bias), expected, rtol=1e-9, atol=1e-8)
    head = CAMHead(channels, classes).double()
    logits, maps = head(features)
    torch.testing.assert_close(maps.mean((2, 3)) + head.bias, logits, rtol=1e-9, atol=1e-8)
    if classes == 2:
        odds = signed_cam(cam).mean((1, 2)) + bias[1] - bias[0]
        torch.testing.assert_close(odds, expected[:, 1] - expected[:, 0], rtol=1e-9, atol=1e-8)


@PLAIN
@given(st.data(), st.integers(2, 5), SIDES, SIDES)
def test_evidence_does_not_see_what_all_classes_share(data, classes, height, width):
    cam, shared = data.draw(tensors(1, classes, height, width)), data.draw(tensors(1, 1, height, width))
    label = torch.tensor([data.draw(st.integers(0, classes - 1))])
    torch.testing.assert_close(evidence_map(cam + shared, label), evidence_map(cam, label), rtol=1e-9, atol=1e-9)


@PLAIN
@given(st.lists(st.tuples(st.one_of(VALUES, st.just(float("nan"))), st.booleans()), min_size=1, max_size=8))
def test_the_mean_over_the_annotated_is_that_of_numpy(entries):
    losses, valid = (list(each) for each in zip(*entries, strict=True))
    if any(np.isnan(loss) for loss, chosen in entries if chosen):
        return
    chosen = [loss for loss, kept in entries if kept]
    found = float(masked_mean(torch.tensor(losses, dtype=torch.float64), torch.tensor(valid)))
    assert found == pytest.approx(np.mean(chosen) if chosen else 0.0, abs=1e-9)


# -------------------------------------------------------------------- soft labels


@st.composite
def scored(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Logits (B, A), the mask (B, A) of each image's sub-classes, the labels (B,) and the numbers of sub-classes."""
    psi = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    label = torch.tensor(draw(st.lists(st.integers(0, len(psi) - 1), min_size=1, max_size=6)))
    logits = draw(tensors(len(label), sum(psi)))
    return logits, hierarchy_mask(psi)[label], label, psi


@PLAIN
@given(scored(), st.floats(0.1, 10))
def test_labels_are_distributions_over_the_sub_classes_of_the_class(case, temperature):
    logits, mask, label, psi = case
    labels = masked_softmax(logits, mask, temperature)
    start = np.cumsum([0, *psi])
    for row, scores, owner in zip(labels, logits, label.tolist(), strict=True):
        own = slice(start[owner], start[owner + 1])
        np.testing.assert_allclose(row[own], softmax(scores[own].numpy() / temperature), rtol=1e-6, atol=1e-9)
        assert row.sum().item() == pytest.approx(1)
        assert row[own].sum().item() == pytest.approx(1)
    moved = masked_softmax(logits + 7.0, mask, temperature)
    torch.testing.assert_close(moved, labels, rtol=1e-6, atol=1e-9)


@PLAIN
@given(scored())
def test_balanced_labels_have_the_shares_of_their_class(case):
    """Whatever the scores are, each sub-class gets an equal share of the images of its class, in the limit."""
    logits, mask, label, psi = case
    labels = sinkhorn(logits / 25, mask, iterations=500)
    torch.testing.assert_close(labels.sum(1), torch.ones_like(labels[:, 0]), rtol=1e-5, atol=1e-6)
    assert not labels[~mask].any()
    start = np.cumsum([0, *psi])
    for owner, count in enumerate(psi):
        images = int((label == owner).sum())
        shares = labels[:, start[owner] : start[owner + 1]].sum(0)
        torch.testing.assert_close(shares, torch.full_like(shares, images / count), rtol=1e-3, atol=1e-4)
