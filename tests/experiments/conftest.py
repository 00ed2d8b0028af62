"""The scripts are run as a user does, in the process of the tests."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def same_log_level_afterwards() -> Iterator[None]:
    """Scripts quieten Lightning; other tests read what it says."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    yield
    logger.setLevel(level)
