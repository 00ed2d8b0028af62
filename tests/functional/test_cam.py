import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from lightning_priors.functional.cam import class_activation_map, evidence_map, logits_from_cam, signed_cam, upsample


def test_class_activation_map_is_the_linear_head_on_each_cell():
    features, weight = torch.randn(2, 5, 3, 4), torch.randn(7, 5)
    cam = class_activation_map(features, weight)
    for row in range(3):
        for column in range(4):
            torch.testing.assert_close(cam[:, :, row, column], features[:, :, row, column] @ weight.T)


def test_logits_from_cam_by_hand():
    cam = torch.tensor([[[[1.0, 3.0]], [[0.0, -4.0]]]])
    assert logits_from_cam(cam, torch.tensor([0.5, 1.0])).tolist() == [[2.5, -1.0]]


def test_signed_cam_is_class_one_minus_class_zero():
    cam = torch.tensor([[[[1.0, 0.0]], [[0.0, 4.0]]]])
    assert signed_cam(cam).tolist() == [[[-1.0, 4.0]]]


def test_signed_cam_wants_two_classes():
    with pytest.raises(ValueError, match="two classes, not 3"):
        signed_cam(torch.zeros(1, 3, 2, 2))


def test_evidence_map_by_hand_for_three_classes():
    cam = torch.tensor([[[[6.0]], [[2.0]], [[-4.0]]]])
    values = [evidence_map(cam, torch.tensor([label])).item() for label in range(3)]
    assert values == [7.0, 1.0, -8.0]  # 6 - (2 - 4) / 2, 2 - (6 - 4) / 2, -4 - (6 + 2) / 2


def test_evidence_map_takes_each_image_by_its_own_label():
    cam = torch.randn(4, 3, 2, 2)
    label = torch.tensor([2, 0, 1, 2])
    whole = evidence_map(cam, label)
    for image in range(4):
        torch.testing.assert_close(whole[image], evidence_map(cam[image : image + 1], label[image : image + 1])[0])


def test_evidence_map_wants_two_classes():
    with pytest.raises(ValueError, match="at least two"):
        evidence_map(torch.zeros(1, 1, 2, 2), torch.tensor([0]))


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (3, 4)])
def test_upsample_agrees_with_scipy(size):
    maps = torch.randn(2, 3, 4)
    rows = (np.arange(size[0]) + 0.5) * 3 / size[0] - 0.5
    columns = (np.arange(size[1]) + 0.5) * 4 / size[1] - 0.5
    grid = np.meshgrid(rows, columns, indexing="ij")
    for before, after in zip(maps, upsample(maps, size), strict=True):
        reference = map_coordinates(before.double().numpy(), grid, order=1, mode="nearest")
        np.testing.assert_allclose(after.numpy(), reference, atol=1e-6)


def test_upsample_of_half_precision_is_float32():
    assert upsample(torch.ones(1, 2, 2, dtype=torch.float16), (4, 4)).dtype == torch.float32
