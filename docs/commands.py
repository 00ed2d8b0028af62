"""Writes docs/commands.md from the help of the commands: `python docs/commands.py`."""

import contextlib
import io
import os
import sys
from pathlib import Path
from unittest import mock

from lightning_priors.__main__ import main

PAGE = Path(__file__).with_suffix(".md")
COMMANDS = {
    "init": "Begin with your own data",
    "inspect-data": "Look at the data",
    "fit": "Train",
    "test": "Evaluate on the test pictures; `validate` does it on the validation pictures",
    "predict": "Classify pictures",
    "explain": "See where a classifier looks",
    "compare": "Compare techniques",
    "annotate": "Fill in masks and boxes",
    "export": "Write a classifier for other programs",
    "dashboard": "Show a comparison on W&B",
    "configs": "List the shipped configurations",
}
INTRODUCTION = """\
# The commands

Every command has this help: `lightning-priors COMMAND --help`. A mistake in an option, a file or a label ends in one
line that names it, with the exit code 2. Ctrl-C keeps what is finished, and says how to go on.

Options may stand on the command line or in YAML files, of which `-c` takes any number; a later one wins, and so does
the command line. `--model NAME --help` explains a technique, `--data.source NAME --help` a source, `--print_config`
shows what a command would do. A class of your own is given by its dotted name, from the working folder too.
"""
WIDTH = "98"
DATA = "Serves the images of a source in batches"
"""What the options of the data begin with in the help of three commands; the page of fit has them."""


def help_of(command: str) -> str:
    """Returns the help of a command, without the options of the data where they are Lightning's list."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main([command, "--help"])
    text, cut, _ = shown.getvalue().partition(DATA)
    lines = [line.rstrip() for line in text.strip().splitlines()]
    if cut:
        lines[: lines.index("")] = [
            f"usage: lightning-priors {command} [options of the data, as of fit] [these options]"
        ]
    return "\n".join(lines)


def page() -> str:
    """Returns the whole page."""
    with mock.patch.dict(os.environ, COLUMNS=WIDTH), mock.patch.object(sys, "argv", ["lightning-priors"]):
        parts = [f"## {title}\n\n```text\n{help_of(command)}\n```\n" for command, title in COMMANDS.items()]
    return "\n".join([INTRODUCTION, *parts])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
