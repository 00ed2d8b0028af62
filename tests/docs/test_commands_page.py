"""The page of the commands is what the commands say."""

import runpy
import sys

import pytest
from command_line import REPOSITORY

from lightning_priors.__main__ import COMMANDS

WRITER = runpy.run_path(str(REPOSITORY / "docs" / "commands.py"))


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse lays its help out differently in each release")
def test_the_page_is_not_stale():
    assert (REPOSITORY / "docs" / "commands.md").read_text(encoding="utf-8") == WRITER["page"]()


def test_every_command_is_there():
    assert {*WRITER["COMMANDS"], "validate"} == set(COMMANDS)
