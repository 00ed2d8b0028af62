"""Importing what a user names by its dotted path, with mistakes said in one line."""

import importlib
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from lightning_priors.errors import PriorError, nearest

PACKAGE = Path(__file__).resolve().parent

HARMLESS = ("builtins", "collections", "datetime", "decimal", "fractions", "math", "random", "statistics")
"""Modules of Python's own of which a configuration may name something. To import or call others can open a browser,
start a program or delete files, and none of them has anything that an option needs."""

_nothing_imported = ContextVar("_nothing_imported", default=False)


@contextmanager
def nothing_imported() -> Iterator[None]:
    """Lets dotted paths be found in modules alone that the program has imported already, within this context.

    A file from somebody else can then not choose what is imported.

    >>> with nothing_imported():
    ...     is_at_hand("math.pi"), is_at_hand("mine.hinge")
    (True, False)
    """
    token = _nothing_imported.set(True)
    try:
        yield
    finally:
        _nothing_imported.reset(token)


def is_at_hand(path: str) -> bool:
    """Says whether `import_attribute` may look a dotted path up: always, but within `nothing_imported`.

    >>> is_at_hand("mine.hinge")
    True
    """
    return not _nothing_imported.get() or path.rpartition(".")[0] in sys.modules


def refused_modules() -> list[str]:
    """Lists the modules of Python's own that nothing is named from.

    >>> "subprocess" in refused_modules(), "math" in refused_modules()
    (True, False)
    """
    return sorted(sys.stdlib_module_names - set(HARMLESS))


def import_attribute(path: str) -> Any:
    """Imports what a dotted path names, such as ``my_losses.hinge``.

    Args:
        path: A module and a name in it, with dots between.

    Raises:
        PriorError: If there is no such module or name, it is one of `refused_modules`, or an error occurs while the
            module is imported.

    >>> import_attribute("math.pi")
    3.141592653589793
    >>> import_attribute("math.pie")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: the module math has no 'pie'; did you mean 'pi'?
    """
    module_name, _, name = path.rpartition(".")
    if module_name.partition(".")[0] in refused_modules():
        raise PriorError(f"{path} may not be named here: it could run commands, load code or change files")
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
        raise PriorError(failure_line(error)) from error


def failure_line(error: BaseException) -> str:
    """Says in one line where a module has raised an exception: in the innermost line that is not in a library.

    Args:
        error: The exception.

    Returns:
        The file, the line, the exception's class and its message.

    >>> failure_line(SyntaxError("invalid syntax", ("mine.py", 3, 1, "de f():")))
    'mine.py, line 3: SyntaxError: invalid syntax'
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_shown(error.filename)}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    own = [frame for frame in frames if not _is_installed(Path(frame.filename))] or frames
    place = "".join(f"{_shown(frame.filename)}, line {frame.lineno}: " for frame in own[-1:])
    return f"{place}{type(error).__name__}: {message_line(error)}"


def message_line(error: BaseException) -> str:
    r"""Returns an exception's message as one line.

    Args:
        error: The exception.

    Returns:
        The message with single spaces.

    >>> message_line(ValueError("in two\n  lines"))
    'in two lines'
    """
    return " ".join(str(error).split())


def _is_installed(file: Path) -> bool:
    """Says whether a file belongs to Python, to an installed package or to this one."""
    folders = [PACKAGE, *(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib"))]
    return any(file.resolve().is_relative_to(folder) for folder in folders)


def _shown(file: str) -> str:
    """Returns a path as the user would write it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
