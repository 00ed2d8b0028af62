"""Two processes train what one trains on the joint batches, whoever of them has the annotated images."""

from pathlib import Path

import pytest
import torch
from processes import run_on_ranks
from train_techniques_on_ranks import TECHNIQUES, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The weights of one process and of two."""
    folder = tmp_path_factory.mktemp("ranks")
    train(folder, 1, list(TECHNIQUES))
    script = Path(__file__).parent / "train_techniques_on_ranks.py"
    run_on_ranks(2, script, str(folder), "2", *TECHNIQUES)
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings(r"ignore:Found \d+ module\(s\) in eval mode:UserWarning")
@pytest.mark.parametrize("name", TECHNIQUES)
def test_two_ranks_train_what_one_trains(name, trained):
    (state, logged), *two = (
        torch.load(trained / f"{name}-{end}.pt", weights_only=True) for end in ("1-0", "2-0", "2-1")
    )
    for other, _ in two:
        assert other.keys() == state.keys()
        for key, value in state.items():
            torch.testing.assert_close(
                other[key], value, rtol=1e-8, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}"
            )
    assert all(torch.equal(value, two[1][0][key]) for key, value in two[0][0].items())
    assert "train/loss" in logged
