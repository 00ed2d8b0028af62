"""What the tests of the YAML files share: which files there are, what they set, and what the defaults are."""

import importlib
import inspect
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import lightning.pytorch.callbacks
import lightning.pytorch.loggers
import yaml
from command_line import REPOSITORY
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

import lightning_priors.callbacks
from lightning_priors import priors, techniques
from lightning_priors.cli.main import CHECKPOINT_DEFAULTS, TRAINER_DEFAULTS
from lightning_priors.data import PriorDataModule, sources
from lightning_priors.techniques import Tuning

CONFIGS = REPOSITORY / "configs"
EXPERIMENTS = REPOSITORY / "experiments"
ALL = [path for folder in (CONFIGS, EXPERIMENTS) for path in sorted(folder.rglob("*.yaml"))]
PLANS = [path for path in ALL if "runs" in yaml.safe_load(path.read_text())]

GROUPS: Mapping[str, tuple[type, Mapping[str, Any]]] = {
    "data": (PriorDataModule, {}),
    "trainer": (Trainer, TRAINER_DEFAULTS),
    "checkpoint": (ModelCheckpoint, CHECKPOINT_DEFAULTS),
}
"""What the entries of a configuration are arguments of, with the defaults of the command line before its own."""

SHORT_NAMES: tuple[ModuleType, ...] = (
    techniques,
    priors,
    sources,
    lightning_priors.callbacks,
    lightning.pytorch.callbacks,
    lightning.pytorch.loggers,
)
"""Where a class is looked for that is named without its module."""


class Option(NamedTuple):
    """An option that a file sets."""

    kind: type
    """The class that has the option."""
    name: str
    value: Any
    default: Any

    @property
    def at_default(self) -> bool:
        """Whether leaving it out would change nothing."""
        return bool(_plain(self.value) == _plain(self.default))


def label(path: Path) -> str:
    """The path as the files themselves write it."""
    return str(path.relative_to(REPOSITORY))


def head(path: Path) -> list[str]:
    """The lines of the comment that a file begins with, without the sign of a comment."""
    lines = path.read_text().splitlines()
    count = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return [line.removeprefix("#") for line in lines[:count]]


def commands(path: Path) -> list[list[str]]:
    """The commands in the head of a file, word by word; a line that is indented further goes on with one."""
    text = re.sub(r"\n {5,}", " ", "\n".join(head(path)))
    return [shlex.split(line) for line in text.splitlines() if re.match(r" {3}\S", line)]


def documents(path: Path) -> list[dict[str, Any]]:
    """What a file configures, as nested mappings: one for a configuration, one for each run of a plan."""
    content = yaml.safe_load(path.read_text())
    if "runs" not in content:
        return [content]
    return [
        nested([*run.get("options", []), *content.get("options", [])], run.get("configs", []))
        for run in content["runs"].values()
    ]


def in_commands(path: Path) -> list[dict[str, Any]]:
    """What the commands in the head of a configuration add to the files that they name."""
    found = []
    for words in commands(path):
        text = re.sub(r"(--[\w.]+) (?!-)", r"\1=", " ".join(words))
        options = [word for word in text.split() if re.match(r"--(model\b|\w+\.)", word)]  # not those of compare itself
        found.append(nested(options, [words[place + 1] for place, word in enumerate(words) if word == "-c"]))
    return found


def nested(options: Sequence[str], files: Sequence[str] = ()) -> dict[str, Any]:
    """Turns options of the command line into nested mappings.

    Args:
        options: Each as ``--name=value``.
        files: The configurations that they are given with; only the model's class is taken from them.

    >>> nested(["--model=MAXL", "--model.lr=0.1"])["model"]
    {'class_path': 'MAXL', 'init_args': {'lr': 0.1}}
    """
    found: dict[str, Any] = {}
    for file in files:
        if name := yaml.safe_load((REPOSITORY / file).read_text()).get("model", {}).get("class_path"):
            found["model"] = {"class_path": name}
    for option in options:
        name, _, value = option.removeprefix("--").partition("=")
        group, *keys = name.split(".")
        if group == "model":
            keys = ["init_args", *keys] if keys else ["class_path"]
        place = found.setdefault(group, {})
        for key in keys[:-1]:
            inner = place.setdefault(key, {})
            if isinstance(inner, str):  # --model.optimizer=CLASS --model.optimizer.lr=0.1
                inner = place[key] = {"class_path": inner, "init_args": {}}
            place = inner["init_args"] if set(inner) == {"class_path", "init_args"} else inner
        place[keys[-1]] = yaml.safe_load(value)
    return found


def options_in(document: Mapping[str, Any]) -> Iterator[Option]:
    """The options that a configuration sets, those of the classes inside it too."""
    for group, entries in document.items():
        if group == "model":
            yield from _of_value(entries)
        elif group in GROUPS:
            kind, defaults = GROUPS[group]
            yield from _of_class(kind, entries, defaults)


@cache
def find_class(name: str) -> type:
    """The class that a file names, with or without its module."""
    module, _, bare = name.rpartition(".")
    places = [importlib.import_module(module)] if module else SHORT_NAMES
    found: type = next(getattr(place, bare) for place in places if hasattr(place, bare))
    return found


def _of_class(kind: type, entries: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Iterator[Option]:
    known = inspect.signature(kind.__init__).parameters
    for given, value in entries.items():
        name = given.removesuffix("+")
        default = known[name].default if name in known else inspect.Parameter.empty
        yield Option(kind, name, value, (defaults or {}).get(name, default))
        if isinstance(default, Tuning):
            yield from _of_class(Tuning, value)
        else:
            yield from _of_value(value)


def _of_value(value: Any) -> Iterator[Option]:
    """The options of the classes that are described within a value."""
    if isinstance(value, Mapping) and "class_path" in value:
        yield from _of_class(find_class(value["class_path"]), value.get("init_args", {}))
    elif isinstance(value, Mapping | list):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from _of_value(entry)


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value
