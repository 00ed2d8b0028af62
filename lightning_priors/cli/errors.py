"""Turns the parser's long messages into one line that names the mistake and the nearest right name."""

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from lightning_priors.cli.class_paths import not_a_class
from lightning_priors.cli.lightning import named
from lightning_priors.cli.user_modules import missing_class
from lightning_priors.errors import nearest


class Complaint(NamedTuple):
    """What the parser said, and what would have been right."""

    message: str
    """The parser's text, of many lines."""
    option: str
    """The option that the text is about, with dots: ``model.optimizer``; empty when it names none."""
    options: list[str]
    """Every option of the command, with dots and without dashes."""
    bases: Mapping[str, type]
    """The base class of each option that takes a class."""

    @property
    def base(self) -> type | None:
        """The base class that the option takes; it has one of its own for ``--model.help`` too."""
        return self.bases.get(self.option.removesuffix(".help"))


def explain(message: str, options: Iterable[str], bases: Mapping[str, type]) -> str:
    """Says in one line what is wrong with a command line or a configuration file.

    Args:
        message: The parser's message.
        options: Every option of the command, with dots and without dashes.
        bases: The base class of each option that takes a class.

    Returns:
        The line, without a line break.

    >>> explain("unrecognized arguments: --trainer.max_epoch 3", ["trainer.max_epochs"], {})
    "there is no option --trainer.max_epoch; did you mean '--trainer.max_epochs'?"
    """
    complaint = Complaint(message, _option(message), list(options), bases)
    for pattern, line in _LINES:
        if match := re.search(pattern, message):
            return line(complaint, match)
    return " ".join(message.split())


def missing_package(reason: str, context: str) -> str:
    """Says how to install what a class of Lightning's needs.

    Args:
        reason: What Lightning says about the requirement.
        context: What the parser says about the class.

    Returns:
        The line; empty if the reason is another one.

    >>> reason = "Requirement 'mlflow>=1.0.0' not met. HINT: Try running `pip install -U 'mlflow>=1.0.0'`"
    >>> missing_package(reason, "class_path='lightning.pytorch.loggers.MLFlowLogger'")
    "MLFlowLogger needs a package that is not installed: pip install 'mlflow>=1.0.0'"
    """
    packages = re.findall(r"`pip install -U '([^']+)'`", reason)
    owner = re.search(r"class_path='(?:[\w.]+\.)?(\w+)'", context)
    if not packages:
        return ""
    named = f"{owner[1]} needs" if owner else "this needs"
    commands = " or ".join(f"pip install '{name}'" for name in packages)
    return f"{named} a package that is not installed: {commands}"


def not_by_names(message: str) -> str:
    """Says that options stand in a list where the parser, which takes it, then wants them by their names.

    Args:
        message: What the parser says when it builds the class.

    Returns:
        The line; empty if the message says something else.

    >>> not_by_names("argument after ** must be a mapping, not list. Given value: Namespace(class_path='mine.Toy', ...")
    'an option of Toy takes a group of options by their names, not a list'
    """
    kind = re.search(r"argument after \*\* must be a mapping, not (\w+)", message)
    owner = re.search(r"class_path='(?:[\w.]+\.)?(\w+)'", message)
    named = owner[1] if owner else "a class"
    return f"an option of {named} takes a group of options by their names, not a {kind[1]}" if kind else ""


def subclasses(base: type) -> dict[str, type]:
    """Lists the classes that can be given where `base` is asked for.

    Args:
        base: A base class.

    Returns:
        The base class and its imported subclasses by their short names, without those that are abstract, private, or
        bases within this package that it does not export.

    >>> {"ArithmeticError", "OverflowError"} <= subclasses(ArithmeticError).keys()
    True
    """
    hidden = inspect.isabstract(base) or base.__name__.startswith("_") or not _is_exported(base)
    found = {} if hidden else {base.__name__: base}
    children: list[type] = type.__subclasses__(base)
    for child in children:
        found |= subclasses(child)
    return found


def _is_exported(owner: type) -> bool:
    """Says whether a package above a class of this library offers it; other classes may always be named."""
    names = owner.__module__.split(".")
    packages = [sys.modules.get(".".join(names[:length])) for length in range(1, len(names))]
    return names[0] != "lightning_priors" or any(hasattr(package, owner.__name__) for package in packages)


