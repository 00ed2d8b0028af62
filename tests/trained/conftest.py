"""Trained runs of every technique, made once."""

from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
from short_runs import TECHNIQUES, kakapos, train

from lightning_priors.techniques import PriorModule


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Callable[[str], tuple[PriorModule, Path]]:
    """Gives a technique as it was trained, and its run folder."""
    made: dict[str, tuple[PriorModule, Path]] = {}

    def run(name: str) -> tuple[PriorModule, Path]:
        if name not in made:
            L.seed_everything(0, verbose=False)
            module = TECHNIQUES[name](kakapos().aux_num_classes)
            made[name] = module, train(module, tmp_path_factory.mktemp("run"))
        return made[name]

    return run
