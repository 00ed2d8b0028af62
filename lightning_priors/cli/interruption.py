"""Turns Ctrl-C and SIGTERM into the exceptions of a plain Python program, after Lightning has shut down."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_priors.errors import Terminated


@contextmanager
def plain_interruptions() -> Iterator[None]:
    """Raises within this context what an interrupted Python program raises.

    Raises:
        KeyboardInterrupt: After Ctrl-C, which Lightning turns into a `SystemExit`.
        Terminated: After SIGTERM, which Lightning turns into an exception that exits with 0, as if all were done.

    >>> with plain_interruptions():
    ...     raise SIGTERMException
    Traceback (most recent call last):
    lightning_priors.errors.Terminated
    """
    try:
        yield
    except SIGTERMException:
        raise Terminated from None
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
