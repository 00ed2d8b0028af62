"""The adjusted mutual information against all permutations, closed forms and torchmetrics."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.clustering import adjusted_mutual_info_score, mutual_info_score

from lightning_priors.metrics.mutual_information import adjusted_mutual_information


def counted(first: Tensor, second: Tensor) -> Tensor:
    counts = torch.zeros(int(first.max()) + 1, int(second.max()) + 1, dtype=torch.int64)
    return counts.index_put((first, second), torch.tensor(1), accumulate=True)


def information(first: Tensor, second: Tensor) -> float:
    joint = counted(first, second).double() / len(first)
    return float(torch.xlogy(joint, joint / (joint.sum(1, keepdim=True) * joint.sum(0))).sum())


@pytest.mark.parametrize("second", [[0, 0, 1, 1, 2, 2, 2], [0, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 1, 2, 3]])
def test_chance_is_the_mean_over_all_permutations(second):
    first, second = torch.tensor([0, 0, 0, 1, 1, 1, 2]), torch.tensor(second)
    shuffled = [information(first, second[list(order)]) for order in itertools.permutations(range(7))]
    chance = math.fsum(shuffled) / len(shuffled)
    most = (information(first, first) + information(second, second)) / 2
    expected = (information(first, second) - chance) / (most - chance)
    assert float(adjusted_mutual_information(counted(first, second))) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("images", "groups"), [(40, (3, 5)), (300, (10, 4))])
def test_as_torchmetrics_has_it(images, groups):
    generator = torch.Generator().manual_seed(images)
    first, other = (torch.randint(count, (images,), generator=generator) for count in groups)
    second = torch.where(torch.rand(images, generator=generator) < 0.5, first % groups[1], other)
    torch.sparse.check_sparse_tensor_invariants.disable()  # torchmetrics leaves it open, which torch warns of
    reference = adjusted_mutual_info_score(first, second)
    assert mutual_info_score(first, second) > 0.1
    assert float(adjusted_mutual_information(counted(first, second))) == pytest.approx(float(reference), abs=1e-3)


def test_it_knows_neither_names_nor_sides_nor_empty_groups():
    counts = torch.tensor([[5, 1, 2], [0, 7, 3]])
    value = adjusted_mutual_information(counts)
    padded = torch.zeros(4, 5, dtype=torch.int64)
    padded[1:3, [4, 0, 2]] = counts
    torch.testing.assert_close(adjusted_mutual_information(padded), value)
    torch.testing.assert_close(adjusted_mutual_information(counts.T), value)
    assert 0 < value < 1


def test_unrelated_groupings_of_many_images_have_nothing_in_common():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randint(100, (2, 20000), generator=generator)
    assert abs(float(adjusted_mutual_information(counted(first, second)))) < 1e-3


def test_one_group_has_nothing_to_tell_and_two_single_groups_nothing_to_compare():
    assert adjusted_mutual_information(torch.tensor([[4, 6]])) == 0
    assert adjusted_mutual_information(torch.tensor([[9]])).isnan()
    assert adjusted_mutual_information(torch.zeros(3, 2)).isnan()