def _unknown_argument(complaint: Complaint, match: re.Match[str]) -> str:
    """Names an argument that the class of an option does not have."""
    name, before, after = match[1], complaint.message[: match.start()], complaint.message[match.end() :]
    paths = re.findall(r"given class_path '([^']+)'", before)
    partial = re.match(r"[^\n]*class_path='([^']+)'", after)
    if not paths and partial is None:  # the top level of a command that has no subcommands
        return _no_entry(complaint, name)
    path = partial[1] if partial else paths[-1]
    base = complaint.base
    if base is not None and path.rsplit(".", 1)[-1] == base.__name__:
        return f"--{complaint.option}.{name} needs a class first: --{complaint.option} CLASS"
    owner = named(path)
    return f"{owner.__name__} has no option {name!r} (--{complaint.option}.{name}); {nearest(name, _arguments(owner))}"


def _unknown_class(complaint: Complaint, match: re.Match[str]) -> str:
    """Names a short name, or a dotted path, that stands for no class."""
    return _no_class(complaint, match[1])


def _unknown_callable(complaint: Complaint, match: re.Match[str]) -> str:
    """Does the same where a function may be named too: such a message has the path only as the value."""
    value = _value(complaint.message)
    spec = re.search(r"class_path='([^']+)'", value)
    return _no_class(complaint, spec[1] if spec else value)


def _no_class(complaint: Complaint, path: str) -> str:
    if path.endswith((".yaml", ".yml")):
        return f"--{complaint.option}: there is no file {path}"
    base = complaint.base
    if "." in path and (line := missing_class(path, base)):
        return f"--{complaint.option}: {line}"
    if base is None and "." in path:
        return f"--{complaint.option}: there is no class {path!r}"
    hint = nearest(path.rsplit(".", 1)[-1], subclasses(base)) if base else "give the class with its module"
    return f"--{complaint.option}: there is no class {path!r}; {hint}"


def _denied(complaint: Complaint, match: re.Match[str]) -> str:
    """Refuses a name on jsonargparse's list of those that run commands, load code or change files."""
    return f"--{complaint.option}: {match[1]} may not be named here: it could run commands, load code or change files"


def _not_a_subclass(complaint: Complaint, match: re.Match[str]) -> str:
    return f"--{complaint.option} takes a subclass of {' or '.join(_classes(match[2]))}, and {match[1]} is none"


def _no_kind_of_class(complaint: Complaint, match: re.Match[str]) -> str:
    """Names a function, or an object, that stands where a class is wanted."""
    path = match[1] or _value(complaint.message)
    return f"--{complaint.option}: {path} {not_a_class(named(path))}"


def _not_callable(complaint: Complaint, match: re.Match[str]) -> str:
    return f"--{complaint.option} takes a function or a class with __call__, and {match[1]} is neither"


def _wrong_class(complaint: Complaint, match: re.Match[str]) -> str:
    base = complaint.base
    hint = f"; {nearest('', subclasses(base))}" if base else ""
    return f"--{complaint.option} takes a {match[1]}{hint}"


def _class_missing(complaint: Complaint, match: re.Match[str]) -> str:
    base = complaint.base
    return f"--{complaint.option} needs a class first" + (f"; {nearest('', subclasses(base))}" if base else "")


def _unknown_choice(complaint: Complaint, match: re.Match[str]) -> str:
    """Names a word that is not allowed, and those that are; a union may have several lists of them."""
    lists = re.findall(r"Expected a typing\.Literal\[([^]]*)\]", complaint.message)
    choices = dict.fromkeys(choice.strip(" '") for choice in ",".join(lists).split(","))
    value = _value(complaint.message)
    return f"--{complaint.option} cannot be {value!r}; {nearest(value, choices)}"


def _missing(complaint: Complaint, match: re.Match[str]) -> str:
    """Lists arguments without a value; the parser puts the command's name before those of the command."""
    names = [re.sub(r"^(fit|validate|test|predict)\.", "", name) for name in match[1].split(", ")]
    prefix = f"{complaint.option}." if complaint.option else ""
    base = complaint.bases.get(names[0])
    hint = f"; {nearest('', subclasses(base))}" if base else ""
    return " and ".join(f"--{prefix}{name}" for name in names) + f" must be given{hint}"


