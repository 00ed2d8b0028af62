"""The full configuration of each run, known before the first one starts, and the check that the comparison is fair."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import yaml

from lightning_priors.cli import PriorCLI
from lightning_priors.cli.lightning import import_path
from lightning_priors.cli.quiet import less_warnings
from lightning_priors.compare.plan import Plan
from lightning_priors.data.sources import DrawnSplit
from lightning_priors.errors import PriorError

DEFAULTS = (
    "--trainer.devices=1",  # Lightning would take all that it finds
    "--checkpoint.save_last=false",  # a run is not resumed in its midst
)
"""They stand first, so that a plan can say otherwise."""

TRAINING_DATA = (
    "annotated_fraction",
    "augmentation",
    "balance",
    "held_out_fraction",
    "held_out_of",
    "images_per_class",
    "num_workers",
    "train_fraction",
)
"""Options of the data in which runs may differ: how the training images are used. The others decide the images."""

BUDGET = (
    "accumulate_grad_batches",
    "check_val_every_n_epoch",
    "limit_test_batches",
    "limit_train_batches",
    "limit_val_batches",
    "max_epochs",
    "max_steps",
    "max_time",
    "min_epochs",
    "min_steps",
    "overfit_batches",
    "val_check_interval",
)
"""Options of the trainer in which runs may not differ. Of others, such as the precision, a plan may compare several."""


class Task(NamedTuple):
    """One run of a comparison."""

    run: str
    """Name of its config."""
    seed: int
    arguments: list[str]
    """Its command line, without the subcommand."""
    digest: str
    """Of the resolved configuration, wherever its parts were given: another digest is another run."""
    config: dict[str, Any] = {}  # noqa: RUF012 - never changed
    """The resolved configuration."""
    given: tuple[str, ...] = ()
    """The options in it that are not at their defaults, by their dotted names."""
    split: int = 0
    """Number of the drawn split of the data; 0 too where none is drawn."""
    splits: int = 1
    """How many splits are drawn."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        drawn = "" if self.splits == 1 else f", split {self.split}"
        return f"{self.run}{drawn}, seed {self.seed}"

    @property
    def key(self) -> tuple[str, int, str]:
        """What its row is known by."""
        return self.run, self.seed, self.digest


