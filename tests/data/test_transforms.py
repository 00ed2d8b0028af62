"""Image, mask, boxes and keypoints move together, and colour touches the image only."""

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors

from lightning_priors.batch import IMAGE_MEAN, IMAGE_STD
from lightning_priors.data.sources import RawSample
from lightning_priors.data.transforms import PriorTransform, mirrored
from lightning_priors.errors import PriorError

HEIGHT, WIDTH = 90, 120
GEOMETRIES = ["none", "flip", "crop"]
LEVEL = 1 / 255


def raw_sample(mask: Tensor, box: list[float] | None = None, points: list[list[float]] | None = None) -> RawSample:
    """A picture of its own mask (H, W)."""
    height, width = mask.shape
    raw = RawSample(
        image=tv_tensors.Image((mask * 255).round().byte().expand(3, -1, -1)),
        label=1,
        mask=tv_tensors.Image((mask * 255).round()[None] / 255),
        mask_valid=True,
    )
    if box is not None:
        raw["part_boxes"] = tv_tensors.BoundingBoxes([box], format="XYXY", canvas_size=(height, width))
        raw["part_valid"] = torch.tensor([True])
    if points is not None:
        raw["keypoints"] = torch.tensor(points)
        raw["keypoint_valid"] = torch.ones(len(points), dtype=torch.bool)
    return raw


def picture(image: Tensor) -> Tensor:
    """Undoes the normalisation."""
    return image * torch.tensor(IMAGE_STD)[:, None, None] + torch.tensor(IMAGE_MEAN)[:, None, None]


