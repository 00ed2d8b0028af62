"""The data options of a command that trains nothing: the same as those of ``fit``, from the same files."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, Namespace  # type: ignore[attr-defined]  # they are in its __all__

from lightning_priors.cli.class_paths import check_class_paths
from lightning_priors.cli.lightning import make_optional
from lightning_priors.cli.main import CLASS_OPTIONS, ConfigFile, Parser
from lightning_priors.cli.mistakes import mistake_behind
from lightning_priors.cli.user_modules import import_failure, watched_imports
from lightning_priors.data import PriorDataModule
from lightning_priors.errors import PriorError
from lightning_priors.yaml_file import read_yaml

DEFAULT_SOURCE = "lightning_priors.data.sources.Kakapo"
OF_FIT = {"seed_everything", "trainer", "model", "checkpoint", "ckpt_path", "weights_only"}
"""What a run's config.yaml has besides its data; a command that only reads data leaves it alone."""


class DataFile(ConfigFile):
    """The option ``-c``, which takes from the configuration of a run what it says of the data."""

    def apply(self, parser: Any, namespace: Any, values: Any, option_string: str | None) -> None:
        """Adds the entries of one file that are not of ``fit`` alone."""
        content = read_yaml(values)
        if isinstance(content, dict):
            kept = {name: entry for name, entry in content.items() if name not in OF_FIT}
            values = yaml.safe_dump(kept, sort_keys=False)
        ActionConfigFile.__call__(self, parser, namespace, values, option_string)  # type: ignore[no-untyped-call]


def parse_data(
    arguments: Sequence[str],
    add: Callable[[Parser], None] = lambda parser: None,
    prog: str = "lightning-priors",
    description: str = "",
    class_options: Mapping[str, type] | None = None,
) -> tuple[PriorDataModule, Namespace]:
    """Parses the options of a command with those of the data, and builds what they describe.

    Args:
        arguments: The options of the command.
        add: Adds the command's own options to the parser.
        prog: The program and the command, for the help.
        description: What the command does, for the help.
        class_options: The base class of each option of its own that takes a class, for its error lines.

    Returns:
        The data module, before its `setup`, and all options with the objects that they describe.

    Raises:
        PriorError: For a mistake in the options or the files.
        SystemExit: After ``--help``.

    >>> data, options = parse_data(["--data.image_size=48"])
    >>> type(data.source).__name__, data.image_size
    ('Kakapo', 48)
    """
    parser = Parser(prog=prog, description=description, allow_abbrev=False)
    parser.class_options = {**CLASS_OPTIONS, **(class_options or {})}
    parser.add_argument("-c", "--config", action=DataFile, help="A configuration file; may be given repeatedly.")
    parser.add_lightning_class_args(PriorDataModule, "data")
    parser.set_defaults({"data.source": {"class_path": DEFAULT_SOURCE}})
    make_optional(parser, "data.source")
    add(parser)
    with watched_imports() as failures:
        try:
            given = parser.parse_args(list(arguments), defaults=False)
            if source := given.get("data.source.class_path"):  # it gets no arguments of the default source
                parser.set_defaults({"data.source": {"class_path": source}})
            config = parser.parse_args(list(arguments))
            check_class_paths(parser, config)
            built = parser.instantiate(config)
        except (Exception, SystemExit) as error:
            if line := import_failure(error, failures):
                raise PriorError(line) from error
            if mistake := mistake_behind(error):
                raise mistake from error
            raise
    return built.data, built
