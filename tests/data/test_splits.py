"""Draws are nested, stratified, and decided by the seed alone."""

import itertools
from collections import Counter

import pytest

from lightning_priors.data.splits import drawn_subset, fraction_of_each, number_of_each, stratified_holdout
from lightning_priors.errors import PriorError

LABELS = {index: (0 if index % 10 == 0 else 1 + index % 2) for index in range(7, 407)}  # 40, 160 and 200 images
CLASSES = ["rare", "even", "odd"]


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_the_holdout_takes_its_share_of_every_class(fraction: float) -> None:
    kept, held_out = stratified_holdout(LABELS, fraction, seed=0)
    assert sorted(kept + held_out) == list(LABELS)
    assert kept == sorted(kept)
    assert held_out == sorted(held_out)
    total, taken = Counter(LABELS.values()), Counter(LABELS[index] for index in held_out)
    assert {label: taken[label] for label in total} == {label: round(fraction * total[label]) for label in total}


def test_the_holdout_leaves_and_takes_at_least_one_of_a_small_class() -> None:
    labels = {0: 0, 1: 0, 2: 1, 3: 1, 4: 1, 5: 2}
    for fraction in (0.01, 0.99):
        kept, held_out = stratified_holdout(labels, fraction, seed=0)
        assert {labels[index] for index in kept} == {0, 1, 2}  # the single image of class 2 is kept
        assert {labels[index] for index in held_out} == {0, 1}
    assert stratified_holdout(labels, 0.0, seed=0) == (list(labels), [])
    assert stratified_holdout(labels, 1.0, seed=0) == ([], list(labels))


def test_a_smaller_subset_is_part_of_a_larger_one() -> None:
    fractions = [set(fraction_of_each(LABELS, fraction, 3)) for fraction in (0.001, 0.05, 0.1, 0.33, 0.8, 1.0)]
    numbers = [set(number_of_each(LABELS, number, 3, CLASSES)) for number in (1, 2, 5, 40)]
    for chain in (fractions, numbers):
        for smaller, larger in itertools.pairwise(chain):
            assert smaller < larger
    assert fractions[-1] == set(LABELS)


def test_fractions_and_numbers_draw_in_the_same_order() -> None:
    halves = {index for index in fraction_of_each(LABELS, 0.5, 3) if LABELS[index] == 0}
    assert halves == {index for index in number_of_each(LABELS, 20, 3, CLASSES) if LABELS[index] == 0}


def test_every_class_keeps_an_image() -> None:
    assert Counter(LABELS[index] for index in fraction_of_each(LABELS, 1e-6, 0)) == {0: 1, 1: 1, 2: 1}


def test_the_subset_of_a_class_does_not_depend_on_other_classes() -> None:
    alone = {index: label for index, label in LABELS.items() if label == 2}
    assert fraction_of_each(alone, 0.2, 5) == [i for i in fraction_of_each(LABELS, 0.2, 5) if LABELS[i] == 2]


def test_too_many_images_per_class_are_refused_by_name() -> None:
    with pytest.raises(PriorError, match="images_per_class is 41, but the class 'rare' has 40 training images"):
        number_of_each(LABELS, 41, 0, CLASSES)


def test_annotated_subsets_are_nested_and_exact_in_number() -> None:
    indices = list(LABELS)[::2]
    chain = [drawn_subset(indices, list(LABELS), fraction, 3) for fraction in (0.0, 0.1, 0.5, 1.0)]
    assert [len(chosen) for chosen in chain] == [0, 20, 100, 200]
    for smaller, larger in itertools.pairwise(chain):
        assert set(smaller) < set(larger)


def test_seeds_decide_and_purposes_are_independent() -> None:
    def draws(seed: int) -> tuple[list[int], list[int], list[int]]:
        return (
            stratified_holdout(LABELS, 0.25, seed)[1],
            fraction_of_each(LABELS, 0.25, seed),
            drawn_subset(list(LABELS), list(LABELS), 0.25, seed),
        )

    assert draws(0) == draws(0)
    for first, second in zip(draws(0), draws(1), strict=True):
        assert first != second
    holdout, subset, annotated = (set(draw) for draw in draws(0))
    for one, other in ((holdout, subset), (holdout, annotated), (subset, annotated)):
        assert 10 < len(one & other) < 45  # 25 of 100 by chance
