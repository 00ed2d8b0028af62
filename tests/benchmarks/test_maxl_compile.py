"""What torch.compile does for MAXL: that what is timed is the same thing."""

import argparse
import importlib.util
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own forward-mode rules
def test_all_ways_are_timed_and_agree() -> None:
    path = REPOSITORY / "benchmarks" / "maxl_compile.py"
    specification = importlib.util.spec_from_file_location("maxl_compile", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    # the backend that traces and does not compile, as there may be no compiler
    options = argparse.Namespace(backbone="tiny", batch_size=4, rounds=1, threads=1, backend="eager")
    times, seconds, error = module.measure(options)
    assert list(times) == [
        "training step", "training step, compiled", "forward-mode pass", "forward-mode pass, compiled",
    ]  # fmt: skip
    assert min(times.values()) > 0
    assert seconds > 0
    assert error < 1e-5
