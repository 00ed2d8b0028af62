"""Labels that are fixed from the start."""

import pytest
import torch

from lightning_priors.functional.clustering import (
    cluster_classes,
    clusters_in_classes,
    find_clusters,
    hashed_uniform,
    k_means,
    nearest_centre,
    random_sub_classes,
    thumbnails,
)


def blobs(images: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around three places far from each other, and the place of each."""
    generator = torch.Generator().manual_seed(0)
    place = torch.arange(images) % 3
    return torch.randn(images, 4, generator=generator) + 100 * place[:, None], place


@pytest.mark.parametrize("seed", range(4))
def test_k_means_finds_separate_blobs_from_every_start(seed: int) -> None:
    points, place = blobs()
    centres = k_means(points, 3, seed)
    nearest = nearest_centre(points, centres)
    for number in range(3):
        assert nearest[place == number].unique().numel() == 1
        torch.testing.assert_close(centres[nearest[place == number][0]], points[place == number].mean(0))


def test_k_means_is_a_function_of_its_seed_and_leaves_the_generators_alone() -> None:
    points = torch.rand(50, 2, generator=torch.Generator().manual_seed(1))
    state = torch.get_rng_state()
    first, again, other = k_means(points, 7, 0), k_means(points, 7, 0), k_means(points, 7, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first.sort(0).values, other.sort(0).values)


def test_more_iterations_bring_the_points_nearer() -> None:
    points = torch.rand(200, 2, generator=torch.Generator().manual_seed(1))
    distances = [torch.cdist(points, k_means(points, 8, iterations=n)).min(1).values.square().sum() for n in (0, 1, 25)]
    assert distances[0] > distances[1] > distances[2]


def test_fewer_points_than_clusters() -> None:
    points = torch.tensor([[1.0], [5.0]])
    nearest = nearest_centre(points, k_means(points, 4))
    assert nearest[0] != nearest[1]
    assert nearest_centre(torch.ones(3, 1), k_means(torch.ones(3, 1), 2)).tolist() == [0, 0, 0]


def test_clusters_lie_inside_of_their_class() -> None:
    points, _ = blobs()
    label = torch.arange(60) // 40  # the classes share the blobs
    centres = cluster_classes(points, label, [3, 2])
    clusters = clusters_in_classes(points, label, centres, [3, 2])
    assert clusters[label == 0].unique().tolist() == [0, 1, 2]
    assert clusters[label == 1].unique().tolist() == [3, 4]


def test_an_image_keeps_its_cluster_and_a_new_one_gets_the_nearest() -> None:
    image = torch.rand(9, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    batch = {"image": image, "label": torch.arange(9) % 2, "index": torch.arange(9).flip(0) * 7}
    clusters = find_clusters([{k: v[i : i + 4] for k, v in batch.items()} for i in (0, 4, 8)], [2, 3], seed=0)
    own = clusters.of(batch["index"], batch["label"], image, [2, 3])
    assert torch.equal(clusters.of(batch["index"], batch["label"], image.flip(0), [2, 3]), own)
    assert torch.equal(clusters.of(batch["index"] + 1, batch["label"], image, [2, 3]), own)
    assert clusters.rows.tolist() == sorted(batch["index"].tolist())


def test_thumbnails_are_means_of_cells() -> None:
    image = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(thumbnails(image)[1, 64 + 9], image[1, 1, 4:8, 4:8].mean())


def test_hashes_are_those_of_splitmix64() -> None:
    """The first outputs of the published generator with the state 0."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert hashed_uniform(torch.arange(3), 0).tolist() == pytest.approx([bits / 2**64 for bits in published], rel=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_hashes_are_evenly_spread_and_seeds_independent(seed: int) -> None:
    values = hashed_uniform(torch.arange(20_000), seed)
    assert (values.min() >= 0) & (values.max() < 1)
    counts = (values * 10).long().bincount(minlength=10)
    assert (counts - 2000).abs().max() < 6 * 2000**0.5
    other = hashed_uniform(torch.arange(20_000), seed + 1)
    assert torch.corrcoef(torch.stack([values, other]))[0, 1].abs() < 0.03


def test_random_sub_classes_are_even_and_inside_of_the_class() -> None:
    index, label = torch.arange(6000), torch.arange(6000) % 2
    drawn = random_sub_classes(index, label, [2, 4], seed=3)
    counts = drawn.bincount(minlength=6)
    assert (counts[:2] - 1500).abs().max() < 200
    assert (counts[2:] - 750).abs().max() < 150
    assert ((drawn >= 2) == (label == 1)).all()