def rectangle(x0: int, y0: int, x1: int, y1: int, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    mask = torch.zeros(height, width)
    mask[y0:y1, x0:x1] = 1
    return mask


def soft_mask() -> Tensor:
    """Every grey level, without symmetry."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 1, 9, 12, generator=generator)
    return torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic")[0, 0].clamp(0, 1)


@pytest.mark.parametrize("augmentation", GEOMETRIES)
@pytest.mark.parametrize("image_size", [48, 160])
@pytest.mark.parametrize("mask", [rectangle(20, 10, 75, 60), soft_mask()], ids=["hard", "soft"])
def test_a_picture_of_its_own_mask_stays_one(augmentation: str, image_size: int, mask: Tensor) -> None:
    torch.manual_seed(1)
    transform = PriorTransform(image_size, augmentation)
    for index in range(20):
        sample = transform(raw_sample(mask), index)
        seen = picture(sample["image"])
        assert sample["mask"].shape == (image_size, image_size)
        # one level: the image is rounded to 8 bits after it is resized, the mask is not
        torch.testing.assert_close(seen, sample["mask"].expand_as(seen), rtol=0, atol=1.01 * LEVEL)


@pytest.mark.parametrize("augmentation", GEOMETRIES)
def test_the_box_of_a_mask_follows_it(augmentation: str) -> None:
    torch.manual_seed(2)
    transform = PriorTransform(96, augmentation)
    raw = raw_sample(rectangle(20, 10, 75, 60), box=[20.0, 10.0, 75.0, 60.0])
    for index in range(20):
        sample = transform(raw, index)
        assert sample["part_valid"].item()
        inside = sample["mask"] > 0.5
        across, down = inside.any(0).nonzero(), inside.any(1).nonzero()
        extent = [across.min().item(), down.min().item(), across.max().item() + 1, down.max().item() + 1]
        # half of a border pixel of the mask may be covered, and half a pixel is lost to rounding it
        torch.testing.assert_close(sample["part_boxes"][0], torch.tensor(extent).float(), rtol=0, atol=1.01)


@pytest.mark.parametrize("augmentation", GEOMETRIES)
def test_a_keypoint_follows_a_bright_dot(augmentation: str) -> None:
    torch.manual_seed(3)
    transform = PriorTransform(WIDTH, augmentation)
    raw = raw_sample(rectangle(50, 30, 59, 37), points=[[54.5, 33.5]])  # the middle of the dot, in borders of pixels
    for index in range(40):
        sample = transform(raw, index)
        weight = picture(sample["image"])[0].clamp(min=0)
        centres = torch.arange(WIDTH) + 0.5
        middle = torch.stack([(weight.sum(0) * centres).sum(), (weight.sum(1) * centres).sum()]) / weight.sum()
        # torchvision's own mirror of keypoints would be off by one
        torch.testing.assert_close(sample["keypoints"][0], middle, rtol=0, atol=0.1)


def test_mirroring_is_exact_and_happens_half_of_the_time() -> None:
    torch.manual_seed(4)
    raw = raw_sample(rectangle(4, 3, 9, 8, 16, 16), box=[4.0, 3.0, 9.0, 8.0], points=[[4.0, 3.0]])
    transform = PriorTransform(16, "flip")
    boxes = [tuple(transform(raw, 0)["part_boxes"][0].tolist()) for _ in range(200)]
    assert set(boxes) == {(4.0, 3.0, 9.0, 8.0), (7.0, 3.0, 12.0, 8.0)}
    assert 70 < boxes.count((4.0, 3.0, 9.0, 8.0)) < 130


def test_left_and_right_change_places_in_the_mirror() -> None:
    torch.manual_seed(5)
    names = ["left eye", "beak", "right eye"]
    raw = raw_sample(rectangle(4, 3, 9, 8, 16, 16), points=[[2.0, 1.0], [3.0, 2.0], [4.0, 3.0]])
    raw["keypoint_valid"] = torch.tensor([True, True, False])
    boxes = [[1.0, 1, 3, 3], [5.0, 5, 9, 9]]
    raw["part_boxes"] = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(16, 16))
    raw["part_valid"] = torch.tensor([True, True])
    transform = PriorTransform(16, "flip", part_names=["left wing", "right wing"], keypoint_names=names)
    samples = [transform(raw, 0) for _ in range(20)]
    flipped = [sample for sample in samples if sample["part_boxes"][0, 0] != 1.0]
    upright = [sample for sample in samples if sample["part_boxes"][0, 0] == 1.0]
    assert flipped
    assert upright
    for sample in upright:
        assert sample["part_boxes"].tolist() == boxes
        assert sample["keypoint_valid"].tolist() == [True, True, False]
    for sample in flipped:
        assert sample["part_boxes"].tolist() == [[7.0, 5.0, 11.0, 9.0], [13.0, 1.0, 15.0, 3.0]]
        assert sample["keypoint_valid"].tolist() == [False, True, True]
        assert sample["keypoints"].tolist() == [[0.0, 0.0], [13.0, 2.0], [14.0, 1.0]]


def test_mirrored_is_its_own_inverse_and_needs_both_sides() -> None:
    order = mirrored(["left leg", "tail", "right leg", "left eye"])
    assert order == [2, 1, 0, 3]
    assert [order[position] for position in order] == [0, 1, 2, 3]
    assert mirrored(["left eye", "tail"]) is None
    assert mirrored([]) is None


def test_what_a_crop_leaves_outside_is_zero_and_not_valid() -> None:
    torch.manual_seed(6)
    raw = raw_sample(rectangle(0, 0, 4, 4), box=[0.0, 0.0, 4.0, 4.0], points=[[2.0, 2.0]])
    transform = PriorTransform(64, "crop")
    seen = [transform(raw, index) for index in range(60)]
    inside = [sample for sample in seen if sample["mask"].amax() > 0.9]
    gone = [sample for sample in seen if sample["mask"].amax() == 0]
    assert inside
    assert gone
    for sample in inside:
        assert sample["part_valid"].item()
        assert sample["mask_valid"].item()
    for sample in gone:
        assert not sample["mask_valid"].item()
        assert not sample["part_valid"].item()
        assert not sample["keypoint_valid"].item()
        assert not sample["part_boxes"].any()
        assert not sample["keypoints"].any()
    for sample in seen:  # a keypoint is in the picture exactly when its place in the mask is
        point = sample["keypoints"][0].long()
        assert not sample["keypoint_valid"].item() or sample["mask"][point[1], point[0]] > 0.4


def test_boxes_are_clipped_to_the_picture() -> None:
    torch.manual_seed(7)
    raw = raw_sample(rectangle(5, 5, 115, 85), box=[5.0, 5.0, 115.0, 85.0])
    transform = PriorTransform(64, "crop")
    boxes = torch.cat([transform(raw, index)["part_boxes"] for index in range(40)])
    assert boxes.min() >= 0
    assert boxes.max() <= 64
    assert (boxes == 0).any()


def test_a_box_thinner_than_a_pixel_is_not_valid() -> None:
    raw = raw_sample(torch.ones(HEIGHT, WIDTH), box=[10.0, 10.0, 16.0, 60.0])
    assert not PriorTransform(16)(raw, 0)["part_valid"].item()
    assert PriorTransform(32)(raw, 0)["part_valid"].item()


@pytest.mark.parametrize("augmentation", ["flip", "crop", "color"])
def test_what_is_not_annotated_stays_so(augmentation: str) -> None:
    torch.manual_seed(8)
    raw = raw_sample(torch.zeros(HEIGHT, WIDTH), box=[0.0, 0.0, 0.0, 0.0], points=[[0.0, 0.0]])
    raw["mask_valid"] = False
    raw["part_valid"] = torch.tensor([False])
    raw["keypoint_valid"] = torch.tensor([False])
    transform = PriorTransform(32, augmentation)
    for index in range(10):
        sample = transform(raw, index)
        for key in ("mask", "mask_valid", "part_boxes", "part_valid", "keypoints", "keypoint_valid"):
            assert not sample[key].any(), key


def test_a_mask_that_is_not_valid_is_zero_whatever_it_holds() -> None:
    raw = raw_sample(torch.ones(8, 8))
    raw["mask_valid"] = False
    sample = PriorTransform(8)(raw, 0)
    assert not sample["mask"].any()
    assert not sample["mask_valid"]


def test_colour_changes_the_image_and_nothing_else() -> None:
    raw = raw_sample(soft_mask(), box=[20.0, 10.0, 75.0, 60.0], points=[[50.0, 30.0]])
    samples = {}
    for augmentation in ("crop", "color"):
        torch.manual_seed(9)
        samples[augmentation] = PriorTransform(64, augmentation)(raw, 0)
    for key in ("mask", "part_boxes", "keypoints"):
        assert torch.equal(samples["crop"][key], samples["color"][key])
    assert (samples["crop"]["image"] - samples["color"]["image"]).abs().mean() > 0.05


def test_evaluation_sees_the_whole_picture() -> None:
    mask = torch.zeros(HEIGHT, WIDTH)
    for row in (slice(0, 9), slice(HEIGHT - 9, None)):
        for column in (slice(0, 12), slice(WIDTH - 12, None)):
            mask[row, column] = 1
    seen = PriorTransform(30)(raw_sample(mask), 0)["mask"]
    assert (torch.stack([seen[0, 0], seen[0, -1], seen[-1, 0], seen[-1, -1]]) > 0.99).all()
    torch.testing.assert_close(seen.mean(), mask.mean(), rtol=0.02, atol=0)


def test_shrinking_is_antialiased() -> None:
    stripes = torch.zeros(60, 60)
    stripes[:, ::2] = 1  # every third column alone would be stripes again
    seen = PriorTransform(20)(raw_sample(stripes), 0)
    torch.testing.assert_close(seen["mask"][:, 2:-2], torch.full((20, 16), 0.5), rtol=0, atol=0.08)
    torch.testing.assert_close(picture(seen["image"])[:, :, 2:-2], torch.full((3, 20, 16), 0.5), rtol=0, atol=0.08)


def test_a_hard_mask_grows_a_soft_border_and_no_blocks() -> None:
    sample = PriorTransform(40)(raw_sample(rectangle(0, 0, 5, 10, 10, 10)), 0)
    assert sample["mask"][0].unique().numel() > 4
    assert (sample["mask"][0].diff() <= 0).all()


def test_the_image_is_normalised_with_the_constants_of_the_batch() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8)[:, None, None].expand(3, 4, 4)
    image = PriorTransform(4)({"image": tv_tensors.Image(pixels), "label": 0}, 0)["image"]
    wanted = (torch.tensor([0.0, 0.2, 1.0]) - torch.tensor(IMAGE_MEAN)) / torch.tensor(IMAGE_STD)
    torch.testing.assert_close(image, wanted[:, None, None].expand(3, 4, 4))


def test_the_sample_is_of_plain_dense_tensors_with_the_keys_of_the_source() -> None:
    raw = raw_sample(soft_mask(), box=[20.0, 10.0, 75.0, 60.0], points=[[50.0, 30.0]])
    raw["aux_labels"] = [3, -1]
    raw["group"] = 2
    sample = PriorTransform(24, "color")(raw, index=11)
    assert set(sample) == set(raw) | {"index"}
    assert {type(value) for value in sample.values()} == {Tensor}
    assert all(value.is_contiguous() for value in sample.values())
    assert [sample[key].item() for key in ("label", "index", "group")] == [1, 11, 2]
    assert sample["aux_labels"].tolist() == [3, -1]
    for key in ("label", "index", "group", "aux_labels"):
        assert sample[key].dtype == torch.int64
    for key in ("image", "mask", "part_boxes", "keypoints"):
        assert sample[key].dtype == torch.float32
    for key in ("mask_valid", "part_valid", "keypoint_valid"):
        assert sample[key].dtype == torch.bool


@pytest.mark.skipif(not hasattr(tv_tensors, "KeyPoints"), reason="torchvision has them from 0.23")
def test_keypoints_of_torchvision_are_taken_too() -> None:
    raw = raw_sample(rectangle(4, 3, 9, 8, 16, 16), points=[[4.0, 3.0]])
    raw["keypoints"] = tv_tensors.KeyPoints([[4.0, 3.0]], canvas_size=(16, 16))
    assert PriorTransform(32)(raw, 0)["keypoints"].tolist() == [[8.0, 6.0]]


def test_an_unknown_augmentation_is_named() -> None:
    with pytest.raises(PriorError, match="no augmentation 'colour', did you mean 'color'"):
        PriorTransform(32, "colour")
