"""What the package uses of Lightning and jsonargparse under private names, so that an update is checked here alone.

Read in Lightning 2.6.6 and jsonargparse 4.53.0:

* ``LightningCLI._parse_ckpt_path``, ``_set_seed``, ``_run_subcommand``: overridden in `Command`
* ``LightningCLI._parser``, ``_get``: called in `Command`
* ``ArgumentParser._actions``: read in `option_names` and `make_optional`
"""

from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI


class Command(LightningCLI):
    """A `LightningCLI` that keeps to the command line and has public names for its private steps."""

    def seed(self) -> None:
        """Seeds all random number generators; called after parsing, before anything is built."""
        super()._set_seed()

    def start(self) -> None:
        """Starts the training or evaluation; called when everything is built."""
        super()._run_subcommand(str(self.subcommand))

    def parser_of(self, subcommand: str) -> LightningArgumentParser:
        """Returns the parser of a subcommand."""
        return self._parser(subcommand)

    def built(self, option: str) -> Any:
        """Returns what was built from the part of the configuration with this name, such as ``trainer``."""
        return self._get(self.config_init, option)

    def _parse_ckpt_path(self) -> None:
        """Does nothing: Lightning would let the checkpoint's hyper-parameters override the command line."""

    def _set_seed(self) -> None:
        self.seed()

    def _run_subcommand(self, subcommand: str) -> None:
        self.start()


def option_names(parser: LightningArgumentParser) -> list[str]:
    """Lists the options of a parser and of its subcommands.

    Args:
        parser: The parser.

    Returns:
        The names with dots and without dashes.

    >>> parser = LightningArgumentParser()
    >>> action = parser.add_argument("--trainer.max_epochs", type=int)
    >>> option_names(parser)
    ['help', 'trainer.max_epochs']
    """
    options: dict[str, None] = {}
    for action in parser._actions:
        options |= dict.fromkeys(string[2:] for string in action.option_strings if string.startswith("--"))
        for command in action.choices.values() if isinstance(action.choices, dict) else ():
            options |= dict.fromkeys(option_names(command))
    return list(options)


def make_optional(parser: LightningArgumentParser, name: str) -> None:
    """Lets an option be left out that a signature has no default for.

    Args:
        parser: The parser that has the option, with a default set by ``set_defaults``.
        name: The option, with dots.

    >>> parser = LightningArgumentParser()
    >>> action = parser.add_argument("--data.source", required=True)
    >>> make_optional(parser, "data.source")
    >>> parser.parse_args([])
    Namespace(data=Namespace(source=None))
    """
    for action in parser._actions:
        if action.dest == name:
            action.required = False
