"""The public names and their signatures are those of ``api_snapshot.txt``, so that they change on purpose only.

To take over a change that is meant: ``python tests/test_api.py``, and look at what ``git diff`` says.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import lightning_priors
import lightning_priors.techniques

SNAPSHOT = Path(__file__).with_name("api_snapshot.txt")
NO_API = ("lightning_priors.cli", "lightning_priors.dashboard", "lightning_priors.export", "lightning_priors.__main__")
"""Packages that are used by their commands."""


def packages() -> Iterator[ModuleType]:
    """The packages that list their public names."""
    for found in pkgutil.walk_packages(lightning_priors.__path__, "lightning_priors."):
        if found.ispkg and not found.name.startswith(NO_API):
            module = importlib.import_module(found.name)
            if getattr(module, "__all__", None):
                yield module


def signature(value: object) -> str:
    """The arguments without type hints: their names, order, kinds and defaults."""
    try:
        parameters = inspect.signature(value).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    shown = inspect.Signature([each.replace(annotation=inspect.Parameter.empty) for each in parameters])
    return re.sub(r" at 0x[0-9a-f]+", "", str(shown))


def described(name: str, value: object) -> Iterator[str]:
    """A line for a name, and one for each public method and property that this library gives a class."""
    yield f"{name}{signature(value)}"
    if inspect.isclass(value):
        for attribute, member in sorted(vars(value).items()):
            if not attribute.startswith("_") and (
                inspect.isroutine(member) or isinstance(member, property | classmethod)
            ):
                function = getattr(member, "__func__", member)
                yield f"  .{attribute}{'' if isinstance(member, property) else signature(function)}"


def snapshot() -> str:
    """The public API as text."""
    names = sorted({*lightning_priors._HOMES, *lightning_priors.techniques.__all__})
    lines = [f"[{lightning_priors.__name__}]", *names]
    for package in packages():
        lines += ["", f"[{package.__name__}]"]
        for name in sorted(package.__all__):
            lines += described(name, getattr(package, name))
    return "\n".join(lines).strip() + "\n"


def test_the_public_api_has_not_changed():
    now, before = snapshot().splitlines(), SNAPSHOT.read_text().splitlines()
    gone, new = [line for line in before if line not in now], [line for line in now if line not in before]
    how = "if that is meant: python tests/test_api.py"
    assert now == before, "\n".join([how, *(f"- {line}" for line in gone), *(f"+ {line}" for line in new)])


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot())
