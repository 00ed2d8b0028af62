"""The shared protocol: what is logged, how weights, optimisers and schedules behave."""

import math
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from lightning_priors.errors import PriorError
from lightning_priors.nn import Classifier
from lightning_priors.priors import AuxiliaryTasks, Restriction
from lightning_priors.techniques import CAMRestriction, Combined, GlobalLocal, LastLayerRetraining, Pretrained
from lightning_priors.techniques.optimisation import warmup_cosine


def test_warmup_is_linear_and_the_cosine_ends_at_zero() -> None:
    factors = [warmup_cosine(step, 4, 24) for step in range(25)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[14] == pytest.approx(0.5)
    assert factors[24] == pytest.approx(0.0)
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert warmup_cosine(10**6, 4, math.inf) == 1.0


CLASSIFIED = {
    "loss", "acc", "acc_macro", "f1_macro", "worst_class_acc", "worst_group_acc", "auroc", "average_precision", "ece"
}  # fmt: skip
"""What is logged of data of which nobody knows how many images of each group were trained on."""


def test_what_is_logged(fit) -> None:
    trainer = fit(CAMRestriction())
    shared = {"loss", "acc"}
    judged = CLASSIFIED | {"epg", "pointing_game", "cam_iou"}
    expected = {f"train/{key}" for key in shared | {"loss_primary", "loss_restriction"}} | {
        f"val/{key}" for key in judged
    }
    expected.add("loss")  # of the progress bar
    assert set(trainer.callback_metrics) == expected


def test_spatial_metrics_only_where_the_data_has_priors(fit, squares, tmp_path) -> None:
    trainer = fit(Pretrained())
    loader = DataLoader(squares(8, keys=()), batch_size=4)
    (metrics,) = trainer.validate(trainer.lightning_module, loader, verbose=False)
    assert set(metrics) == {f"val/{name}" for name in CLASSIFIED}


def test_evaluation_sees_the_image_alone(batch) -> None:
    """The same logits whatever the priors say: metrics of classification do not move when priors are replaced."""
    model = CAMRestriction().eval()
    trainer = L.Trainer(logger=False, barebones=False, enable_progress_bar=False, enable_model_summary=False)
    results = []
    for scale in (1.0, 0.0):
        sample = batch(8)
        sample["mask"] = sample["mask"] * scale
        (metrics,) = trainer.validate(model, DataLoader([sample], batch_size=None), verbose=False)
        results.append({key: value for key, value in metrics.items() if key.split("/")[1] not in {"epg", "cam_iou"}})
    assert {k: results[0][k] for k in ("val/loss", "val/acc")} == {k: results[1][k] for k in ("val/loss", "val/acc")}


def test_validation_metrics_equal_a_computation_by_hand(batch) -> None:
    model = Pretrained().eval()
    sample = batch(12)
    trainer = L.Trainer(logger=False, enable_progress_bar=False, enable_model_summary=False)
    (metrics,) = trainer.validate(model, DataLoader([sample], batch_size=None), verbose=False)
    with torch.no_grad():
        logits = model(sample["image"])
    right = (logits.argmax(1) == sample["label"]).float()
    by_group = [right[sample["group"] == group].mean().item() for group in range(4)]
    assert metrics["val/acc"] == pytest.approx(right.mean().item())
    assert metrics["val/worst_group_acc"] == pytest.approx(min(by_group))
    assert metrics["val/loss"] == pytest.approx(F.cross_entropy(logits, sample["label"]).item(), abs=1e-6)


def test_default_schedule_and_decay_act(fit) -> None:
    module = Pretrained(lr=0.01, weight_decay=0.1, warmup_epochs=1.0)
    seen: list[float] = []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer = fit(module, epochs=3, callbacks=[Watch()])
    assert seen[:3] == pytest.approx([0.01 / 3, 0.02 / 3, 0.01])
    assert seen[3:] == pytest.approx([0.01 * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)])
    for group in trainer.optimizers[0].param_groups:
        assert all((parameter.ndim > 1) == (group["weight_decay"] == 0.1) for parameter in group["params"])


@pytest.mark.parametrize("warmup_epochs", [0.0, 1.0])
def test_default_schedule_where_steps_alone_end_the_training(fit, warmup_epochs: float) -> None:
    seen: list[float] = []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    fit(Pretrained(lr=0.01, warmup_epochs=warmup_epochs), epochs=-1, max_steps=7, callbacks=[Watch()])
    assert seen == pytest.approx([0.01 * warmup_cosine(step, 3 * warmup_epochs, 7) for step in range(7)])
    assert max(seen) == 0.01


