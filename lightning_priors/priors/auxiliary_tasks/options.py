"""Which auxiliary tasks of the data are learned, under which names, and how much each of them counts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_priors.errors import PriorError, nearest


def task_names(count: int, aux_names: Sequence[str] | None) -> list[str]:
    """Names the auxiliary tasks, for logs and options.

    Args:
        count: Number of auxiliary tasks of the data.
        aux_names: Their names, or None for ``aux0``, ``aux1``, ...

    Raises:
        PriorError: If there is not one name for each task, or one is taken.

    >>> task_names(2, None)
    ['aux0', 'aux1']
    """
    names = [f"aux{task}" for task in range(count)] if aux_names is None else list(aux_names)
    if len(names) != count:
        raise PriorError(f"aux_names gives {len(names)} names, but the data has {count} auxiliary tasks")
    if len({"primary", *names}) != len(names) + 1:
        raise PriorError(f"aux_names must differ from each other and from 'primary': {', '.join(names)}")
    return names


def task_columns(tasks: Sequence[str], available: Sequence[str]) -> list[int]:
    """Finds in which columns of the auxiliary labels some tasks stand.

    Args:
        tasks: Their names.
        available: The names of all auxiliary tasks of the data, in the order of the columns.

    Raises:
        PriorError: If there is no task of a name.

    >>> task_columns(["species"], ["colour", "species"])
    [1]
    """
    for name in tasks:
        if name not in available:
            raise PriorError(f"there is no auxiliary task {name!r}; {nearest(name, available)}")
    return [available.index(name) for name in tasks]


def loss_factors(weight: float | Sequence[float], tasks: int) -> Tensor:
    """Lists the factors on the losses of all tasks.

    Args:
        weight: One number for all auxiliary tasks, or one for each of them.
        tasks: Number of auxiliary tasks A.

    Returns:
        (A + 1,), the primary task first.

    Raises:
        PriorError: If there is not one number for each task, or one is negative.

    >>> loss_factors(0.5, tasks=2)
    tensor([1.0000, 0.5000, 0.5000])
    """
    factors = [float(weight)] * tasks if isinstance(weight, int | float) else list(weight)
    if len(factors) != tasks:
        raise PriorError(f"aux_weight has {len(factors)} numbers for {tasks} auxiliary tasks")
    if any(factor < 0 for factor in factors):
        raise PriorError(f"aux_weight may not be negative: {factors}")
    return torch.tensor([1.0, *factors])
