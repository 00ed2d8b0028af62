"""Importing what a user names by its dotted path, with mistakes said in one line."""

import importlib
import traceback
from pathlib import Path
from typing import Any

from lightning_priors.errors import PriorError, nearest


def import_attribute(path: str) -> Any:
    """Imports what a dotted path names, such as ``my_losses.hinge``.

    Args:
        path: A module and a name in it, with dots between.

    Raises:
        PriorError: If there is no such module or name, or an error occurs while the module is imported.

    >>> import_attribute("math.pi")
    3.141592653589793
    >>> import_attribute("math.pie")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: the module math has no 'pie'; did you mean 'pi'?
    """
    module_name, _, name = path.rpartition(".")
    module = import_module(module_name)
    if not hasattr(module, name):
        raise PriorError(f"the module {module_name} has no {name!r}; {nearest(name, vars(module))}")
    return getattr(module, name)


def import_module(name: str) -> Any:
    """Imports a module by its dotted name.

    Raises:
        PriorError: If there is no such module, or an error occurs while it is imported.

    >>> import_module("math").__name__
    'math'
    """
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever a user's module raises while it is imported
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            beside = sorted(file.stem for file in Path.cwd().glob("*.py"))
            raise PriorError(f"there is no module {error.name}; {nearest(error.name, beside)}".rstrip("; ")) from error
        raise PriorError(_where(error)) from error


def _where(error: Exception) -> str:
    """The file and line that an error comes from, and the error itself, in one line."""
    if isinstance(error, SyntaxError):
        return f"{Path(error.filename or '?').name}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    place = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}: " if len(frames) > 1 else ""
    return f"{place}{type(error).__name__}: {' '.join(str(error).split())}"