class ParsedFit(PriorCLI):
    """The command ``fit`` up to its resolved configuration: nothing is built and nothing runs.

    Args:
        arguments: The options of the command.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(["fit", *arguments])

    def before_instantiate_classes(self) -> None:
        """Builds nothing."""

    instantiate_classes = after_instantiate_classes = before_instantiate_classes

    def seed(self) -> None:
        """Leaves the random number generators alone."""

    def start(self) -> None:
        """Starts nothing."""

    def resolved(self, skip_default: bool = False) -> dict[str, Any]:
        """Returns every option with its value, as config.yaml has it; or only those that are not at their defaults."""
        text = self.parser_of("fit").dump(self.config.fit, skip_none=False, skip_default=skip_default)
        config: dict[str, Any] = yaml.safe_load(text)
        return config


@less_warnings()
def resolve(plan: Plan) -> list[Task]:
    """Parses every run and checks that they share the data, the budget and the rule that selects the checkpoint.

    Args:
        plan: The comparison.

    Returns:
        The runs, split by split and seed by seed, so that what changes on the machine meets all configs alike.

    Raises:
        PriorError: If a run has a mistake, or two runs cannot be compared; with the plan's name for the run.
    """
    if plan.split_by and plan.splits == 1:
        raise PriorError(f"split_by {plan.split_by!r} says what several splits hold out; give splits too, such as 3")
    configs, given = {}, {}
    for name, variant in plan.runs.items():
        try:
            parsed = ParsedFit([*DEFAULTS, *plan.arguments(variant, plan.seeds[0])])
            configs[name], given[name] = parsed.resolved(), tuple(flat(parsed.resolved(skip_default=True)))
            _check_selection(configs[name])
        except PriorError as error:
            raise PriorError(f"run {name!r}: {error}") from error
    _check_agreement(configs)
    return [
        _task(plan, name, configs[name], given[name], split, seed)
        for split in range(plan.splits)
        for seed in plan.seeds
        for name in plan.runs
    ]


def _task(plan: Plan, name: str, config: dict[str, Any], given: tuple[str, ...], split: int, seed: int) -> Task:
    """One run, on one of the drawn splits where the plan asks for several."""
    arguments = [*DEFAULTS, *plan.arguments(plan.runs[name], seed)]
    if plan.splits > 1:
        source = on_split(config["data"]["source"], split, plan.split_by or None)
        config = {**config, "data": {**config["data"], "source": source}}
        # what single options say of the source is in the resolved one, and they do not fit one that is wrapped
        arguments = [argument for argument in arguments if not argument.startswith("--data.source")]
        arguments.insert(-1, f"--data.source={json.dumps(source)}")
        given = (*given, *(option.replace("data.source", "data.source.source", 1) for option in given))
    config = {**config, "seed_everything": seed}
    return Task(name, seed, arguments, digest(config), config, given, split, plan.splits)


def on_split(source: dict[str, Any], split: int, by: str | None) -> dict[str, Any]:
    """Sets the number of the split of a source, or wraps one that draws none.

    Args:
        source: Its class path and arguments.
        split: The number.
        by: The auxiliary task whose classes are held out, for a source that draws no split.

    Returns:
        The class path and arguments of a source with a `DrawnSplit` in it, or around it.

    >>> on_split({"class_path": "Kakapo"}, 2, "species")["init_args"]
    {'source': {'class_path': 'Kakapo'}, 'by': 'species', 'split': 2}
    """
    found = _with_split(source, split)
    if found is not None:
        return found
    return {"class_path": import_path(DrawnSplit), "init_args": {"source": source, "by": by, "split": split}}


def _with_split(source: dict[str, Any], split: int) -> dict[str, Any] | None:
    """The source with another number in the `DrawnSplit` that it is or wraps; None where there is none."""
    arguments = source.get("init_args") or {}
    if source["class_path"].rpartition(".")[2] == DrawnSplit.__name__:
        return {**source, "init_args": {**arguments, "split": split}}
    inner = arguments.get("source")
    inside = _with_split(inner, split) if isinstance(inner, dict) and "class_path" in inner else None
    return None if inside is None else {**source, "init_args": {**arguments, "source": inside}}


def digest(config: dict[str, Any]) -> str:
    """Makes a short name for a configuration: equal for equal values, whatever the order of the keys.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
    True
    """
    text = json.dumps(config, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def flat(config: object, prefix: str = "") -> dict[str, object]:
    """Lists the values of nested mappings by their dotted option names, as on the command line.

    >>> flat({"data": {"source": {"class_path": "Kakapo", "init_args": {"size": 64}}}})
    {'data.source': 'Kakapo', 'data.source.size': 64}
    >>> flat({"callbacks": [{"class_path": "CAMPanel", "init_args": {"images": 4}}]})
    {'callbacks.0': 'CAMPanel', 'callbacks.0.images': 4}
    """
    if isinstance(config, list) and config and all(isinstance(entry, dict) for entry in config):
        config = {str(number): entry for number, entry in enumerate(config)}
    if not isinstance(config, dict):
        return {prefix: config}
    found: dict[str, object] = {}
    for key, value in config.items():
        inside = key in ("class_path", "init_args")
        found |= flat(value, prefix if inside else f"{prefix}.{key}".lstrip("."))
    return found


def _check_selection(config: dict[str, Any]) -> None:
    if config["trainer"]["fast_dev_run"]:
        raise PriorError(
            "trainer.fast_dev_run writes no checkpoint to test; for a quick try use --trainer.limit_train_batches"
        )
    if config["checkpoint"]["monitor"] is None:
        raise PriorError("checkpoint.monitor must name the validation metric that selects the checkpoint to test")


def _check_agreement(configs: dict[str, dict[str, Any]]) -> None:
    """Against the first run; a value that only one of them has is a difference too."""
    first, *others = configs
    expected = _shared(configs[first])
    for name in others:
        actual = _shared(configs[name])
        for option in sorted(expected.keys() | actual.keys()):
            here, there = actual.get(option), expected.get(option)
            if here != there:
                raise PriorError(
                    f"run {name!r} has {option} {here!r}, but {first!r} has {there!r}: "
                    "the runs of a comparison share the data, the budget and the selection of the checkpoint"
                )


def _shared(config: dict[str, Any]) -> dict[str, object]:
    """The options that decide the data, the budget and the selection."""
    free = {f"data.{name}" for name in TRAINING_DATA}
    budget = {f"trainer.{name}" for name in BUDGET}
    return {
        option: value
        for option, value in flat(config).items()
        if option in budget or (option.startswith(("data.", "checkpoint.")) and option not in free)
    }