def test_a_given_optimizer_and_scheduler_replace_the_defaults(fit) -> None:
    module = Pretrained(
        layer_decay=0.5,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.08, momentum=0.9),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1),
    )
    trainer = fit(module, epochs=1)
    (optimizer,) = trainer.optimizers
    assert isinstance(optimizer, torch.optim.SGD)
    assert [group["initial_lr"] for group in optimizer.param_groups] == pytest.approx([0.08 / 2**k for k in range(5)])
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.008 / 2**k for k in range(5)])
    assert all(group["weight_decay"] == 0 for group in optimizer.param_groups), "no default leaks into it"


def test_plateau_scheduler_watches_the_validation_loss(fit) -> None:
    module = Pretrained(scheduler=lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0))
    trainer = fit(module, epochs=1)
    assert trainer.lr_scheduler_configs[0].monitor == "val/loss"


def test_a_missing_prior_is_named(fit, squares) -> None:
    trainer = L.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    loader = DataLoader(squares(8, keys=("group",)), batch_size=4)
    with pytest.raises(PriorError, match=r"CAMRestriction needs batch\['mask'\] or batch\['part_boxes'\]; this data"):
        trainer.fit(CAMRestriction(), loader, loader)


def test_weights_are_read_when_training_begins_and_not_when_a_checkpoint_brings_them(fit, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = Classifier(num_classes=5)
    torch.save(other.state_dict(), tmp_path / "other.pt")
    before_training = {}

    class Keep(L.Callback):
        def on_train_start(self, trainer, pl_module) -> None:
            before_training.update({name: value.clone() for name, value in pl_module.state_dict().items()})

    module = Pretrained(weights=str(tmp_path / "other.pt"))
    trainer = fit(module, callbacks=[Keep()], enable_checkpointing=True)
    name = "classifier.backbone.model.blocks.0.0.weight"
    assert torch.equal(before_training[name], other.state_dict()["backbone.model.blocks.0.0.weight"])
    path = tmp_path / "trained.ckpt"
    trainer.save_checkpoint(path)
    (tmp_path / "other.pt").unlink()
    trained = module.state_dict()[name]
    loaded = Pretrained.load_from_checkpoint(path, weights_only=True)
    fit(loaded, callbacks=[Keep()])
    assert torch.equal(before_training[name], trained), "training goes on from the checkpoint"
    fresh = Pretrained(weights=str(tmp_path / "other.pt"))
    trainer.validate(fresh, trainer.val_dataloaders, ckpt_path=path, verbose=False, weights_only=True)
    assert torch.equal(fresh.state_dict()[name], trained)


@pytest.mark.slow
def test_a_checkpoint_reloads_in_another_script_that_imports_only_the_class(fit, batch, tmp_path: Path) -> None:
    module = Pretrained(num_classes=3, lr=0.02, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    trainer = fit(module)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    sample = batch(4)
    torch.save(sample["image"], tmp_path / "image.pt")
    script = (
        "import torch\n"
        "from lightning_priors import Pretrained\n"
        f"model = Pretrained.load_from_checkpoint({str(tmp_path / 'model.ckpt')!r}, weights_only=True).eval()\n"
        "assert (model.hparams.num_classes, model.hparams.lr) == (3, 0.02)\n"
        f"image = torch.load({str(tmp_path / 'image.pt')!r})\n"
        f"torch.save(model(image).detach(), {str(tmp_path / 'logits.pt')!r})\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), module.eval()(sample["image"]).detach())


def test_training_continues_exactly_after_an_interruption(fit, tmp_path: Path) -> None:
    def train(epochs_at_once: list[int]) -> dict[str, torch.Tensor]:
        path = None
        for epochs in epochs_at_once:
            L.seed_everything(0, verbose=False)
            module = CAMRestriction(weight_warmup_epochs=2, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3),
                                    scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 1))  # fmt: skip
            trainer = fit(module, epochs=epochs, ckpt_path=path, shuffle=False)
            path = str(tmp_path / f"{len(epochs_at_once)}-{epochs}.ckpt")
            trainer.save_checkpoint(path)
        return module.state_dict()

    whole, resumed = train([3]), train([1, 3])
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_technique_lists_what_it_has_to_know_beside_the_labels() -> None:
    assert Pretrained().needs() == []
    assert LastLayerRetraining().needs() == [("group",)]
    assert LastLayerRetraining(balance="classes").needs() == []
    assert GlobalLocal(exchange_background=True).needs() == [("part_boxes",), ("mask",)]
    combined = Combined([Restriction(), AuxiliaryTasks(exclude_target=True)], aux_num_classes=[4])
    assert combined.needs() == [("mask", "part_boxes"), ("aux_labels",)]