def _unknown_option(complaint: Complaint, match: re.Match[str]) -> str:
    word = match[1]
    if not word.startswith("-"):
        return f"{word!r} belongs to no option"
    name = word.partition("=")[0]
    return f"there is no option {name}; {nearest(name, [f'--{option}' for option in complaint.options])}"


def _unknown_key(complaint: Complaint, match: re.Match[str]) -> str:
    """Names a wrong key of a configuration file."""
    group, name = match.groups()
    return _no_entry(complaint, f"{group}.{name}" if group else name)


def _no_entry(complaint: Complaint, key: str) -> str:
    """Says that there is no such entry: the top level is compared first, then the whole path."""
    root = key.partition(".")[0]
    roots = list(dict.fromkeys(option.partition(".")[0] for option in complaint.options))
    wrong, choices = (key, complaint.options) if root in roots else (root, roots)
    return f"the configuration has no entry {wrong!r}; {nearest(wrong, choices)}"


def _wrong_type(complaint: Complaint, match: re.Match[str]) -> str:
    """Names the type that is wanted, or all types of a union."""
    inner = complaint.message.rpartition("Parser key")[2]
    is_union = "Subtypes:" in inner.partition("Expected")[0]
    types = re.findall(r"Expected an? <class '([^']+)'>", inner.partition("Given value")[0])[: None if is_union else 1]
    wanted = " or ".join("null" if name == "NoneType" else name.rsplit(".", 1)[-1] for name in types)
    return f"--{complaint.option} takes {wanted}, not {_value(complaint.message)!r}"


_LINES: list[tuple[str, Callable[[Complaint, re.Match[str]], str]]] = [
    (r"Importing '([^']+)' is not allowed", _denied),
    (r"Option '([^']+)' is not accepted", _unknown_argument),
    (r"Expected a dot import path string: (\S+)", _unknown_class),
    (r"given class_path '([^']+)':\s+(?:No module named|(?:module|type object) \S+ has no attribute)", _unknown_class),
    (r"a callable class: (?:No module named|(?:module|type object) \S+ has no attribute)", _unknown_callable),
    (r"Expected '([^']+)' to be a subclass of ([^.\n]+)", _not_a_subclass),
    (r"Expected '([^']+)' to be a function that returns", _no_kind_of_class),
    (r"'([^']+)' is an? [\w ]+, not a class", _no_kind_of_class),
    (r"Expected '([^']+)' to be a class that instantiates into callable", _not_callable),
    (r"does not correspond to a subclass of (\w+)", _wrong_class),
    (r"Expected an instantiatable class, but \S+ is abstract", _class_missing),
    (r"(?s)Not a valid subclass of .*Given value: \{'init_args'", _class_missing),
    (r"Expected a typing\.Literal\[", _unknown_choice),
    (r"the following arguments are required: (.+)", _missing),
    (r"unrecognized arguments: (\S+)", _unknown_option),
    (r"(?:Subcommand '\w+'|Group '(\w+)') does not accept option '([^']+)'", _unknown_key),
    (r"expects a function or a callable class: '\w+' object has no attribute()", _no_kind_of_class),
    (r"Expected an? <class '", _wrong_type),
]
"""The most telling part of a message comes first: a union lists the complaints of all its types."""


def _option(message: str) -> str:
    """Returns the option that a message is about; the keys of nested parsers may repeat that of the outer one."""
    option = ""
    for key in dict.fromkeys(re.findall(r'Parser key "([^"]+)"', message)):
        option = key if not option or key.startswith(f"{option}.") else f"{option}.{key}"
    asked = re.match(r"--([\w.]+\.help): ", message)
    return asked[1] if asked and not option else option


def _value(message: str) -> str:
    """Returns what the user gave: the innermost value that a message tells."""
    found = re.search(r"Got value: (.*)", message) or re.search(r"Given value: (?!NestedArg)(.*)", message)
    found = found or re.search(r"val=(.*)\)", message)
    return found[1].strip("'") if found else ""


def _classes(hint: str) -> list[str]:
    """The names in a type hint as the parser prints it, such as ``Union[Adam, SGD]`` and ``<class 'Adam'>``."""
    return [name for name in re.findall(r"\w+", hint) if name not in ("class", "Union", "Optional")]


def _arguments(owner: type) -> list[str]:
    return [name for name in inspect.signature(owner).parameters if name != "self"]
