"""What all tests share."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # small tensors: more threads only wait for each other


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with data sets that may not be part of the project; tests that need it are skipped without it."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LIGHTNING_PRIORS_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no data in {folder}; set LIGHTNING_PRIORS_DATA")
    return folder


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Looks for no examples in the conftest files, which share one module name."""
    return True if collection_path.name == "conftest.py" else None


def pytest_collection_finish() -> None:
    """Takes what the imports have made out of the garbage collector's rounds, which are a tenth of the suite's time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_background_process_of_wandb() -> Iterator[None]:
    """W&B's would resolve the next test's relative folder in the working folder of the test that started it."""
    yield
    if (wandb := sys.modules.get("wandb")) is not None:
        wandb.teardown()


@pytest.fixture(autouse=True)
def _no_launch_of_an_earlier_test() -> Iterator[None]:
    """With the names that a launch in this process left behind, Lightning would wait for ranks that nobody starts."""
    yield
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
        os.environ.pop(name, None)
