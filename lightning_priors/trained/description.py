"""What a saved classifier says of itself beside its weights: plain values, of which none names code or a file."""

import inspect
import json
import sys
from collections.abc import Mapping
from typing import Any, TypedDict, cast

import torch

import lightning_priors
import lightning_priors.techniques
from lightning_priors.errors import PriorError, nearest
from lightning_priors.import_path import nothing_imported
from lightning_priors.names import check_names
from lightning_priors.techniques import PriorModule
from lightning_priors.techniques.base import NOT_SAVED
from lightning_priors.techniques.facts import Facts

FILE_OPTIONS = ("weights", "global_checkpoint", "local_checkpoint")
"""Options that may be the path of a file. A trained classifier does not need the file."""

A_FILE = "file"
"""What stands for a path."""


class Description(TypedDict):
    """A classifier without its weights."""

    technique: str
    """The name of its class."""
    options: dict[str, Any]
    """Of the class's constructor, as `shareable` leaves them."""
    facts: Facts
    """What it was trained on."""
    metrics: dict[str, float]
    """Of the validation images."""
    version: str
    """Of this library."""


def describe_classifier(technique: PriorModule, facts: Facts, metrics: Mapping[str, float]) -> Description:
    """Describes a classifier.

    Args:
        technique: With its options among its hyper-parameters.
        facts: What it was trained on.
        metrics: Of the validation images, by name.

    >>> facts = Facts(class_names=["a", "b"], image_size=[32, 32], mean=[0.0] * 3, std=[1.0] * 3, data="")
    >>> technique = lightning_priors.techniques.Pretrained(weights="none")
    >>> describe_classifier(technique, facts, {})["technique"]
    'Pretrained'
    """
    return Description(
        technique=type(technique).__name__,
        options=shareable(technique.hparams),
        facts=facts,
        metrics={name: float(value) for name, value in metrics.items()},
        version=lightning_priors.__version__,
    )


