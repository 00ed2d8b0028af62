"""Crops as the local network sees them."""

import torch

from lightning_priors.techniques.global_local.crops import Crops
from lightning_priors.techniques.global_local.cutting import cut_out, exchange_backgrounds


def test_crops_on_the_lines_between_pixels_are_those_pixels() -> None:
    image = torch.randn(2, 3, 8, 10)
    box = torch.tensor([[2.0, 1.0, 6.0, 5.0]])
    assert torch.equal(cut_out(image, Crops(box, torch.tensor([1]), box), 4)[0], image[1, :, 1:5, 2:6])


def test_targets_keep_their_pixels_and_each_background_is_used_once() -> None:
    """Pictures of which each has a colour of its own, and targets with a colour of theirs."""
    count, size = 7, 16
    image = torch.arange(float(count)).view(-1, 1, 1, 1).expand(-1, 1, size, size).clone()
    box = torch.tensor([[1.0, 1.0, 7.0, 7.0]]).expand(count, 4)
    target = torch.zeros(count, size, size)
    target[:, 1:7, 1:7] = 1
    image[:, :, 1:7, 1:7] += 100
    whole = torch.tensor([[0.0, 0.0, size, size]]).expand(count, 4)
    crops = Crops(whole, torch.arange(count), box)
    moved = False
    for _ in range(5):
        seen = exchange_backgrounds(cut_out(image, crops, size), target, image, crops)
        inside = target.bool().unsqueeze(1)
        assert torch.equal(seen[inside], image[inside])
        backgrounds = seen[:, 0, 9:, :].flatten(1)
        assert (backgrounds == backgrounds[:, :1]).all(), "of one picture, without its target"
        assert backgrounds[:, 0].sort().values.tolist() == list(range(count))
        moved |= backgrounds[:, 0].tolist() != list(range(count))
    assert moved, "to other pictures than their own"
    assert torch.equal(exchange_backgrounds(image, torch.ones(count, size, size), image, crops), image)
