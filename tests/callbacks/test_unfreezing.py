"""The schedule is kept, frozen parts stand still, and a resumed run is the run without a break."""

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from lightning_priors.callbacks import Unfreezing
from lightning_priors.callbacks.unfreezing import free_layers
from lightning_priors.errors import PriorError


class Diary(L.Callback):
    """Notes after each epoch which layers, counted from the image, are trained, and all weights and statistics."""

    def __init__(self) -> None:
        self.trained: list[list[bool]] = []
        self.states: list[dict[str, torch.Tensor]] = []

    def on_train_start(self, trainer, pl_module):
        self._note(pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        layers = pl_module.classifier.backbone.layers()
        assert all(len({parameter.requires_grad for parameter in layer}) == 1 for layer in layers)
        self.trained.append([layer[0].requires_grad for layer in layers])
        self._note(pl_module)

    def _note(self, module):
        self.states.append({name: value.clone() for name, value in module.state_dict().items()})

    def changed(self, epoch: int) -> set[str]:
        """The entries of the state that differ from one epoch to the next."""
        before, after = self.states[epoch], self.states[epoch + 1]
        return {name for name in before if not torch.equal(before[name], after[name])}


def trained(diary):
    return ["".join("x" if free else "." for free in layers) for layers in diary.trained]


@pytest.mark.parametrize(
    ("options", "schedule"),
    [
        ({"probe_epochs": 2}, ["....", "....", "xxxx", "xxxx"]),
        ({"probe_epochs": 1, "unfreeze_every": 1}, ["....", "...x", "..xx", ".xxx", "xxxx", "xxxx"]),
        ({"probe_epochs": 0, "unfreeze_every": 2}, ["...x", "...x", "..xx"]),
    ],
)
def test_the_schedule_and_only_the_free_layers_move(options, schedule, looker, data, make_trainer):
    diary, module = Diary(), looker()
    make_trainer(Unfreezing(**options), diary, max_epochs=len(schedule)).fit(module, datamodule=data())
    assert trained(diary) == schedule
    for epoch, layers in enumerate(schedule):
        moved = {name for name in diary.changed(epoch) if name in dict(module.named_parameters())}
        free = [block for block, mark in enumerate(layers) if mark == "x"]
        expected = {name for name, _ in module.classifier.head.named_parameters(prefix="classifier.head")}
        for block in free:
            prefix = f"classifier.backbone.model.blocks.{block}"
            part = module.classifier.backbone.model.blocks[block]
            expected |= {name for name, _ in part.named_parameters(prefix=prefix)}
        assert moved == expected


def test_statistics_stand_still_until_everything_is_free(looker, data, make_trainer):
    diary = Diary()
    make_trainer(Unfreezing(1, 1), diary, max_epochs=6).fit(looker(), datamodule=data())
    moving = [any("running_mean" in name for name in diary.changed(epoch)) for epoch in range(6)]
    assert moving == [layers == [True] * 4 for layers in diary.trained] == [False] * 4 + [True] * 2


# Lightning notes that parts are in evaluation mode when the training starts, which is what frozen statistics mean
@pytest.mark.filterwarnings("ignore:Found 4 module")
def test_statistics_that_were_frozen_before_stay_frozen(looker, data, make_trainer):
    diary, module = Diary(), looker()
    module.classifier.backbone.freeze_statistics = True
    make_trainer(Unfreezing(1), diary, max_epochs=3).fit(module, datamodule=data())
    assert not any("running_mean" in name for epoch in range(3) for name in diary.changed(epoch))
    assert diary.trained[-1] == [True] * 4


@pytest.mark.parametrize("break_after", [1, 2, 3])
def test_a_resumed_run_is_the_run_without_a_break_to_the_bit(break_after, looker, data, make_trainer, tmp_path):
    def run(epochs, resume_from=None):
        trainer, module = make_trainer(Unfreezing(1, 1), max_epochs=epochs, logger=False), looker()
        trainer.fit(module, datamodule=data(), ckpt_path=resume_from)
        return trainer, module.state_dict()

    _, whole = run(6)
    trainer, _ = run(break_after)
    trainer.save_checkpoint(tmp_path / "part.ckpt")
    _, resumed = run(6, resume_from=tmp_path / "part.ckpt")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_every_backbone_of_a_module_follows_the_schedule(looker, data, make_trainer):
    class Two(looker):
        def __init__(self):
            super().__init__()
            self.other = looker().classifier

        def explain(self, image):
            (logits, cam), (more, _) = self.classifier(image), self.other(image)
            return logits + more, cam

    module = Two()
    make_trainer(Unfreezing(3), max_epochs=1).fit(module, datamodule=data())
    for classifier in (module.classifier, module.other):
        assert not any(parameter.requires_grad for parameter in classifier.backbone.parameters())
        assert all(parameter.requires_grad for parameter in classifier.head.parameters())


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({}, True),
        ({"find_unused_parameters": False}, True),
        ({"find_unused_parameters": True}, False),
    ],
)
def test_a_strategy_that_waits_for_frozen_parameters_is_refused(options, refused, looker, make_trainer):
    trainer, callback = make_trainer(strategy=DDPStrategy(**options), devices=1), Unfreezing()
    if refused:
        with pytest.raises(PriorError, match="ddp_find_unused_parameters_true"):
            callback.setup(trainer, looker(), "fit")
    else:
        callback.setup(trainer, looker(), "fit")


def test_layers_in_use_are_freed_and_unused_parameters_never(looker, data, make_trainer):
    module = looker("mobilenetv3_small_050")  # keeps a layer behind the pooling, which has no gradient here
    unused = [p for name, p in module.classifier.backbone.model.named_parameters() if not p.requires_grad]
    assert unused
    make_trainer(Unfreezing(0), max_epochs=1).fit(module, datamodule=data(size=64))
    assert not any(parameter.requires_grad for parameter in unused)
    assert all(parameter.requires_grad for layer in module.classifier.backbone.layers() for parameter in layer)


def test_the_number_of_free_layers_only_grows():
    for probe_epochs in range(4):
        for unfreeze_every in range(4):
            numbers = [free_layers(epoch, probe_epochs, unfreeze_every, num_layers=5) for epoch in range(40)]
            assert numbers == sorted(numbers)
            assert numbers[-1] == 5
            assert all(number == 0 for number in numbers[:probe_epochs])


def test_a_module_without_a_backbone_is_left_alone(make_trainer):
    class Plain(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)

    module, trainer, callback = Plain(), make_trainer(), Unfreezing(5)
    callback.setup(trainer, module, "fit")
    callback.on_train_epoch_start(trainer, module)
    assert all(parameter.requires_grad for parameter in module.parameters())
