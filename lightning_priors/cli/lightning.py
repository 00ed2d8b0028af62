"""What the package uses of Lightning and jsonargparse under private names, so that an update is checked here alone.

Read in Lightning 2.6.6 and jsonargparse 4.53.0:

* ``LightningCLI._parse_ckpt_path``, ``_set_seed``, ``_run_subcommand``: overridden in `Command`
* ``LightningCLI._parser``, ``_get``: called in `Command`
* ``HyperparametersMixin._log_hyperparams``: set in `take_hyperparameters`
* ``WandbLogger._log_model``: set in `take_model_request`
* ``ArgumentParser._actions``: read in `option_names`, `make_optional` and `arguments`
* ``jsonargparse._typehints.ActionTypeHint`` with its ``_typehint`` and ``sub_add_kwargs``: read in `Argument`
* ``jsonargparse._typehints.get_callable_return_type``, ``is_subclass_or_implements_protocol``, ``is_subclass_spec``
* ``jsonargparse._common.get_unaliased_type``, ``is_subclasses_disabled``, ``parser_context``
* ``jsonargparse._util.import_object``, ``get_import_path``
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from jsonargparse import Namespace, set_parsing_settings
from jsonargparse._common import get_unaliased_type, is_subclasses_disabled, parser_context
from jsonargparse._typehints import (
    ActionTypeHint,
    get_callable_return_type,
    is_subclass_or_implements_protocol,
    is_subclass_spec,
)
from jsonargparse._util import get_import_path, import_object
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import WandbLogger

from lightning_priors.import_path import refused_modules

# The first refuses, before it is imported, what runs commands, loads code or changes files, such as os.system, also
# where any function may be named; to jsonargparse's own list it adds the rest of Python's library. The second builds
# no class where none is asked for.
set_parsing_settings(import_path_denylist=refused_modules(), instantiate_subclass_spec_in_any=False)


class Command(LightningCLI):
    """A `LightningCLI` that keeps to the command line and has public names for its private steps."""

    def seed(self) -> None:
        """Seeds all random number generators; called after parsing, before anything is built."""
        super()._set_seed()

    def start(self) -> None:
        """Starts the training or evaluation; called when everything is built."""
        super()._run_subcommand(str(self.subcommand))

    def parser_of(self, subcommand: str) -> LightningArgumentParser:
        """Returns the parser of a subcommand, such as ``fit``."""
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


def take_hyperparameters(module: LightningModule) -> dict[str, Any]:
    """Returns what Lightning would give the loggers of a module's hyper-parameters, and keeps it from doing so.

    Args:
        module: About to be trained or evaluated. Its checkpoints have the hyper-parameters as before.

    >>> from lightning_priors.techniques import Pretrained
    >>> module = Pretrained(lr=0.5)
    >>> take_hyperparameters(module)["lr"], take_hyperparameters(module)
    (0.5, {})
    """
    asked, module._log_hyperparams = module._log_hyperparams, False
    return {name: value for name, value in module.hparams_initial.items() if name != "_class_path"} if asked else {}


def take_model_request(logger: WandbLogger) -> bool:
    """Says whether a W&B logger is to keep the selected checkpoint, and keeps it from doing so itself.

    Args:
        logger: With ``log_model=True`` or not; one that is to keep all checkpoints as they are written does so.
    """
    asked = logger._log_model is True
    if asked:
        logger._log_model = False
    return asked


class Argument(NamedTuple):
    """An option of a parsed configuration, with the type hint that its value must fit."""

    name: str
    """With dots: ``trainer.callbacks``."""
    hint: Any
    value: Any
    action: Any
    """jsonargparse's action."""

    def parser_of(self, parser: LightningArgumentParser, owner: type) -> LightningArgumentParser:
        """Returns the parser for the arguments of a class that the value names."""
        with parser_context(parent_parser=parser):
            made = ActionTypeHint.get_class_parser(owner, self.action.sub_add_kwargs)  # type: ignore[no-untyped-call]
        return cast(LightningArgumentParser, made)


