"""What is compared: named configs times seeds, from a YAML file. Imports no torch, so that mistakes show at once."""

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lightning_priors.errors import PriorError, nearest
from lightning_priors.shipped import find_config
from lightning_priors.yaml_file import read_yaml

PATHS = ("root", "cub_root", "weights", "global_checkpoint", "local_checkpoint")
"""The last words of the options whose value may be a path."""


@dataclass(frozen=True)
class Variant:
    """One of the configs that are compared.

    Args:
        name: Its name in the tables and its folder under the output.
        configs: Files that are laid over each other, later ones winning.
        options: Options as on the command line, such as ``--model.weight=1``; they win over the files.
        grid: Options with several values; each combination of them is a config of its own.
    """

    name: str
    configs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    grid: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def expanded(variant: Variant) -> list[Variant]:
    """Makes a config of each combination of a grid's values.

    Args:
        variant: With a grid or without.

    Returns:
        The configs without a grid, the last option changing fastest; their names tell their values.

    >>> grid = {"--model.lr": ("0.1", "0.01"), "--model.weight": ("3",)}
    >>> [run.name for run in expanded(Variant("told", grid=grid))]
    ['told+lr-0.1+weight-3', 'told+lr-0.01+weight-3']
    """
    runs = []
    for values in itertools.product(*variant.grid.values()):
        pairs = list(zip(variant.grid, values, strict=True))
        label = "".join(f"+{option.rpartition('.')[2]}-{_in_a_name(value)}" for option, value in pairs)
        options = tuple(f"{option}={value}" for option, value in pairs)
        runs.append(Variant(variant.name + label, variant.configs, (*variant.options, *options)))
    return runs


def _in_a_name(value: str) -> str:
    """A value with what a folder's name may have."""
    return re.sub(r"[^\w.+-]+", "_", value).strip("_")


@dataclass(frozen=True)
class Plan:
    """A comparison.

    In a file, configurations and the paths of data and weights are relative to the file; what is not found there is
    looked for in the working folder, and a configuration among the shipped ones. `output` is relative to the working
    folder.

    Args:
        runs: The configs, by name; the first is what the others are compared with.
        shared: Config files for every run, laid over its own part: the data, the trainer.
        options: Options for every run, over everything else.
        seeds: Each run is repeated with each: the first weights, what networks draw, and nothing of the data's split.
        splits: Everything is repeated over so many drawn splits of the data, see
            `lightning_priors.data.sources.DrawnSplit`; 1 leaves the data as it is.
        split_by: The auxiliary task whose classes are held out as a whole; empty draws single images. Where the data is
            given as a `DrawnSplit`, that one decides.
        output: Folder of the tables and of one folder for each run.
        monitors: Validation metrics of which more is better; what each would have selected is tested too, so that the
            summary says what the choice of the monitor costs.
        columns: Columns of the printed table.

    >>> plan = Plan({"plain": Variant("plain", ("a.yaml",), ("--model.lr=1",))}, shared=("b.yaml",), seeds=(0, 1))
    >>> plan.arguments(plan.runs["plain"], seed=1)
    ['--config=a.yaml', '--model.lr=1', '--config=b.yaml', '--seed_everything=1']
    """

    runs: dict[str, Variant]
    shared: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    splits: int = 1
    split_by: str = ""
    output: str = "runs/compare"
    monitors: tuple[str, ...] = ("val/acc", "val/worst_class_acc", "val/worst_group_acc")
    columns: tuple[str, ...] = (
        "test/acc",
        "test/worst_group_acc",
        "test/epg",
        "seconds_per_step",
        "relative_seconds_per_step",
        "fit_seconds",
    )

    def arguments(self, variant: Variant, seed: int) -> list[str]:
        """The command line of one run, without the subcommand: its own part, and over it what is shared."""
        own = [*(f"--config={file}" for file in variant.configs), *variant.options]
        shared = [*(f"--config={file}" for file in self.shared), *self.options]
        return [*own, *shared, f"--seed_everything={seed}"]


def read_plan(path: str) -> Plan:
    """Reads a plan and checks it.

    Args:
        path: A YAML file with the fields of `Plan`, of which only ``runs`` is required, and under each run those of
            `Variant`; or the name of a shipped plan.

    Returns:
        The plan, with defaults filled in.

    Raises:
        PriorError: If the file or one it names is missing, a key is unknown or there twice, or a value is of the wrong
            kind.
    """
    file, _ = find_config(path, plan=True)
    content = read_yaml(str(file))
    try:
        entries = _mapping(content, "the plan", Plan)
        if "runs" not in entries:
            raise PriorError("'runs' is missing: the configs to compare, by name")
        variants = [_variant(name, entry) for name, entry in _named(entries.pop("runs")).items()]
        runs = {}
        for run in (run for variant in variants for run in expanded(variant)):
            if run.name in runs:
                raise PriorError(f"two runs would have the name {run.name!r}; give one of them another")
            runs[run.name] = run
        plan = Plan(runs, **{key: _READERS[key](key, value) for key, value in entries.items()})
        return _located(plan, file.parent)
    except PriorError as error:
        raise PriorError(f"{path}: {error}") from None


