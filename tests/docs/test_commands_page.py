"""The page of the commands is what the commands say."""

import runpy
import subprocess
import sys

import pytest
from command_line import REPOSITORY

from lightning_priors.__main__ import COMMANDS

WRITER = runpy.run_path(str(REPOSITORY / "docs" / "commands.py"))


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse lays its help out differently in each release")
def test_the_page_is_not_stale():
    """Written in a new interpreter, where no test has added a class that the help would list."""
    code = "import runpy; print(runpy.run_path('docs/commands.py')['page'](), end='')"
    command = [sys.executable, "-c", code]
    page = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout
    assert (REPOSITORY / "docs" / "commands.md").read_text(encoding="utf-8") == page


def test_every_command_is_there():
    assert {*WRITER["COMMANDS"], "validate"} == set(COMMANDS)
