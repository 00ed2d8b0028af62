"""Steps, schedules and refusals of techniques that train two networks by hand, as MAXL uses them."""

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from torch.utils.data import DataLoader, IterableDataset

from lightning_priors.batch import PriorBatch
from lightning_priors.errors import PriorError
from lightning_priors.techniques import MAXL, PublishedMAXL
from lightning_priors.techniques.maxl.two_networks import refuse_sharding

SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9)

maxl = partial(MAXL, subclasses=3, generator_every=1)


@pytest.mark.parametrize("make", [maxl, partial(PublishedMAXL, subclasses=3, method="first_order")])
def test_one_global_step_a_batch(fit, make) -> None:
    assert fit(make(), epochs=3).global_step == 9
    assert fit(make(), epochs=-1, max_steps=5).global_step == 5


def test_one_global_step_for_several_batches(fit) -> None:
    assert fit(maxl(accumulate_batches=2), epochs=2).global_step == 4


# Lightning asks for weights from before the step; those after it are the ones that belong to its number
@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization")
def test_checkpoints_are_kept_at_the_steps_asked_for(fit, tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=-1, filename="{step}")
    fit(maxl(generator="tiny"), epochs=2, callbacks=[keep], enable_checkpointing=True)
    assert sorted(path.stem for path in tmp_path.glob("*.ckpt")) == ["step=2", "step=4", "step=6"]


def test_both_learning_rates_follow_one_schedule(fit) -> None:
    rates: list[tuple[float, float]] = []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            rates.append(tuple(o.param_groups[0]["lr"] for o in trainer.optimizers))

    fit(maxl(lr=0.01, generator_lr=0.1, warmup_epochs=1.0), epochs=2, callbacks=[Watch()])
    expected = [1 / 3, 2 / 3, 1, 1, 0.75, 0.25]
    # the generator's rate is set after each step of the network, and it makes no step before the second batch
    assert [rate for rate, _ in rates] == pytest.approx([0.01 * factor for factor in expected])
    assert [rate for _, rate in rates[1:]] == pytest.approx([0.1 * factor for factor in expected[1:]])


@pytest.mark.parametrize(
    "scheduler",
    [
        lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.5),
        # a threshold that no loss can pass
        lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=0, threshold=1.0),
    ],
)
def test_a_schedule_of_ones_own_is_stepped_once_an_epoch(fit, scheduler) -> None:
    rates: list[tuple[float, float]] = []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            rates.append(tuple(o.param_groups[0]["lr"] for o in trainer.optimizers))

    trainer = fit(maxl(optimizer=SGD, scheduler=scheduler, generator_lr=0.1), epochs=2, callbacks=[Watch()])
    assert [rate for rate, _ in rates] == pytest.approx([0.05] * 3 + [0.025] * 3)
    assert [rate for _, rate in rates] == pytest.approx([0.1] * 3 + [0.05] * 3)
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == pytest.approx([0.0125, 0.025])


def test_a_schedule_that_follows_the_validation_needs_one(fit) -> None:
    module = maxl(scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau)
    with pytest.raises(PriorError, match="the schedule follows val/loss, but there was no validation"):
        fit(module, limit_val_batches=0, num_sanity_val_steps=0)


def test_the_cosine_counts_steps_of_several_batches(fit) -> None:
    for options in ({"epochs": 2}, {"epochs": 9, "max_steps": 4}, {"epochs": -1, "max_steps": 4}):
        module = maxl(accumulate_batches=2, warmup_epochs=0.5)
        trainer = fit(module, **options)
        assert trainer.global_step == 4
        assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient_clip_val": 1.0}, "set model.gradient_clip_norm, not trainer.gradient_clip_val"),
        ({"accumulate_grad_batches": 2}, "set model.accumulate_batches, not trainer.accumulate_grad_batches"),
    ],
)
def test_what_the_trainer_may_not_do(fit, options: dict[str, object], message: str) -> None:
    with pytest.raises(PriorError, match=message):
        fit(maxl(), **options)


@pytest.mark.parametrize("strategy", [FSDPStrategy, DeepSpeedStrategy])
def test_strategies_that_take_the_network_apart_are_refused(strategy: type) -> None:
    with pytest.raises(PriorError, match=f"strategy ddp, not {strategy.__name__}"):
        refuse_sharding(strategy.__new__(strategy), by="MAXL")


class Endless(IterableDataset[PriorBatch]):
    """Batches without end, and without a length."""

    def __init__(self, batch: PriorBatch) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[PriorBatch]:
        return itertools.repeat(self.batch)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")  # so it is meant
@pytest.mark.parametrize("options", [{}, {"accumulate_batches": 2}])
def test_training_data_may_be_endless(batch, tmp_path: Path, options: dict[str, object]) -> None:
    module = maxl(**options)
    trainer = L.Trainer(
        accelerator="cpu", max_steps=4, default_root_dir=tmp_path, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(Endless(batch()), batch_size=None))
    assert trainer.global_step == 4


def test_the_cosine_is_one_where_the_auxiliary_task_is_the_primary_one_again() -> None:
    """With one sub-class for each class and the same head; also in inference mode, and no buffer changes."""
    torch.manual_seed(0)
    model = maxl(subclasses=1, num_classes=3, loss="cross_entropy")
    model.network.auxiliary.weight.data.copy_(model.classifier.head.weight)
    model.network.auxiliary.bias.data.copy_(model.classifier.head.bias)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.inference_mode():
        batch = {"image": torch.randn(6, 3, 32, 32), "label": torch.arange(6) % 3}
        assert float(model.gradient_cosine(batch)) == pytest.approx(1)
    model.network.auxiliary.weight.data.neg_()
    model.network.auxiliary.bias.data.zero_()
    model.classifier.head.bias.data.zero_()
    assert float(model.gradient_cosine(batch)) < 0.5
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers() if name in before)


def test_the_cosine_by_hand() -> None:
    """Of the two losses' gradients on the backbone, which is all that the tasks share."""
    torch.manual_seed(0)
    model = maxl(num_classes=3).eval()
    batch = {"image": torch.randn(6, 3, 32, 32), "label": torch.arange(6) % 3}
    outputs = model.network(batch)
    primary = torch.nn.functional.cross_entropy(outputs.seen.logits, batch["label"])
    labels = model.auxiliary_labels(batch)
    probability = outputs.auxiliary.softmax(1)
    auxiliary = -(labels * (1 - probability) ** 2 * probability.log()).sum(1).mean()
    shared = list(model.classifier.backbone.parameters())
    first, second = (
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, shared, retain_graph=True)])
        for loss in (primary, auxiliary)
    )
    expected = torch.nn.functional.cosine_similarity(first, second, dim=0)
    assert float(model.gradient_cosine(batch)) == pytest.approx(float(expected), abs=1e-4)
