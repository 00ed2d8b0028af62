"""The same random numbers once more."""

import torch

from lightning_priors.hypergradient import RandomState


def test_random_states_replay_and_go_on():
    torch.manual_seed(1)
    state = RandomState(torch.device("cpu"))
    expected = torch.rand(5)
    with state.replayed():
        assert torch.equal(torch.rand(5), expected)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(5), expected)