def shareable(options: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves of the options what may be given to others: plain values that name no file and no function.

    Args:
        options: Of a technique or a prior.

    Returns:
        The options without those that are private, hold objects or name a loss of the user's own; a path is replaced
        by the word ``file``.

    Raises:
        PriorError: If an option is no plain value.

    >>> shareable({"lr": 0.1, "weights": "/home/me/start.pt", "loss": "mine.hinge", "_class_path": "mine.Toy"})
    {'lr': 0.1, 'weights': 'file'}
    """
    kept = {name: value for name, value in options.items() if not name.startswith("_") and name not in NOT_SAVED}
    try:
        plain = json.loads(json.dumps({name: _shareable(name, value) for name, value in kept.items()}))
    except TypeError as error:
        raise PriorError(f"an option of the technique is no plain value: {error}") from error
    return {name: value for name, value in plain.items() if not (name == "loss" and "." in str(value))}


def _shareable(name: str, value: Any) -> Any:
    if name in FILE_OPTIONS and value not in (None, "none", "imagenet"):
        return A_FILE
    if isinstance(value, Mapping):
        return shareable(value)
    if isinstance(value, list | tuple):
        return [_shareable("", entry) for entry in value]
    return value


def described(content: object, origin: str) -> Description:
    """Checks what a file says of a classifier.

    Args:
        content: What was read; it may be anything.
        origin: The file, for messages.

    Raises:
        PriorError: If an entry is missing, of the wrong kind, or names a file or code.

    >>> described({"technique": "Pretrained"}, "config.json")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: config.json describes no classifier: it has no options
    """
    wanted = {"technique": str, "options": dict, "facts": dict, "metrics": dict, "version": str}
    given: Mapping[str, Any] = content if isinstance(content, dict) else {}
    for name, kind in wanted.items():
        if not isinstance(given.get(name), kind):
            raise PriorError(f"{origin} describes no classifier: it has no {name}")
    check_facts(given["facts"], origin)
    options = given["options"]
    if shareable(options) != options:
        strange = next(name for name, value in options.items() if shareable({name: value}) != {name: value})
        raise PriorError(f"{origin}: the option {strange!r} names a file or code, which is never read or run")
    if not all(isinstance(value, int | float) for value in given["metrics"].values()):
        raise PriorError(f"{origin}: a metric is no number")
    return cast(Description, {name: given[name] for name in wanted})


def check_facts(facts: object, origin: str) -> None:
    """Checks what a file says that a classifier was trained on.

    Args:
        facts: What was read; it may be anything.
        origin: The file, for messages.

    Raises:
        PriorError: If something is missing or of the wrong kind.

    >>> check_facts({"class_names": ["kakapo", "kea"], "image_size": "huge"}, "config.json")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: config.json does not hold class names and image size
    """
    given: Mapping[str, Any] = facts if isinstance(facts, dict) else {}
    names, size = given.get("class_names"), given.get("image_size")
    if not _are(names, str) or not _are(size, int) or len(cast(list[int], size)) != 2 or min(cast(list[int], size)) < 1:
        raise PriorError(f"{origin} does not hold class names and image size")
    check_names(cast(list[str], names), f"class in {origin}")
    if not all(_are(given.get(name), float) and len(given[name]) == 3 for name in ("mean", "std")):
        raise PriorError(f"{origin} does not hold the normalisation of the images")
    counts = given.get("group_counts")
    if counts != [] and not _are(counts, int):
        raise PriorError(f"{origin} does not hold the number of images of each group")


def _are(values: object, kind: type) -> bool:
    return isinstance(values, list) and bool(values) and all(type(value) is kind for value in values)


def build(description: Description, origin: str, technique: type[PriorModule] | None = None) -> PriorModule:
    """Builds a technique from its description, with first weights that are to be replaced.

    Args:
        description: As `described` gives it.
        origin: The file, for messages.
        technique: The class, where it is none of this library.

    Raises:
        PriorError: If there is no such technique, or it does not take these options.
    """
    kind = technique or technique_named(description["technique"], origin)
    known = list(inspect.signature(kind).parameters)
    for name in description["options"]:
        if name not in known:
            raise PriorError(f"{origin}: {kind.__name__} has no option {name!r}; {nearest(name, known)}")
    try:
        # building draws first weights, and asks for gradients to see which weights matter
        with nothing_imported(), torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
            built = kind(**description["options"])
    except Exception as error:  # whatever a constructor raises for values of the wrong kind
        raise PriorError(
            f"{origin}: {kind.__name__} does not take its options: {' '.join(str(error).split())}"
        ) from error
    if built.num_classes != len(description["facts"]["class_names"]):
        raise PriorError(f"{origin}: {built.num_classes} classes have {len(description['facts']['class_names'])} names")
    return built


def technique_named(name: str, origin: str) -> type[PriorModule]:
    """Finds the technique that has a name: one of this library, or one in a module that the program has imported.

    Nothing is imported for it, so that a checkpoint cannot name something else to run.

    Args:
        name: Of the class.
        origin: The file that names it, for messages.

    Raises:
        PriorError: If there is none, or there are several.

    >>> technique_named("Pretraind", "a.ckpt")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: a.ckpt names the technique 'Pretraind'; give its class as technique (--own), ...
    """
    known = {name: getattr(lightning_priors.techniques, name) for name in lightning_priors.techniques.__all__}
    classes = {name: kind for name, kind in known.items() if isinstance(kind, type) and issubclass(kind, PriorModule)}
    found = [classes[name]] if name in classes else [kind for kind in _imported() if kind.__name__ == name]
    if len(found) > 1:
        places = ", ".join(kind.__module__ for kind in found)
        raise PriorError(f"{origin} names the technique {name!r}, which several modules have: {places}")
    if not found:
        said = f"names the technique {name!r}" if name else "does not say its technique"
        raise PriorError(f"{origin} {said}; give its class as technique (--own), or {nearest(name, classes)}")
    return found[0]


def _imported() -> list[type[PriorModule]]:
    """The techniques in the modules that are imported."""
    found: list[type[Any]] = [PriorModule]
    for kind in found:  # the list grows: subclasses of subclasses
        found += [below for below in kind.__subclasses__() if below not in found]
    return [kind for kind in found if getattr(sys.modules.get(kind.__module__), kind.__name__, None) is kind]
