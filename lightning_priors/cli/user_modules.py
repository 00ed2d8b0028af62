"""Finds the user's modules in the working folder, and says why one cannot be imported or has no such class."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType

from lightning_priors.errors import PriorError, nearest
from lightning_priors.import_path import failure_line, message_line


@contextmanager
def working_folder_importable() -> Iterator[None]:
    """Appends the working folder to the module search path within this context.

    A console script does not search the working folder, so ``--model mine.Toy`` would not find ``mine.py``. The folder
    stands last, so no file in it replaces an installed package.

    >>> before = list(sys.path)
    >>> with working_folder_importable():
    ...     str(Path.cwd()) in sys.path
    True
    >>> sys.path == before
    True
    """
    folder = str(Path.cwd())
    known = folder in sys.path or "" in sys.path
    if not known:
        sys.path.append(folder)
    try:
        yield
    finally:
        if not known and folder in sys.path:
            sys.path.remove(folder)


@contextmanager
def watched_imports() -> Iterator[list[BaseException]]:
    """Collects the exceptions that modules raise while they are imported within this context.

    jsonargparse turns such an exception into a message without file and line.

    Yields:
        The exceptions so far, without those that an importing module has handled.

    >>> with watched_imports() as failures:
    ...     import colorsys
    >>> failures
    []
    """
    failures: list[BaseException] = []
    watcher = _Watcher(failures)
    sys.meta_path.insert(0, watcher)
    try:
        yield failures
    finally:
        sys.meta_path.remove(watcher)


class _Watcher(MetaPathFinder):
    """Finds modules as all other finders do, and watches those that are read from a source file."""

    def __init__(self, failures: list[BaseException]) -> None:
        self.failures = failures

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Asks the other finders."""
        for finder in (finder for finder in sys.meta_path if finder is not self):
            if (spec := finder.find_spec(fullname, path, target)) is not None:
                if type(spec.loader) is SourceFileLoader:
                    spec.loader = _WatchedLoader(spec.loader.name, spec.loader.path, self.failures)
                return spec
        return None


class _WatchedLoader(SourceFileLoader):
    """Runs a module and keeps what it raises."""

    def __init__(self, name: str, path: str, failures: list[BaseException]) -> None:
        super().__init__(name, path)
        self.failures = failures

    def exec_module(self, module: ModuleType) -> None:
        """Runs the module. If it succeeds, it has handled what the modules that it imports have raised."""
        before = len(self.failures)
        try:
            super().exec_module(module)
        except (Exception, SystemExit) as error:
            if error not in self.failures:
                self.failures.append(error)
            raise
        else:
            del self.failures[before:]


def import_own(paths: Sequence[str]) -> None:
    """Imports what a run uses of the user's own, so that it is found when the run is loaded.

    Args:
        paths: Dotted names of classes or functions, such as ``my_techniques.LabelSmoothing``.

    Raises:
        PriorError: If there is no such module or name in it, or the module cannot be imported.

    >>> import_own(["lightning_priors.techniques.Pretrained"])
    >>> import_own(["lightning_priors.techniques.Pretraind"])
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: --own: there is no class 'lightning_priors.techniques.Pretraind'; did you ...
    """
    for path in paths:
        module, _, name = path.rpartition(".")
        if not all(part.isidentifier() for part in (*module.split("."), name)):
            raise PriorError(f"--own takes a dotted name such as my_techniques.LabelSmoothing, not {path!r}")
        with watched_imports() as failures:
            try:
                found = hasattr(importlib.import_module(module), name)
            except Exception as error:  # whatever a user's module raises
                if line := import_failure(error, failures):
                    raise PriorError(line) from error
                if not isinstance(error, ImportError):
                    raise
                found = False
        if not found:
            raise PriorError(f"--own: {missing_class(path, None) or f'there is no module {module!r}'}")


def import_failure(error: BaseException, failures: Sequence[BaseException]) -> str:
    """Says in one line which module could not be imported and why.

    Args:
        error: What the parser has raised.
        failures: What modules have raised while the parser ran, as `watched_imports` yields it.

    Returns:
        The file, the line and the exception; empty if the error has another reason.

    >>> failure = SyntaxError("invalid syntax", ("mine.py", 3, 1, "de f():"))
    >>> import_failure(ValueError("there is no class mine.Toy: invalid syntax (mine.py, line 3)"), [failure])
    'mine.py, line 3: SyntaxError: invalid syntax'
    >>> import_failure(ValueError("there is no option lrr"), [failure])
    ''
    """
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append(cause)
        cause = cause.__cause__
    told = [message_line(link) for link in chain if isinstance(link, Exception)]  # the parser repeats what it was told
    for failure in failures:
        if failure in chain or any(message_line(failure) in text for text in told):
            return failure_line(failure)
    return ""


def missing_class(path: str, base: type | None) -> str:
    """Says why a dotted path names no class, and what is near.

    Args:
        path: A path whose module is missing, or has no such class.
        base: What the class should be a subclass of, if that is known.

    Returns:
        What is wrong and a hint; empty where there is no such module and none near.

    >>> missing_class("lightning_priors.techniques.Pretraind", None)
    "there is no class 'lightning_priors.techniques.Pretraind'; did you mean 'Pretrained'?"
    >>> missing_class("lightning_prior.Pretrained", None)
    "there is no module 'lightning_prior'; did you mean 'lightning_priors'?"
    """
    module, _, name = path.rpartition(".")
    if module in sys.modules:
        return f"there is no class {path!r}; {_nearest_class(sys.modules[module], name, base)}"
    parent, known = "", [*_module_names([str(Path.cwd())]), "lightning_priors"]
    for part in module.split("."):
        here = f"{parent}.{part}".lstrip(".")
        if here not in sys.modules:
            close = get_close_matches(part, known, n=1)
            return f"there is no module {here!r}; did you mean {f'{parent}.{close[0]}'.lstrip('.')!r}?" if close else ""
        parent, known = here, _module_names(getattr(sys.modules[here], "__path__", []))
    return ""


def _module_names(folders: Sequence[str]) -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(folders))


def _nearest_class(module: ModuleType, name: str, base: type | None) -> str:
    """Returns the hint at the classes of a module; for those of this package the short name is enough."""
    found: dict[str, str] = {}
    for attribute in dir(module):
        value = getattr(module, attribute)
        package = module.__name__.partition(".")[0]
        if not isinstance(value, type) or inspect.isabstract(value):
            continue
        if issubclass(value, base) if base else value.__module__.startswith(package):
            own = value.__module__.startswith("lightning_priors.")
            found[attribute] = attribute if own else f"{module.__name__}.{attribute}"
    if close := get_close_matches(name, found, n=1):
        return f"did you mean {found[close[0]]!r}?"
    return nearest("", found.values()) or f"it has no {f'subclass of {base.__name__}' if base else 'class'}"
