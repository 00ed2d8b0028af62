"""The help of fit, validate, test and predict: what people use, and the options of one class."""

import inspect
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass

from docstring_parser import parse

from lightning_priors.cli.errors import subclasses
from lightning_priors.cli.lightning import named
from lightning_priors.cli.user_modules import import_failure, watched_imports
from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources.annotated import Annotated
from lightning_priors.errors import PriorError

LEFT = 30
"""Width of the column of names."""

TRAINER = {
    "max_epochs": "epochs of training",
    "accelerator": "cpu, gpu, mps or auto",
    "devices": "how many of them",
    "precision": "such as bf16-mixed",
    "accumulate_grad_batches": "batches to one step of the optimiser",
    "gradient_clip_val": "greatest norm of the gradient",
    "limit_train_batches": "batches of an epoch: a number, or a share such as 0.1",
    "fast_dev_run": "tries a few batches of everything and writes nothing",
    "logger": "besides metrics.csv: WandbLogger, TensorBoardLogger, MLFlowLogger",
    "callbacks+": "adds a callback, such as EarlyStopping",
}

OTHERS = {
    "--ckpt_path FILE": "the checkpoint to evaluate, or to continue from",
    "--checkpoint.monitor METRIC": "what best.ckpt is the best of",
    "--seed_everything N": "the first weights, and all that is random in training",
    "--print_config": "prints the whole configuration and does nothing",
    "--help-all": "all options, those of Lightning's Trainer too",
}

NOT_TOLD = ("self", "source", "extra_metrics")


def help_text(arguments: Sequence[str], bases: Mapping[str, type]) -> str:
    """Writes the help that a command line asks for.

    Args:
        arguments: The command and its options.
        bases: The base class of each option that takes a class.

    Returns:
        The text; empty if no help is asked for, or about a class that there is not, or about all options.

    >>> help_text(["fit", "--model", "MAXL"], {})
    ''
    >>> from lightning_priors.data.sources import Source
    >>> print(help_text(["fit", "--data.source.help", "Pets"], {"data.source": Source}))
    <BLANKLINE>
    """
    for option, base in bases.items():
        if name := _value(arguments, f"--{option}.help"):
            return _about(option, name, base)
    if not {"-h", "--help"} & set(arguments):
        return ""
    for option in ("model.priors", "data.source", "model"):
        if name := _value(arguments, f"--{option}") or _value(arguments, f"--{option}+"):
            return _about(option, name, bases[option])
    return _overview(arguments[0], bases)


def class_help(option: str, owner: type) -> str:
    """Describes a class and its options.

    Args:
        option: What the class is given to, such as ``model``.
        owner: The class, with a docstring in Google's style.

    Returns:
        The text.

    >>> from lightning_priors.priors import StartingPoint
    >>> print(class_help("model.priors", StartingPoint).splitlines()[-1].strip())
    --model.priors.weight 0.01      Weight of the penalty.
    """
    doc = parse(inspect.getdoc(owner) or "")
    head = [f"{owner.__name__}: {doc.short_description or ''}", *_paragraphs(doc.long_description or "")]
    return "\n\n".join([*head, "\n".join(_whole(entry) for entry in _described(option, owner))])


def _overview(command: str, bases: Mapping[str, type]) -> str:
    example = "-c cam_restriction" if command == "fit" else "-c RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt"
    data = [_one_line(entry, LEFT) for entry in _described("data", PriorDataModule)]
    return "\n".join(
        [
            f"usage: lightning-priors {command} [-c FILE ...] [--OPTION VALUE ...]",
            f"       lightning-priors {command} {example}\n",
            "-c FILE: a configuration of yours, or a shipped one by its name, see `lightning-priors configs`\n",
            "--model NAME, the technique; its options: --model NAME --help",
            *_kinds(bases["model"]),
            "\n--model.priors+ NAME, a prior of Combined, GlobalLocal, MAXL; its options: --model.priors+ NAME --help",
            *_kinds(bases["model.priors"]),
            "\n--data.source NAME, the images; its options: --data.source NAME --help",
            *_sources(bases["data.source"]),
            "\nthe batches",
            *data,
            "\nthe training",
            *(_one_line((f"--trainer.{name}", text), LEFT) for name, text in TRAINER.items()),
            "\nmore",
            *(_one_line(entry, LEFT) for entry in OTHERS.items()),
        ]
    )


