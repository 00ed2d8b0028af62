"""The full configuration of each run, known before the first one starts, and the check that the comparison is fair."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import yaml

from lightning_priors.cli import PriorCLI
from lightning_priors.cli.quiet import less_warnings
from lightning_priors.compare.plan import Plan
from lightning_priors.errors import PriorError

DEFAULTS = (
    "--trainer.devices=1",  # Lightning would take all that it finds
    "--checkpoint.save_last=false",  # a run is not resumed in its midst
)
"""They stand first, so that a plan can say otherwise."""

TRAINING_DATA = ("annotated_fraction", "augmentation", "images_per_class", "num_workers", "train_fraction")
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

    def resolved(self) -> dict[str, Any]:
        """Returns every option with its value, as config.yaml has it."""
        text = self.parser_of("fit").dump(self.config.fit, skip_none=False)
        config: dict[str, Any] = yaml.safe_load(text)
        return config


@less_warnings()
def resolve(plan: Plan) -> list[Task]:
    """Parses every run and checks that they share the data, the budget and the rule that selects the checkpoint.

    Args:
        plan: The comparison.

    Returns:
        The runs, seed by seed, so that what changes on the machine meets all configs alike.

    Raises:
        PriorError: If a run has a mistake, or two runs cannot be compared; with the plan's name for the run.
    """
    configs = {}
    for name, variant in plan.runs.items():
        try:
            configs[name] = ParsedFit([*DEFAULTS, *plan.arguments(variant, plan.seeds[0])]).resolved()
            _check_selection(configs[name])
        except PriorError as error:
            raise PriorError(f"run {name!r}: {error}") from error
    _check_agreement(configs)
    return [
        Task(
            name, seed, [*DEFAULTS, *plan.arguments(variant, seed)], digest({**configs[name], "seed_everything": seed})
        )
        for seed in plan.seeds
        for name, variant in plan.runs.items()
    ]


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
    """
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
