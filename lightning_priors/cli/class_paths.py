"""Checks what a configuration names: a subclass of what its option expects, and nothing else that would be called.

Where a type hint says ``Callable``, ``Any`` or nothing, jsonargparse calls whatever a ``class_path`` names. Where it
says a class, it also calls a function whose annotation promises that class. So a configuration could run any function.
"""

import inspect
from collections import deque
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, NotRequired, Required, Union, get_args, get_origin, get_type_hints, is_typeddict

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from lightning_priors.cli.lightning import (
    Argument,
    arguments,
    fits,
    has_no_path,
    import_path,
    named,
    names_class,
    returned,
    unaliased,
)
from lightning_priors.errors import PriorError

NO_CLASSES = ("builtins", "collections", "collections.abc", "types", "typing")
"""Modules whose types are values and containers: no configuration gives them by a class path."""


def check_class_paths(parser: LightningArgumentParser, config: Namespace) -> None:
    """Refuses a configuration in which a class path names anything but a subclass of what its option expects.

    Args:
        parser: The parser of the command.
        config: What it has parsed; nothing of it has been called yet.

    Raises:
        PriorError: For the first such name, with its option.

    >>> parser = LightningArgumentParser()
    >>> action = parser.add_argument("--judge", type=Callable)
    >>> config = parser.parse_args(['--judge={"class_path": "statistics.mean", "init_args": {"data": [1]}}'])
    >>> check_class_paths(parser, config)
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: --judge: statistics.mean is a function, not a class
    """
    for argument in arguments(parser, config):
        _check(parser, argument, argument.name, [argument.hint], argument.value)


def not_a_class(value: object) -> str:
    """Says what something is that stands where a class is wanted.

    Args:
        value: What a class path names.

    Returns:
        The end of a sentence.

    >>> not_a_class(print), not_a_class(3)
    ('is a function, not a class', 'is an object of int, not a class')
    """
    kind = "a function" if inspect.isroutine(value) else f"an object of {type(value).__name__}"
    return f"is {kind}, not a class"


def _check(parser: LightningArgumentParser, argument: Argument, option: str, hints: list[Any], value: Any) -> None:
    """Checks a value, and what it contains, against the type hints that are possible at its place."""
    hints = [alternative for hint in hints for alternative in _alternatives(hint)]
    mappings = [hint for hint in hints if _is_mapping(hint)]
    if isinstance(value, Mapping) and mappings and not any(get_args(hint) or is_typeddict(hint) for hint in mappings):
        return  # a bare `dict` is data, of which nothing is built
    if names_class(value) and not (isinstance(value, Mapping) and mappings):
        owner = _class_of(option, hints, value["class_path"])
        _check_arguments(parser, argument, option, owner, value.get("init_args"))
    elif isinstance(value, Namespace):  # a dataclass's arguments stand without its path
        for kind in filter(has_no_path, _expected(hints)):
            _check_arguments(parser, argument, option, kind, value)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            _check(parser, argument, option, _inside(hints, str(key)), inner)
    elif isinstance(value, list | tuple | set | frozenset | deque):
        for position, inner in enumerate(value):
            _check(parser, argument, option, _inside(hints, _field(value, position)), inner)
    elif callable(value) and not isinstance(value, type):
        _check_function(option, hints, value)


def _check_arguments(
    parser: LightningArgumentParser, argument: Argument, option: str, owner: type, config: Namespace | None
) -> None:
    """Checks the arguments that a class is given."""
    if config:
        own = argument.parser_of(parser, owner)
        for inner in arguments(own, config):
            _check(own, inner, f"{option}.{inner.name}", [inner.hint], inner.value)


def _class_of(option: str, hints: list[Any], path: str) -> type:
    """Returns the class that a path names, if it may stand there."""
    expected = _expected(hints)
    if not expected:
        raise PriorError(f"--{option} takes no class, because its argument has no type hint that names one: {path}")
    try:
        owner = named(path)
    except (ImportError, AttributeError, ValueError):
        raise PriorError(f"--{option}: there is no class {path!r}") from None
    if not isinstance(owner, type):
        raise PriorError(f"--{option}: {path} {not_a_class(owner)}")
    if not any(fits(owner, kind) for kind in expected):
        raise PriorError(f"--{option} takes {_kinds(expected)}, and {path} is none")
    return owner


def _check_function(option: str, hints: list[Any], function: Any) -> None:
    """Refuses a function that would be called to make an object of a class."""
    made = [kind for hint in hints if _is_callable(hint) for kind in _classes(hint)]
    direct = [kind for hint in hints if not _is_callable(hint) for kind in _classes(hint)]
    if made and Callable not in made and not any(fits(type(function), kind) for kind in direct):
        raise PriorError(f"--{option}: {import_path(function)} {not_a_class(function)}")


def _kinds(expected: list[Any]) -> str:
    names = dict.fromkeys(kind.__name__ for kind in expected if kind is not Callable)
    kinds = [f"a subclass of {' or '.join(names)}"] if names else []
    return " or ".join([*kinds, "a class with __call__"] if Callable in expected else kinds)


def _alternatives(hint: Any) -> list[Any]:
    """Returns the members of a union, or the type hint alone."""
    hint = unaliased(hint)
    if get_origin(hint) in (Union, UnionType, Required, NotRequired):
        return [alternative for member in get_args(hint) for alternative in _alternatives(member)]
    return [hint]


def _expected(hints: list[Any]) -> list[Any]:
    """Returns the classes of which a subclass may be named, and ``Callable`` where any function may stand."""
    return [kind for hint in hints for kind in _classes(hint)]


def _classes(hint: Any) -> list[Any]:
    """Does the same for one member of a union."""
    if _is_callable(hint):
        return _expected(_alternatives(returned(hint))) or [Callable]
    kind = get_origin(hint) or hint
    if not isinstance(kind, type) or kind.__module__ in NO_CLASSES:
        return []
    made = _expected(_alternatives(returned(hint)))  # where a protocol stands for a function that makes an object
    return [kind, *made]


def _is_callable(hint: Any) -> bool:
    return (get_origin(hint) or hint) is Callable


def _is_mapping(hint: Any) -> bool:
    kind = get_origin(hint) or hint
    return is_typeddict(kind) or (isinstance(kind, type) and issubclass(kind, Mapping))


def _inside(hints: list[Any], key: str) -> list[Any]:
    """Returns the type hints of what a container holds under a key or at a position."""
    found: list[Any] = []
    for hint in hints:
        kind, inner = get_origin(hint) or hint, [arg for arg in get_args(hint) if arg is not ...]
        if is_typeddict(kind) or hasattr(kind, "_fields"):
            found += [get_type_hints(kind).get(key, Any)]
        else:
            found += inner[1:] if _is_mapping(hint) else inner
    return found


def _field(value: object, position: int) -> str:
    """Returns the name of a position in a named tuple; empty for any other container."""
    fields = getattr(value, "_fields", ())
    return str(fields[position]) if fields else ""
