"""Looks at the checkpoint that a command is given before anything is built from it."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchmetrics import Metric

from lightning_priors.errors import PriorError, nearest
from lightning_priors.trained.description import check_facts

KINDS: Mapping[str, type] = {"hyper_parameters": dict, "chosen": dict, "metrics": dict, "technique": str}
"""What the entries are that are looked into, where they are there."""


def read_checkpoint(path: str) -> dict[str, Any]:
    """Reads a checkpoint without copying its tensors into memory and without running code from it.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        PriorError: If there is no such file, or it is no checkpoint.

    >>> read_checkpoint("nowhere.ckpt")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: there is no checkpoint nowhere.ckpt
    """
    if not Path(path).is_file():
        files = sorted(Path(path).parent.glob("*.ckpt"))
        raise PriorError(f"there is no checkpoint {path}; {nearest(path, map(str, files))}".rstrip("; "))
    try:
        with warnings.catch_warnings(action="ignore"):  # of a pickle that is refused anyway
            checkpoint: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever torch and pickle raise for foreign bytes
        raise PriorError(f"{path} is not a checkpoint of a training run") from error
    if not isinstance(checkpoint, dict) or not _is_state(checkpoint.get("state_dict")):
        raise PriorError(f"{path} is not a checkpoint of a training run")
    for name, kind in KINDS.items():
        if not isinstance(checkpoint.get(name, kind()), kind):
            raise PriorError(
                f"{path} is not a checkpoint of this library: its {name} is a {type(checkpoint[name]).__name__}"
            )
    if checkpoint.get("facts") is not None:
        check_facts(checkpoint["facts"], path)
    return checkpoint


def _is_state(content: object) -> bool:
    """Says whether something is a ``state_dict``: tensors by their names, and what modules add of their own."""
    return isinstance(content, dict) and all(
        isinstance(name, str) and (isinstance(value, torch.Tensor) or name.endswith("_extra_state"))
        for name, value in content.items()
    )


def trained_technique(checkpoint: Mapping[str, Any]) -> str:
    """Returns the class name of the technique that a checkpoint was trained with.

    Args:
        checkpoint: What `read_checkpoint` gave. Those of older versions have the class's path among the
            hyper-parameters, and only where the command line trained them.

    Returns:
        The name without its module; empty if the checkpoint does not tell.

    >>> trained_technique({"technique": "MAXL", "hyper_parameters": {"_class_path": "mine.Older"}})
    'MAXL'
    >>> trained_technique({"hyper_parameters": {"_class_path": "mine.Older"}})
    'Older'
    """
    path = checkpoint.get("technique") or checkpoint.get("hyper_parameters", {}).get("_class_path", "")
    return str(path).rpartition(".")[2]


def saved_shapes(module: nn.Module) -> Iterator[tuple[str, torch.Size]]:
    """Yields the names and shapes that the module's ``state_dict`` has, without calling it or that of a submodule.

    A backbone may read its weights file when its ``state_dict`` is asked for, which is in vain before a checkpoint.

    Args:
        module: Any module.

    Yields:
        Each parameter and persistent buffer; a shared one under each of its names.

    >>> sorted(saved_shapes(nn.BatchNorm1d(3)))[:2]
    [('bias', torch.Size([3])), ('num_batches_tracked', torch.Size([]))]
    """
    for prefix, inner in module.named_modules(remove_duplicate=False):
        own = [
            *inner.named_parameters(recurse=False, remove_duplicate=False),
            *inner.named_buffers(recurse=False, remove_duplicate=False),
        ]
        for name, tensor in own:
            if name not in inner._non_persistent_buffers_set:
                yield f"{prefix}.{name}".lstrip("."), tensor.shape


def fits(module: nn.Module, state: Mapping[str, torch.Tensor]) -> bool:
    """Says whether a module can take a checkpoint's weights.

    Args:
        module: The module as it was built.
        state: The ``state_dict`` of the checkpoint. The states of metrics and what ``get_extra_state`` has given are
            no matter of shapes.

    Returns:
        Whether all parameters and persistent buffers are there, and no others, with the same shapes.

    >>> fits(nn.Linear(2, 3), nn.Linear(2, 3).state_dict()), fits(nn.Linear(2, 3), nn.Linear(2, 4).state_dict())
    (True, False)
    """
    metrics = tuple(
        f"{name}." for name, inner in module.named_modules(remove_duplicate=False) if isinstance(inner, Metric)
    )
    saved = {
        name: tensor.shape
        for name, tensor in state.items()
        if name.rpartition(".")[2] != "_extra_state" and not name.startswith(metrics)
    }
    return saved == {name: shape for name, shape in saved_shapes(module) if not name.startswith(metrics)}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Says what differs between two sets of hyper-parameters, of those that both have.

    Args:
        before: Those of the checkpoint.
        now: Those of the command.

    Returns:
        Each with both values; empty if all are equal. Private ones, with a leading underscore, are left out.

    >>> changes({"lr": 0.1, "_class_path": "A"}, {"lr": 0.5, "backbone": "tiny"})
    'lr was 0.1, now 0.5'
    """
    both = [name for name in now if name in before and not name.startswith("_")]
    return ", ".join(f"{name} was {before[name]}, now {now[name]}" for name in both if before[name] != now[name])