def arguments(parser: LightningArgumentParser, config: Namespace) -> Iterator[Argument]:
    """Yields the options that have a type hint and a value other than that of the code.

    Args:
        parser: The parser of a command or of a class.
        config: What it has parsed.

    Yields:
        The options, those of nested classes not included.

    >>> parser = LightningArgumentParser()
    >>> action = parser.add_argument("--rates", type=list[float])
    >>> [(argument.name, argument.value) for argument in arguments(parser, parser.parse_args(["--rates=[1, 2]"]))]
    [('rates', [1.0, 2.0])]
    """
    for action in parser._actions:
        if isinstance(action, ActionTypeHint):
            value = config.get(action.dest)
            if value is not None and not _is_default(value, action.default):
                yield Argument(action.dest, action._typehint, value, action)


def _is_default(value: Any, default: Any) -> bool:
    """Whether the code itself gives the value; a function stands there as its import path."""
    return value is default or (isinstance(default, str) and callable(value) and import_path(value) == default)


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


def unaliased(hint: Any) -> Any:
    """Returns the type that a type hint stands for.

    Args:
        hint: Any type hint.

    Returns:
        The same without ``Annotated``, ``NewType`` and aliases.

    >>> from typing import Annotated
    >>> unaliased(Annotated[int, "of images"])
    <class 'int'>
    """
    return get_unaliased_type(hint)  # type: ignore[no-untyped-call]


def returned(hint: Any) -> Any:
    """Returns what a function gives back according to its type hint.

    Args:
        hint: A ``Callable``, or a protocol with ``__call__`` that makes an object.

    Returns:
        The type hint of what it returns; None for any other type hint.

    >>> from collections.abc import Callable
    >>> returned(Callable[[int], str])
    <class 'str'>
    """
    return get_callable_return_type(hint)  # type: ignore[no-untyped-call]


def fits(owner: type, expected: type) -> bool:
    """Says whether a class can stand where another class is expected.

    Args:
        owner: The class.
        expected: Its base class, or a protocol that it implements.

    Returns:
        Whether it is one of this kind.

    >>> fits(bool, int)
    True
    """
    return bool(is_subclass_or_implements_protocol(owner, expected))


def names_class(value: object) -> bool:
    """Says whether a parsed value is a ``class_path``, with or without arguments.

    Args:
        value: A value of a parsed configuration.

    Returns:
        Whether jsonargparse would build an object from it where an object is wanted.

    >>> names_class({"class_path": "torch.optim.SGD"}), names_class({"class_path": "bird", "size": 3})
    (True, False)
    """
    return bool(is_subclass_spec(value))  # type: ignore[no-untyped-call]


def has_no_path(owner: type) -> bool:
    """Says whether a class stands in a configuration by its arguments alone, as a dataclass does.

    Args:
        owner: The class.

    Returns:
        Whether jsonargparse leaves the ``class_path`` out.

    >>> has_no_path(Argument), has_no_path(Command)
    (False, False)
    """
    return bool(is_subclasses_disabled(owner))


def import_path(value: object) -> str:
    """Returns the dotted path under which something can be imported.

    Args:
        value: A class, a function or an object in a module.

    Returns:
        The path; the name of its class if there is none, as for a function made while the program runs.

    >>> import_path(Command.start)
    'lightning_priors.cli.lightning.Command.start'
    """
    try:
        return str(get_import_path(value))
    except ValueError:
        return type(value).__qualname__


def named(path: str) -> Any:
    """Imports what a dotted path names.

    Args:
        path: A module and a name in it.

    Returns:
        What the module has under that name.

    Raises:
        ImportError: If there is no such module, or the path may not be named in a configuration.
        AttributeError: If the module has no such name.
        ValueError: If the path has no dot.

    >>> named("collections.OrderedDict")
    <class 'collections.OrderedDict'>
    """
    return import_object(path)
