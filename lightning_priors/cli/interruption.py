"""What becomes of Ctrl-C and SIGTERM, which Lightning answers in ways of its own."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_priors.errors import Terminated


@contextmanager
def plain_interruptions() -> Iterator[None]:
    """Within this context an interrupted training ends as Python's programs do, when Lightning has shut down.

    Raises:
        KeyboardInterrupt: After Ctrl-C, which Lightning turns into an exit.
        Terminated: After SIGTERM, whose exception of Lightning's alone would exit with 0, as if all were done.

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
