"""Balanced accuracy, and the accuracy on chosen groups."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from lightning_priors.callbacks import SubsetAccuracy
from lightning_priors.errors import PriorError


def known_answers(looker):
    """A module that takes every fourth image for class 1."""

    class Known(looker):
        def validation_step(self, batch, batch_idx):
            return F.one_hot((batch["index"] % 4 == 0).long(), 2).float()

        test_step = validation_step

    return Known()


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_accuracies_by_hand(looker, data, make_trainer, stage):
    trainer = make_trainer(SubsetAccuracy({"third": [1, 3], "zero": [0]}))
    loader = data().val_dataloader()
    (metrics,) = getattr(trainer, stage)(known_answers(looker), loader, verbose=False)
    batches = list(loader)
    index, label, group = (torch.cat([batch[key] for batch in batches]) for key in ("index", "label", "group"))
    right = ((index % 4 == 0).long() == label).float()
    prefix = "val" if stage == "validate" else "test"
    expected = (right[label == 0].mean() + right[label == 1].mean()) / 2
    assert metrics[f"{prefix}/balanced_acc"] == pytest.approx(expected.item())
    assert metrics[f"{prefix}/balanced_acc"] != pytest.approx(right.mean().item()), "the classes are uneven"
    assert metrics[f"{prefix}/acc_third"] == pytest.approx(right[(group == 1) | (group == 3)].mean().item())
    assert metrics[f"{prefix}/acc_zero"] == pytest.approx(right[group == 0].mean().item())


def test_each_epoch_counts_by_itself_and_absent_classes_do_not_count(looker, data, make_trainer):
    callback = SubsetAccuracy()
    trainer = make_trainer(callback)
    batches = list(data().val_dataloader())
    ones = [batch for batch in batches if (batch["label"] == 1).all()]
    module = known_answers(looker)
    for loader in (batches, ones):
        (metrics,) = trainer.validate(module, DataLoader(loader, batch_size=None), verbose=False)
    index = torch.cat([batch["index"] for batch in ones])
    assert metrics["val/balanced_acc"] == pytest.approx((index % 4 == 0).float().mean().item())


def test_during_training(looker, data, make_trainer):
    trainer = make_trainer(SubsetAccuracy({"all": [0, 1, 2, 3]}), max_epochs=1)
    trainer.fit(looker(), datamodule=data())
    assert {"val/balanced_acc", "val/acc_all"} <= set(trainer.callback_metrics)


def test_data_without_groups_and_steps_without_logits_are_named(looker, data, make_trainer):
    with pytest.raises(PriorError, match="SubsetAccuracy: this data has no groups for hard"):
        make_trainer(SubsetAccuracy({"hard": [0]})).validate(looker(), data(keys=()).val_dataloader(), verbose=False)

    class Silent(looker):
        def validation_step(self, batch, batch_idx):
            return None

    with pytest.raises(PriorError, match="SubsetAccuracy needs the evaluation steps of Silent to give logits"):
        make_trainer(SubsetAccuracy()).validate(Silent(), data().val_dataloader(), verbose=False)