def _about(option: str, name: str, base: type) -> str:
    """Describes the class of a name; silent where there is none, so that the parser names the nearest."""
    if name.lstrip().startswith(("{", "[")) or name.endswith((".yaml", ".yml")):
        return ""
    with watched_imports() as failures:
        try:
            owner = named(name) if "." in name else subclasses(base).get(name)
        except Exception as error:  # whatever a user's module raises
            if line := import_failure(error, failures):
                raise PriorError(line) from error
            if isinstance(error, ImportError | AttributeError | ValueError):
                return ""
            raise
    return class_help(option, owner) if isinstance(owner, type) and issubclass(owner, base) else ""


def _sources(base: type) -> list[str]:
    """The sources; those of one annotation format and those that change another source share their lines."""
    kinds = {name: kind for name, kind in sorted(subclasses(base).items()) if kind is not base}
    formats = [name for name, kind in kinds.items() if issubclass(kind, Annotated)]
    around = [name for name, kind in kinds.items() if "source" in inspect.signature(kind).parameters]
    return [
        *_lines({name: kind for name, kind in kinds.items() if name not in {*formats, *around}}),
        *_named_together("files of an annotation tool:", formats),
        *_named_together("change another source:", around),
    ]


def _named_together(what: str, names: Sequence[str]) -> list[str]:
    text = f"{what} {', '.join(names)}"
    return textwrap.wrap(text, _width() - 2, initial_indent="  ", subsequent_indent="    ")


def _kinds(base: type) -> list[str]:
    """The classes that an option takes, one line each."""
    return _lines({name: kind for name, kind in sorted(subclasses(base).items()) if kind is not base})


def _lines(kinds: Mapping[str, type]) -> list[str]:
    width = max(map(len, kinds), default=0)
    return [
        _one_line((name, parse(inspect.getdoc(kind) or "").short_description or ""), width)
        for name, kind in kinds.items()
    ]


def _described(option: str, owner: type) -> list[tuple[str, str]]:
    """The options of a class, each with its default, and what it is."""
    doc = {param.arg_name: param.description or "" for param in parse(inspect.getdoc(owner) or "").params}
    entries: list[tuple[str, str]] = []
    for name, parameter in inspect.signature(owner).parameters.items():
        if name in NOT_TOLD or parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        if is_dataclass(parameter.default):
            entries += _described(f"{option}.{name}", type(parameter.default))
        else:
            entries.append((f"--{option}.{name}{_default(parameter)}", doc.get(name, "")))
    return entries


def _default(parameter: inspect.Parameter) -> str:
    value = parameter.default
    if value is inspect.Parameter.empty:
        return " (needed)"
    if isinstance(value, bool):
        return f" {str(value).lower()}"
    return f" {value}" if isinstance(value, str | int | float) else ""


def _one_line(entry: tuple[str, str], left: int) -> str:
    """An option and the beginning of what it is."""
    name, text = entry
    sentence = " ".join(text.replace("`", "").split()).partition(". ")[0].rstrip(".")
    return f"  {name:{left}}  {textwrap.shorten(sentence, _width() - max(left, len(name)) - 4, placeholder=' ...')}"


def _whole(entry: tuple[str, str]) -> str:
    """An option and beside it all of what it is; a long name has a line of its own."""
    name, text = entry
    lines = textwrap.wrap(" ".join(text.replace("``", "").split()), _width() - LEFT - 4) or [""]
    first = f"  {name:{LEFT}}  {lines[0]}" if len(name) <= LEFT else f"  {name}\n{' ' * (LEFT + 4)}{lines[0]}"
    return "\n".join([first, *(f"{' ' * (LEFT + 4)}{line}" for line in lines[1:])]).rstrip()


def _width() -> int:
    return min(max(shutil.get_terminal_size((100, 24)).columns, 60), 120)


def _paragraphs(text: str) -> list[str]:
    return [textwrap.fill(" ".join(part.split()), _width()) for part in text.split("\n\n") if part.strip()]


def _value(arguments: Sequence[str], option: str) -> str:
    """The value of an option, given as a word of its own or after ``=``; empty if there is none."""
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == option:
            following = arguments[number + 1] if number + 1 < len(arguments) else ""
            return value if equals else "" if following.startswith("-") else following
    return ""
