import pytest
import torch
from torchmetrics.functional.classification import binary_jaccard_index

from lightning_priors.functional.cam import upsample
from lightning_priors.metrics import CAMIoU, EnergyPointingGame, PointingGame

METRICS = [EnergyPointingGame, PointingGame, CAMIoU]
ALL = torch.ones(6, dtype=torch.bool)


def random_maps(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 4, 5, generator=generator), (torch.rand(6, 32, 40, generator=generator) > 0.6).float()


def value_of(metric, evidence, mask, valid=None):
    metric.update(evidence, mask, torch.ones(len(mask), dtype=torch.bool) if valid is None else valid)
    return metric.compute()


def left_half(height: int, width: int) -> torch.Tensor:
    mask = torch.zeros(1, height, width)
    mask[:, :, : width // 2] = 1
    return mask


def test_energy_pointing_game_by_hand():
    evidence = torch.tensor([[[2.0, 1.0, -9.0, 1.0]]])
    assert value_of(EnergyPointingGame(), evidence, left_half(1, 4)).item() == pytest.approx(0.75)


def test_energy_pointing_game_is_the_mean_of_shares():
    evidence, mask = random_maps()
    positive = upsample(evidence, (32, 40)).clamp(min=0)
    reference = ((positive * mask).sum((1, 2)) / positive.sum((1, 2))).mean()
    torch.testing.assert_close(value_of(EnergyPointingGame(), evidence, mask), reference)


def test_energy_pointing_game_counts_a_soft_mask_as_a_share():
    assert value_of(EnergyPointingGame(), torch.ones(1, 2, 2), torch.full((1, 8, 8), 0.25)).item() == 0.25


def test_pointing_game_by_hand():
    evidence = torch.tensor([[[2.0, 1.0]], [[1.0, 2.0]], [[-1.0, -2.0]]])
    mask = left_half(2, 4).expand(3, -1, -1)
    assert value_of(PointingGame(), evidence, mask).item() == pytest.approx(2 / 3)


def test_the_point_is_where_the_upsampled_map_has_its_maximum():
    """An odd factor has a pixel at every centre; whole cells, as border cells are flat outside their centre."""
    for seed in range(20):
        evidence, mask = random_maps(seed)
        mask = mask[:, :4, :5].repeat_interleave(9, 1).repeat_interleave(9, 2)
        fine = upsample(evidence, (36, 45)).flatten(1).argmax(1)
        hits = mask.flatten(1).gather(1, fine[:, None]).mean()
        torch.testing.assert_close(value_of(PointingGame(), evidence, mask), hits)


def test_cells_that_share_the_maximum_share_the_point():
    assert value_of(PointingGame(), torch.zeros(1, 2, 4), left_half(8, 16)).item() == 0.5


def test_cam_iou_by_hand():
    evidence = torch.tensor([[[4.0, 2.0, 1.9, -8.0]]])
    mask = torch.tensor([[[0.0, 1.0, 1.0, 0.4]]])
    assert value_of(CAMIoU(), evidence, mask).item() == pytest.approx(1 / 3)
    assert value_of(CAMIoU(threshold=0.4), evidence, mask).item() == pytest.approx(2 / 3)
    assert value_of(CAMIoU(threshold=1.0), evidence, mask).item() == 0


def test_cam_iou_agrees_with_torchmetrics():
    evidence, mask = random_maps()
    up = upsample(evidence, (32, 40))
    strong = [(image >= 0.5 * image.max()).long() for image in up]
    reference = torch.stack([binary_jaccard_index(s, m.long()) for s, m in zip(strong, mask, strict=True)]).mean()
    torch.testing.assert_close(value_of(CAMIoU(), evidence, mask), reference)


@pytest.mark.parametrize("threshold", [0.0, 1.1])
def test_cam_iou_refuses_a_threshold_out_of_range(threshold):
    with pytest.raises(ValueError, match="share of the map's maximum"):
        CAMIoU(threshold)


@pytest.mark.parametrize("metric", METRICS)
def test_images_without_a_mask_do_not_count(metric):
    evidence, mask = random_maps()
    valid = torch.tensor([True, False, True, True, False, True])
    spoiled = torch.where(valid[:, None, None], mask, torch.nan)
    spoiled[3] = 0  # annotated, but empty
    kept = torch.tensor([0, 2, 5])
    torch.testing.assert_close(
        value_of(metric(), evidence, spoiled, valid), value_of(metric(), evidence[kept], mask[kept])
    )


@pytest.mark.parametrize("metric", METRICS)
def test_no_mask_at_all_is_nan(metric):
    evidence, mask = random_maps()
    assert value_of(metric(), evidence, mask, ~ALL).isnan()


@pytest.mark.parametrize("metric", [EnergyPointingGame, CAMIoU])
def test_no_positive_evidence_scores_zero(metric):
    evidence, mask = random_maps()
    assert value_of(metric(), -evidence.abs(), mask) == 0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_a_positive_factor_changes_nothing(metric, scale):
    evidence, mask = random_maps()
    torch.testing.assert_close(value_of(metric(), scale * evidence, mask), value_of(metric(), evidence, mask))


@pytest.mark.parametrize("metric", METRICS)
def test_flipping_both_changes_nothing(metric):
    evidence, mask = random_maps()
    torch.testing.assert_close(value_of(metric(), evidence.flip(2), mask.flip(2)), value_of(metric(), evidence, mask))


@pytest.mark.parametrize("metric", METRICS)
def test_batches_add_up(metric):
    evidence, mask = random_maps()
    parts = metric()
    for rows in (slice(0, 1), slice(1, 6)):
        parts.update(evidence[rows], mask[rows], ALL[rows])
    torch.testing.assert_close(parts.compute(), value_of(metric(), evidence, mask))


@pytest.mark.parametrize("metric", METRICS)
def test_evidence_in_half_precision_is_computed_in_float32(metric):
    evidence, mask = random_maps()
    half = evidence.half()
    torch.testing.assert_close(value_of(metric(), half * 1000, mask), value_of(metric(), half.float() * 1000, mask))
