"""A parser of options whose errors are one line, and the option of all commands that load a run."""

import argparse
from typing import NoReturn

from lightning_priors.errors import PriorError, nearest


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line with the nearest right option."""

    def error(self, message: str) -> NoReturn:
        """Raises the mistake instead of printing the usage."""
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            name = unknown.split()[0].partition("=")[0]
            raise PriorError(f"{self.command} has no option {name}; {nearest(name, self._option_string_actions)}")
        raise PriorError(f"{self.command}: {message}")

    @property
    def command(self) -> str:
        """The command's name, without the program's."""
        return self.prog.split()[-1]


def add_own(parser: argparse.ArgumentParser) -> None:
    """Adds the option ``--own``, which says what a run uses of the user's own.

    >>> parser = Parser()
    >>> add_own(parser)
    >>> parser.parse_args(["--own", "mine.Technique", "--own=mine.Prior"]).own
    ['mine.Technique', 'mine.Prior']
    """
    told = "a technique, prior or loss of yours that the run uses, by its dotted name; may be given repeatedly"
    parser.add_argument("--own", action="append", default=[], metavar="NAME", help=told)
