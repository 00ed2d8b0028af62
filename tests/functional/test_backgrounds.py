"""Exchange of the backgrounds of feature maps."""

import torch

from lightning_priors.functional.backgrounds import exchange_cells, shuffle_among


def maps(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = (torch.rand(count, 3, 3, generator=generator) < 0.4).double()
    return torch.randn(count, 2, 3, 3, dtype=torch.float64, generator=generator), target


def test_a_map_that_gets_its_own_background_stays_to_the_bit() -> None:
    features, target = maps()
    order = torch.tensor([0, 2, 1, 3])
    exchanged = exchange_cells(features, target / 3, order)
    assert torch.equal(exchanged[[0, 3]], features[[0, 3]])
    assert not torch.equal(exchanged[[1, 2]], features[[1, 2]])


def test_nothing_of_the_own_background_and_of_the_others_target_is_left() -> None:
    """The derivative by either is zero, by the own target and the other's background it is not."""
    features, target = maps()
    features.requires_grad_()
    order = torch.tensor([1, 2, 3, 0])
    for here, there in enumerate(order):
        (gradient,) = torch.autograd.grad(exchange_cells(features, target, order)[here].square().sum(), features)
        inside, inside_there = target[here].bool(), target[there].bool()
        assert not gradient[here][:, ~inside].any()
        assert gradient[here][:, inside].all()
        if not inside.all():
            assert not gradient[there][:, inside_there].any()
            assert gradient[there][:, ~inside & ~inside_there].all()


def test_targets_stay_in_place_and_empty_ones_give_the_other_map_without_its_target() -> None:
    features, target = maps()
    order = torch.tensor([1, 2, 3, 0])
    exchanged = exchange_cells(features, target, order)
    inside = target.bool().unsqueeze(1).expand_as(features)
    assert torch.equal(exchanged[inside], features[inside])
    backgrounds = exchange_cells(features, torch.zeros_like(target), order)
    assert torch.equal(backgrounds, features[order])
    assert torch.equal(exchange_cells(features, torch.ones_like(target), order), features)


def test_a_background_of_one_colour_comes_whole() -> None:
    """Where the other target was stands the mean of its background, here the colour itself."""
    target = torch.zeros(2, 4, 4)
    target[0, 0, 0] = target[1, 3, 3] = 1
    features = torch.stack([torch.full((1, 4, 4), 2.0), torch.full((1, 4, 4), 5.0)])
    features[1, 0, 3, 3] = 99.0
    exchanged = exchange_cells(features, target, torch.tensor([1, 0]))
    assert exchanged[0, 0].flatten().tolist() == [2.0] + [5.0] * 15


def test_mirrored_maps_are_exchanged_to_mirrored_ones() -> None:
    features, target = maps()
    order = torch.tensor([3, 0, 1, 2])
    mirrored = exchange_cells(features.flip(3), target.flip(2), order)
    torch.testing.assert_close(mirrored.flip(3), exchange_cells(features, target, order))


def test_exchange_gradcheck() -> None:
    features, target = maps(3)
    order = torch.tensor([2, 0, 1])
    assert torch.autograd.gradcheck(
        lambda values: exchange_cells(values, target * 0.7 + 0.1, order), features.requires_grad_()
    )


def test_half_precision_keeps_its_type() -> None:
    features, target = maps()
    exchanged = exchange_cells(features.bfloat16(), target.float(), torch.tensor([1, 0, 3, 2]))
    assert exchanged.dtype == torch.bfloat16


def test_only_some_are_shuffled_and_none_is_lost() -> None:
    torch.manual_seed(0)
    valid = torch.tensor([True, False, True, True, False, True])
    orders = torch.stack([shuffle_among(valid) for _ in range(200)])
    assert (orders.sort(1).values == torch.arange(6)).all()
    assert (orders[:, ~valid] == torch.tensor([1, 4])).all()
    shares = torch.stack([(orders[:, 0] == image).float().mean() for image in (0, 2, 3, 5)])
    assert ((shares - 0.25).abs() < 0.1).all(), "each of the four as often"
