"""Names, columns and factors of auxiliary tasks."""

import pytest

from lightning_priors.errors import PriorError
from lightning_priors.priors.auxiliary_tasks.options import loss_factors, task_columns, task_names


def test_names_are_numbers_unless_given() -> None:
    assert task_names(2, None) == ["aux0", "aux1"]
    assert task_names(2, ["a", "b"]) == ["a", "b"]


def test_columns_come_in_the_order_of_the_tasks_asked_for() -> None:
    assert task_columns(["c", "a"], ["a", "b", "c"]) == [2, 0]
    assert task_columns([], ["a"]) == []
    with pytest.raises(PriorError, match=r"no auxiliary task 'kinds'; did you mean 'kind'\?"):
        task_columns(["kind", "kinds"], ["kind", "colour"])


def test_the_primary_task_counts_as_it_is() -> None:
    assert loss_factors(0, tasks=2).tolist() == [1, 0, 0]
    assert loss_factors([0.25, 2.0], tasks=2).tolist() == [1, 0.25, 2]
    assert loss_factors(3.0, tasks=0).tolist() == [1]
    with pytest.raises(PriorError, match="aux_weight has 1 numbers for 2 auxiliary tasks"):
        loss_factors([1.0], tasks=2)
    with pytest.raises(PriorError, match=r"aux_weight may not be negative: \[1\.0, -0\.5\]"):
        loss_factors([1.0, -0.5], tasks=2)