def seed_list(text: str) -> tuple[int, ...]:
    """Reads the seeds of the command line.

    Args:
        text: Integers between commas.

    Raises:
        PriorError: If one is no integer, or is there twice.

    >>> seed_list("0,1,2")
    (0, 1, 2)
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not part.isdecimal():
            raise PriorError(f"--seeds takes integers between commas, such as 0,1,2; {part!r} is none")
    return _seeds("--seeds", [int(part) for part in parts])


def whole_number(name: str, value: object, least: int) -> int:
    """Checks that a value is a whole number that is large enough.

    Raises:
        PriorError: If it is not.

    >>> whole_number("splits", 3, least=1)
    3
    """
    if type(value) is not int or value < least:
        raise PriorError(f"{name!r} must be a whole number from {least}, not {value!r}")
    return value


def _located(plan: Plan, folder: Path) -> Plan:
    """The same plan with paths that lead from the working folder to what they name from the plan's folder."""

    def files(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(str(find_config(name, beside=folder)[0]) for name in names)

    def options(given: Sequence[str]) -> tuple[str, ...]:
        parts = (option.partition("=") for option in given)
        return tuple(f"{name}={_from(folder, value) if _names_path(name) else value}" for name, _, value in parts)

    runs = {
        name: replace(run, configs=files(run.configs), options=options(run.options)) for name, run in plan.runs.items()
    }
    return replace(plan, runs=runs, shared=files(plan.shared), options=options(plan.options))


def _names_path(option: str) -> bool:
    return option.rpartition(".")[2] in PATHS


def _from(folder: Path, value: str) -> str:
    return str(folder / value) if (folder / value).exists() else value


def _mapping(content: object, what: str, kind: type[Plan] | type[Variant]) -> dict[str, Any]:
    """A mapping whose keys are fields of a dataclass."""
    if not isinstance(content, dict):
        raise PriorError(f"{what} must be keys with values, not {content!r}")
    known = [entry.name for entry in fields(kind) if entry.name != "name"]
    for key in content:
        if key not in known:
            raise PriorError(f"unknown key {key!r} in {what}; {nearest(str(key), known)}")
    return dict(content)


def _named(value: object) -> dict[str, object]:
    if not isinstance(value, dict) or not value:
        raise PriorError(f"'runs' must name the configs to compare, not {value!r}")
    for name in value:
        if not isinstance(name, str) or not re.fullmatch(r"[\w+-][\w.+-]*", name):
            raise PriorError(f"run {name!r}: a name is made of letters, digits and . _ + -, because it names a folder")
    return value


def _variant(name: str, entry: object) -> Variant:
    values = _mapping(entry, f"run {name!r}", Variant)
    return Variant(name, **{key: _READERS[key](f"{name}.{key}", value) for key, value in values.items()})


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise PriorError(f"{key!r} must be a text, not {value!r}")
    return value


def _texts(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise PriorError(f"{key!r} must be a list of texts, not {value!r}")
    return tuple(value)


def option_texts(key: str, value: object) -> tuple[str, ...]:
    """Checks that a list has options as on the command line.

    Args:
        key: Where the list stands, for the message.
        value: The list.

    Raises:
        PriorError: If it is none, or one is not written ``--name=value``.

    >>> option_texts("options", ["--model.lr=1"])
    ('--model.lr=1',)
    """
    options = _texts(key, value)
    for option in options:
        if not option.startswith("--") or "=" not in option:
            raise PriorError(f"{key!r}: an option is written --name=value, not {option!r}")
    return options


def _grid(key: str, value: object) -> dict[str, tuple[str, ...]]:
    """Options by name, each with the texts of its values."""
    if not isinstance(value, dict) or not value:
        raise PriorError(f"{key!r} must be options with values, such as --model.lr: [0.1, 0.01], not {value!r}")
    for option, values in value.items():
        if not str(option).startswith("--") or "=" in str(option):
            raise PriorError(f"{key!r}: an option of a grid is written --name, not {option!r}")
        if not isinstance(values, list) or not values:
            raise PriorError(f"{key!r}: {option} takes a list of values, not {values!r}")
    return {
        option: tuple(value if isinstance(value, str) else json.dumps(value) for value in values)
        for option, values in value.items()
    }


def _seeds(key: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(type(seed) is int and seed >= 0 for seed in value):
        raise PriorError(f"{key!r} must be a list of integers, none negative, not {value!r}")
    if len(set(value)) < len(value):
        raise PriorError(f"{key!r} has a seed twice: {value}")
    return tuple(value)


_READERS: dict[str, Callable[[str, object], Any]] = {
    "shared": _texts,
    "configs": _texts,
    "options": option_texts,
    "grid": _grid,
    "seeds": _seeds,
    "splits": lambda key, value: whole_number(key, value, least=1),
    "split_by": _text,
    "output": _text,
    "monitors": _texts,
    "columns": _texts,
}
