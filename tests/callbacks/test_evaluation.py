"""What stands behind the callbacks of an evaluation: what is called when, and the check of the logits."""

import pytest
import torch

from lightning_priors.callbacks.evaluation import EvaluationCallback, given_logits
from lightning_priors.errors import PriorError


class Calls(EvaluationCallback):
    """Writes down what is called."""

    def __init__(self) -> None:
        self.calls: list[str | int] = []

    def begin(self) -> None:
        self.calls.append("begin")

    def see(self, trainer, pl_module, outputs, batch) -> None:
        self.calls.append(len(given_logits(outputs, pl_module, by="Calls")))

    def finish(self, trainer, pl_module, stage) -> None:
        self.calls.append(stage)


@pytest.mark.parametrize(("stage", "prefix"), [("validate", "val"), ("test", "test")])
def test_each_evaluation_begins_sees_every_batch_and_finishes(looker, data, make_trainer, stage, prefix):
    callback, loader = Calls(), data().val_dataloader()
    getattr(make_trainer(callback), stage)(looker(), loader, verbose=False)
    assert callback.calls == ["begin", *(len(batch["label"]) for batch in loader), prefix]


@pytest.mark.parametrize("outputs", [None, torch.zeros(3), {"logits": torch.zeros(2, 3)}])
def test_other_things_than_logits_are_refused(looker, outputs):
    module = looker()
    with pytest.raises(PriorError, match=f"Calls needs the evaluation steps of {type(module).__name__} to give logits"):
        given_logits(outputs, module, by="Calls")
