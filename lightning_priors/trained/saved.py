"""A classifier as a folder: its weights as safetensors, and config.json, which says what it is."""

import json
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lightning_priors.errors import PriorError
from lightning_priors.trained.checkpoint import saved_shapes
from lightning_priors.trained.description import Description, described

CONFIG, WEIGHTS = "config.json", "model.safetensors"
"""The files of a folder, as the Hub names them."""

KEY = "lightning_priors"
"""What the description is filed under, in config.json and in the metadata of the weights file."""


class Saved(NamedTuple):
    """A classifier as it was read."""

    description: Description
    weights: Path
    origin: str
    """The file that the description is from."""


def write_weights(path: Path, module: nn.Module, description: Description) -> None:
    """Writes a safetensors file whose metadata holds the description, so that the file alone is a classifier.

    Args:
        path: The file.
        module: Tensors that it has under several names are written once.
        description: What it is.
    """
    tensors = {name: tensor.contiguous() for name, tensor in _tensors(module).items()}
    save_file(tensors, path, metadata={"format": "pt", KEY: json.dumps(description)})


def write_config(path: Path, description: Description) -> None:
    """Writes config.json."""
    path.write_text(json.dumps({KEY: description}, indent=2) + "\n", encoding="utf-8")


def is_saved(path: Path) -> bool:
    """Says whether a path is a classifier as this module writes it, or what is left of one.

    >>> is_saved(Path("model.safetensors")), is_saved(Path("best.ckpt"))
    (True, False)
    """
    return path.suffix == ".safetensors" or any((path / name).is_file() for name in (CONFIG, WEIGHTS))


def read_saved(path: Path) -> Saved:
    """Reads what a saved classifier is; of the weights only the metadata.

    Args:
        path: A safetensors file, or a folder with model.safetensors; if it has a config.json, that one counts.

    Raises:
        PriorError: If a file is missing or does not describe a classifier.

    >>> read_saved(Path("no/model.safetensors"))
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: there is no file no/model.safetensors
    """
    weights = path / WEIGHTS if path.is_dir() else path
    if not weights.is_file():
        raise PriorError(f"there is no file {weights}")
    origin = path / CONFIG if (path / CONFIG).is_file() else weights
    try:
        if origin != weights:
            content: Any = json.loads(origin.read_text(encoding="utf-8"))
        else:
            with safe_open(weights, "pt") as file:
                content = {name: json.loads(text) for name, text in (file.metadata() or {}).items() if name == KEY}
    except (SafetensorError, ValueError, OSError) as error:
        raise PriorError(f"{origin} cannot be read: {' '.join(str(error).split())}") from error
    return Saved(described(content.get(KEY) if isinstance(content, dict) else None, str(origin)), weights, str(origin))


def fill(module: nn.Module, weights: Path) -> None:
    """Replaces all parameters and buffers of a module by those of a file.

    Args:
        module: Built from the description of the same classifier.
        weights: As `write_weights` wrote it.

    Raises:
        PriorError: If the file is broken, or has other entries or shapes.
    """
    own = _tensors(module)
    try:
        with safe_open(weights, "pt") as file:
            given: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise PriorError(f"{weights} cannot be read: {' '.join(str(error).split())}") from error
    for name in sorted(own.keys() ^ given.keys()):
        raise PriorError(f"{weights} is not of this classifier: {'no' if name in own else 'another'} entry {name}")
    for name, tensor in own.items():
        if tensor.shape != given[name].shape:
            shapes = f"{tuple(given[name].shape)}, not {tuple(tensor.shape)}"
            raise PriorError(f"{weights} is not of this classifier: {name} has the shape {shapes}")
    first = {id(tensor): name for name, tensor in own.items()}
    everywhere = chain(module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False))
    # under all of its names, so that no part still waits for the weights that its training began with
    module.load_state_dict(
        {name: given[first[id(tensor)]] for name, tensor in everywhere if id(tensor) in first}, False
    )


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers, each under the first of its names."""
    persistent = {name for name, _ in saved_shapes(module)}
    named = chain(module.named_parameters(), module.named_buffers())
    with torch.no_grad():
        return {name: tensor for name, tensor in named if name in persistent}
