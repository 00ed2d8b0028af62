"""What a checkpoint says before anything is loaded from it: its technique, and whether its weights fit."""

import pytest
import torch
from torch import nn
from torchmetrics import SumMetric

from lightning_priors import techniques
from lightning_priors.errors import PriorError
from lightning_priors.techniques import PriorModule
from lightning_priors.trained.checkpoint import fits, read_checkpoint, saved_shapes, trained_technique


class Layered(nn.Module):
    """A module with all that a ``state_dict`` treats in a way of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(2, 3), nn.BatchNorm1d(3)
        self.again = self.first
        self.tied = nn.Linear(2, 3)
        self.tied.weight = self.first.weight
        self.register_buffer("kept", torch.zeros(4))
        self.register_buffer("dropped", torch.zeros(5), persistent=False)
        self.register_buffer("absent", None)
        self.norm.register_buffer("dropped", torch.zeros(6), persistent=False)


class ReadsAFile(nn.Linear):
    """A layer that would read its weights when its ``state_dict`` is asked for."""

    def state_dict(self, *arguments, **options):
        raise AssertionError("asked for")


class Remembers(nn.Linear):
    """A layer with more to save than tensors."""

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": 3}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


def shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("module", [Layered(), nn.Linear(2, 3), nn.Sequential(Layered(), nn.LSTM(2, 3))])
def test_the_shapes_are_those_of_the_state_dict(module):
    assert dict(saved_shapes(module)) == shapes(module)


@pytest.mark.parametrize("name", ["Pretrained", "CAMRestriction", "PriorAttention", "GlobalLocal", "Auxiliary", "MAXL"])
def test_the_shapes_of_every_technique_are_those_of_its_state_dict(name):
    model: PriorModule = getattr(techniques, name)(num_classes=2)
    assert dict(saved_shapes(model)) == shapes(model)
    assert fits(model, model.state_dict())


def test_no_submodule_is_asked_for_its_state_dict():
    module = nn.Sequential(ReadsAFile(2, 3), nn.Linear(3, 1))
    state = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).state_dict()
    with pytest.raises(AssertionError, match="asked for"):
        module.state_dict()
    assert fits(module, state)
    assert not fits(module, {**state, "0.weight": torch.zeros(1)})


@pytest.mark.parametrize(
    "change",
    [
        {"weight": torch.zeros(3, 4)},  # another shape
        {"weight": None},  # missing
        {"more": torch.zeros(3)},  # one too many
    ],
)
def test_other_weights_do_not_fit(change):
    state = {**nn.Linear(2, 3).state_dict(), **change}
    assert not fits(nn.Linear(2, 3), {name: tensor for name, tensor in state.items() if tensor is not None})


def test_a_buffer_that_is_not_saved_is_not_missed():
    module = Layered()
    assert "dropped" not in module.state_dict()
    assert fits(module, module.state_dict())
    assert not fits(module, {**module.state_dict(), "dropped": torch.zeros(5)})


def test_the_states_of_metrics_do_not_matter():
    metric = SumMetric()
    metric.persistent(True)
    module = nn.ModuleDict({"layer": nn.Linear(2, 3), "metric": metric})
    assert "metric.sum_value" in module.state_dict()
    assert fits(module, module.state_dict())


def test_what_is_saved_beside_tensors_does_not_matter():
    module = nn.Sequential(Remembers(2, 3))
    assert "0._extra_state" in module.state_dict()
    assert fits(module, module.state_dict())


@pytest.mark.parametrize(
    ("checkpoint", "name"),
    [
        ({"technique": "MAXL"}, "MAXL"),
        ({"technique": "MAXL", "hyper_parameters": {"_class_path": "mine.Older"}}, "MAXL"),
        ({"hyper_parameters": {"_class_path": "mine.Older"}}, "Older"),
        ({"hyper_parameters": {}}, ""),
        ({}, ""),
    ],
)
def test_the_technique(checkpoint, name):
    assert trained_technique(checkpoint) == name


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Runs:
        def __reduce__(self):
            return (open, (str(tmp_path / "trace"), "w"))

    torch.save({"state_dict": {}, "technique": Runs()}, tmp_path / "bad.ckpt")
    with pytest.raises(PriorError, match=r"bad.ckpt is not a checkpoint of a training run"):
        read_checkpoint(str(tmp_path / "bad.ckpt"))
    assert not (tmp_path / "trace").exists()
