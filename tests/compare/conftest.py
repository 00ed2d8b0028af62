"""What the comparison's tests share."""

import os
from pathlib import Path

import pytest

import lightning_priors


@pytest.fixture
def environment() -> dict[str, str]:
    """For child processes that run in another folder: they find the package that is under test."""
    paths = [str(Path(lightning_priors.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
