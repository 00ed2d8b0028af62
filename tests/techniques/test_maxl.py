"""MAXL as a technique: its labels, its options, the Trainer's features, several processes, half precision, mistakes."""

import copy
import gc
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from train_maxl_in_processes import OPTIONS, train

from lightning_priors.errors import PriorError
from lightning_priors.functional.clustering import hashed_uniform
from lightning_priors.nn import Classifier
from lightning_priors.techniques import MAXL, Pretrained
from lightning_priors.techniques.maxl import HELD_OUT

KEYS = ("aux_labels",)
SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9)

maxl = partial(MAXL, subclasses=3, generator_every=1)


@pytest.fixture
def fit_maxl(fit):
    """Three batches an epoch."""
    return partial(fit, keys=KEYS)


def same_weights(left: L.LightningModule, right: L.LightningModule, part: str = "") -> bool:
    other = right.state_dict()
    return all(torch.equal(value, other[name]) for name, value in left.state_dict().items() if name.startswith(part))


class Steps(L.Callback):
    """What the generator was stepped with, by the number of the batch since the start."""

    def __init__(self) -> None:
        self.gradients: dict[int, dict[str, Tensor]] = {}
        self.scores: list[Tensor] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: MAXL) -> None:
        step = pl_module.step_generator

        def note(gradients: dict[str, Tensor], counted: bool = False) -> None:
            self.gradients[trainer.fit_loop.epoch_loop.total_batch_idx] = {n: g.clone() for n, g in gradients.items()}
            step(gradients, counted)

        pl_module.step_generator = note

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.scores.append(outputs["loss"])


# -------------------------------------------------------------------- labels


def test_human_labels_are_one_hot_and_may_be_missing(batch) -> None:
    sample = batch(keys=KEYS)
    sample["aux_labels"][:, 1] = torch.tensor([0, 2, -1, 1, 0, -1])
    module = maxl(labels="human", aux_num_classes=[4, 3], aux_task=1)
    labels = module.auxiliary_labels(sample)
    assert labels.argmax(1)[[0, 1, 3, 4]].tolist() == [0, 2, 1, 0]
    assert labels.sum(1).tolist() == [1, 1, 0, 1, 1, 0]


def test_images_without_a_human_label_cost_nothing(batch) -> None:
    sample = batch(keys=KEYS)
    module = maxl(labels="human", aux_num_classes=[4, 3], loss="cross_entropy", aux_weight=0.5).eval()
    sample["aux_labels"][2:, 0] = -1
    losses = torch.nn.functional.cross_entropy(
        module.network(sample["image"]).auxiliary[:2], sample["aux_labels"][:2, 0]
    )
    torch.testing.assert_close(module.step(sample).terms["auxiliary"], 0.5 * losses)
    sample["aux_labels"][:] = -1
    assert module.step(sample).terms["auxiliary"] == 0


def test_the_focal_loss_is_the_default(batch) -> None:
    sample, module = batch(keys=KEYS), maxl(labels="human", aux_num_classes=[4, 3]).eval()
    log_probability = module.network(sample["image"]).auxiliary.log_softmax(1)[range(6), sample["aux_labels"][:, 0]]
    focal = -((1 - log_probability.exp()) ** 2) * log_probability
    torch.testing.assert_close(module.step(sample).terms["auxiliary"], focal.mean())


def test_random_labels_are_those_of_the_image_and_of_the_seed(batch) -> None:
    sample = batch(count=300, size=8, keys=())
    torch.manual_seed(0)
    first = maxl(labels="random")
    labels = first.auxiliary_labels(sample)
    torch.testing.assert_close(first.auxiliary_labels({k: v.flip(0) for k, v in sample.items()}), labels.flip(0))
    counts = labels.sum(0)
    assert counts.sum() == 300
    assert counts.min() > 30
    assert (labels.argmax(1) // 3).equal(sample["label"])
    torch.manual_seed(0)
    assert first.auxiliary_labels(sample).equal(maxl(labels="random").auxiliary_labels(sample))
    torch.manual_seed(1)
    assert not first.auxiliary_labels(sample).equal(maxl(labels="random").auxiliary_labels(sample))


def test_clusters_are_fixed_for_the_run_and_come_with_the_checkpoint(fit_maxl, batch, tmp_path: Path) -> None:
    module = maxl(labels="kmeans")
    with pytest.raises(PriorError, match="there are no clusters yet"):
        module.auxiliary_labels(batch(24))
    trainer = fit_maxl(module)
    labels = module.auxiliary_labels(batch(24))
    assert (labels.argmax(1) // 3).equal(batch(24)["label"])
    assert labels.sum(0).min() >= 1
    changed = batch(24) | {"image": torch.zeros(24, 3, 32, 32)}
    assert module.auxiliary_labels(changed).equal(labels), "another view of an image has the label of the image"
    unknown = batch(24) | {"index": torch.arange(1000, 1024)}
    assert module.auxiliary_labels(unknown).equal(labels), "an unknown image has that of what it looks like"
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = MAXL.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert loaded.auxiliary_labels(batch(24)).equal(labels)


def test_finding_the_clusters_draws_nothing_from_the_training(fit_maxl) -> None:
    torch.manual_seed(0)
    plain = maxl(labels="random", aux_weight=0.0)
    torch.manual_seed(0)
    clusters = maxl(labels="kmeans", aux_weight=0.0)
    for module in (plain, clusters):
        fit_maxl(module, epochs=2)
    assert same_weights(plain, clusters, "classifier")


def test_asking_for_labels_changes_nothing(batch) -> None:
    for generator in ("features", "tiny"):
        module = maxl(generator=generator).train()
        before = copy.deepcopy(module.state_dict())
        labels = module.auxiliary_labels(batch())
        assert labels.dtype == torch.float32
        assert not labels.requires_grad
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_warm_start_shows_the_clusters_in_the_first_epoch(fit_maxl, batch) -> None:
    module, steps, sample = maxl(warm_start="kmeans", generator_lr=0.01, generator_every=5), Steps(), batch(24)

    def chance_of_the_clusters() -> Tensor:
        features = module.classifier.backbone(sample["image"])
        return (module.generator(features, sample["label"]) * module.fixed_labels(sample)).sum(1).mean()

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            chances.append(chance_of_the_clusters())
            assert module.auxiliary_labels(sample).equal(module.fixed_labels(sample))

    chances: list[Tensor] = []
    trainer = fit_maxl(module, callbacks=[steps, Watch()])
    assert list(steps.gradients) == [0, 1, 2], "every batch, whatever generator_every says"
    assert "train/meta_gradient_norm" not in trainer.callback_metrics
    assert trainer.callback_metrics["train/confidence"] == 1
    assert chance_of_the_clusters() > chances[0] + 0.01
    assert "train/meta_gradient_norm" in fit_maxl(maxl(warm_start="kmeans"), epochs=2).callback_metrics


# -------------------------------------------------------------------- what is trained, and when


def generator_batches(fit, **options) -> list[int]:
    steps = Steps()
    fit(MAXL(subclasses=3, **options), epochs=2, callbacks=[steps], limit_val_batches=0, num_sanity_val_steps=0)
    return list(steps.gradients)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"generator_every": 1}, [1, 2, 4, 5]),
        ({"generator_every": 2}, [1, 4]),
        ({"generator_every": 1, "meta_batch": "half"}, [1, 2, 4, 5]),
        ({"generator_every": 2, "meta_batch": "half"}, [1, 4]),
        ({"generator_every": 1, "meta_batch": "same"}, [0, 1, 2, 3, 4, 5]),
        ({"generator_every": 2, "schedule": "alternating"}, [1, 4]),
        ({"generator_every": 2, "schedule": "alternating", "meta_batch": "same"}, [0, 2, 3, 5]),
        ({"generator_every": 1, "schedule": "alternating_epochs", "meta_batch": "held_out"}, [3, 4, 5]),
        ({"generator_every": 1, "accumulate_batches": 2}, [2, 5]),
        ({"generator_every": 1, "accumulate_batches": 2, "meta_batch": "same"}, [1, 2, 4, 5]),
    ],
)
def test_when_the_generator_learns(fit_maxl, options: dict[str, object], expected: list[int]) -> None:
    """An epoch has three batches; what waits for a next one at its end waits in vain."""
    assert generator_batches(fit_maxl, **options) == expected


def test_held_out_images_never_train_the_network(fit_maxl, batch) -> None:
    """With the generator's labels weighing nothing, only the images that train it could make a difference."""
    samples = batch(24)
    held_out = hashed_uniform(samples["index"], HELD_OUT) < 0.3
    assert 2 < held_out.sum() < 12
    modules = []
    for fill in (0.0, 100.0):
        torch.manual_seed(0)
        module = maxl(meta_batch="held_out", held_out_fraction=0.3, aux_weight=0.0)
        data = [{k: v[i] for k, v in samples.items()} for i in range(24)]
        for sample, out in zip(data, held_out, strict=True):
            sample["image"] = torch.full_like(sample["image"], fill) if out else sample["image"]
        trainer = L.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                            enable_model_summary=False, accelerator="cpu", limit_val_batches=0)  # fmt: skip
        trainer.fit(module, DataLoader(data, 8), DataLoader(data, 8))
        modules.append(module)
    assert same_weights(*modules, "classifier")
    assert same_weights(*modules, "auxiliary_head")


def test_a_batch_with_nothing_but_held_out_images_changes_no_gradient(batch) -> None:
    module = maxl(meta_batch="held_out", held_out_fraction=0.999)
    train, meta = module._parts(batch(6, keys=()))
    assert (train.share, meta.share) == (0.0, 1.0)
    assert len(train.batch["label"]) == 6


def test_the_loss_ahead_is_logged_when_asked_for_and_changes_nothing(fit_maxl) -> None:
    modules, keys = [], []
    for every in (0, 1):
        for options in ({}, {"schedule": "alternating"}, {"meta_batch": "half"}):
            torch.manual_seed(0)
            modules.append(maxl(lookahead_every=every, **options))
            keys.append(set(fit_maxl(modules[-1]).callback_metrics))
    added = {"train/primary_loss_before", "train/primary_loss_after"}
    assert keys[3] - keys[0] == keys[4] - keys[1] == added
    assert keys[5] - keys[2] == added | {"train/cosine"}, "halves have no gradients of their own for training"
    assert all(same_weights(modules[i], modules[i + 3]) for i in range(3))


def test_the_step_is_seen_to_lower_the_primary_loss(fit_maxl) -> None:
    trainer = fit_maxl(maxl(meta_batch="same", lookahead_every=1, optimizer=partial(torch.optim.SGD, lr=1e-3)))
    logged = trainer.callback_metrics
    assert logged["train/primary_loss_after"] < logged["train/primary_loss_before"]


def test_what_is_logged(fit_maxl) -> None:
    trained = {
        f"train/{name}" for name in ("loss", "acc", "loss_primary", "loss_auxiliary", "label_entropy", "confidence")
    }
    learned = {f"train/{name}" for name in ("meta_gradient_norm", "entropy_gradient_norm")}
    logged = {name for name in fit_maxl(maxl(balance="entropy")).callback_metrics if name.startswith("train")}
    assert logged == trained | learned | {"train/cosine"}
    logged = {name for name in fit_maxl(maxl(labels="random")).callback_metrics if name.startswith("train")}
    assert logged == trained
    values = fit_maxl(maxl(labels="random")).callback_metrics
    assert values["train/confidence"] == 1
    assert 0 < values["train/label_entropy"] < torch.tensor(6.0).log()
    assert values["train/loss"] == pytest.approx((values["train/loss_primary"] + values["train/loss_auxiliary"]).item())


def test_normalisation_mends_the_balance_of_meta_gradient_and_entropy(fit_maxl) -> None:
    norms = {}
    for mode in ("normalised", "clipped", "raw"):
        torch.manual_seed(0)
        logged = fit_maxl(maxl(meta_gradient=mode, entropy_weight=0.0, balance="entropy")).callback_metrics
        norms[mode] = logged["train/meta_gradient_norm"]
        assert "train/entropy_gradient_norm" not in logged
    assert norms["raw"] < 0.05 * norms["normalised"]
    assert norms["clipped"] == pytest.approx(norms["raw"].item(), rel=0.05)


# -------------------------------------------------------------------- the Trainer's features

RESUMED = {
    "default": {},
    "own generator": {"generator": "tiny", "generator_every": 2},
    "alternating": {"schedule": "alternating", "generator_every": 2},
    "alternating epochs": {"schedule": "alternating_epochs", "meta_batch": "held_out"},
    "accumulating": {"accumulate_batches": 2, "gradient_clip_norm": 0.1},
    "clusters": {"labels": "kmeans"},
    "random": {"labels": "random"},
    "warm": {"warm_start": "kmeans", "optimizer": SGD},
    "halved": {"meta_batch": "half", "generator_every": 1},
    "own schedule": {"scheduler": lambda o: torch.optim.lr_scheduler.StepLR(o, 1)},
}


@pytest.mark.parametrize("name", list(RESUMED))
def test_training_continues_exactly_after_interruptions(fit_maxl, tmp_path: Path, name: str) -> None:
    """After every epoch; a step that waits for the next batch belongs to its epoch."""

    class Interrupt(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module) -> None:
            trainer.should_stop = True

    def run(interrupted: bool) -> dict[str, Tensor]:
        path = None
        for _ in range(5 if interrupted else 1):
            L.seed_everything(0, verbose=False)
            module = maxl(**RESUMED[name])
            callbacks = [Interrupt()] if interrupted else []
            trainer = fit_maxl(module, epochs=5, ckpt_path=path, shuffle=False, callbacks=callbacks, min_epochs=1)
            path = str(tmp_path / f"{trainer.current_epoch}.ckpt")
            trainer.save_checkpoint(path)
        assert trainer.current_epoch == 5
        return module.state_dict()

    whole, resumed = run(False), run(True)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_checkpoint_reloads_without_what_was_waiting(fit_maxl, tmp_path: Path) -> None:
    module = maxl(generator="tiny", subclasses=[1, 4])
    trainer = fit_maxl(module)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = MAXL.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert same_weights(module, loaded)
    assert loaded.sub_classes == [1, 4]
    content = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert content["maxl"].keys() == {"seed", "clusters"}
    assert len(content["optimizer_states"]) == 2


def test_inference_and_exports_have_only_the_classifier(fit_maxl, batch, tmp_path: Path) -> None:
    module, image = maxl(generator="tiny"), batch()["image"]
    trainer = fit_maxl(module)
    logits, cam = module.eval().explain(image)
    torch.testing.assert_close(cam.mean((2, 3)) + module.classifier.head.bias, logits)
    with torch.no_grad():
        for parameter in (*module.auxiliary_head.parameters(), *module.generator.parameters()):
            parameter.fill_(torch.nan)
    assert torch.equal(module(image), logits)
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    start = Pretrained(weights=str(tmp_path / "whole.ckpt"))
    start.load_initial_weights()
    assert same_weights(start.classifier.backbone, module.classifier.backbone)
    network = Classifier(num_classes=2)
    network.load_state_dict(module.classifier.state_dict())


def test_initial_weights_are_for_the_network_alone(fit_maxl, tmp_path: Path) -> None:
    source = Pretrained()
    torch.save(source.classifier.state_dict(), tmp_path / "weights.pt")
    module = maxl(generator="tiny", weights=str(tmp_path / "weights.pt"))
    before = copy.deepcopy(module.generator.state_dict())
    module.load_initial_weights()
    assert same_weights(module.classifier.backbone, source.classifier.backbone)
    assert all(torch.equal(value, before[name]) for name, value in module.generator.state_dict().items())


@pytest.mark.parametrize("options", [{}, {"warm_start": "kmeans"}, {"labels": "kmeans"}])
def test_with_a_moving_average_of_the_weights(fit_maxl, batch, tmp_path: Path, options: dict[str, str]) -> None:
    """The average is what is validated and kept; the training goes on as without it."""
    states = []
    for average in (False, True):
        torch.manual_seed(0)
        module, keep = maxl(**options), ModelCheckpoint(tmp_path / str(average), filename="last")
        callbacks = [keep, *([EMAWeightAveraging(decay=0.9)] if average else [])]
        fit_maxl(module, epochs=2, callbacks=callbacks, enable_checkpointing=True)
        states.append(torch.load(tmp_path / str(average) / "last.ckpt", weights_only=True))
    plain, averaged = states
    assert all(torch.equal(v, averaged["current_model_state"][k]) for k, v in plain["state_dict"].items())
    assert not torch.equal(
        averaged["state_dict"]["classifier.head.weight"], plain["state_dict"]["classifier.head.weight"]
    )
    if options:
        first, second = (state["maxl"]["clusters"] for state in states)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("options", [{}, {"generator": "tiny"}, {"schedule": "alternating"}, {"meta_batch": "half"}])
def test_nothing_piles_up(fit_maxl, squares, options: dict[str, str]) -> None:
    counts: list[int] = []

    class Count(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            if batch_idx in (20, 59):  # as far from the last look ahead
                gc.collect()
                counts.append(sum(type(found) is Tensor for found in gc.get_objects()))

    trainer = L.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                        enable_model_summary=False, accelerator="cpu", callbacks=[Count()])  # fmt: skip
    data = squares(240, size=8, keys=())
    trainer.fit(maxl(generator_every=3, **options), DataLoader(data, 4), DataLoader(data, 60))
    assert counts[1] <= counts[0]


def test_what_waits_is_let_go_of_at_the_end(fit_maxl) -> None:
    for schedule in ("interleaved", "alternating"):
        module = maxl(schedule=schedule)
        fit_maxl(module)
        assert (module._inner, module._pending, module._previous) == ([], None, None)
        assert all(parameter.grad is None for parameter in module.parameters())


# -------------------------------------------------------------------- half precision


def in_half_precision(**options) -> dict[str, object]:
    scaler = torch.amp.GradScaler("cpu", init_scale=options.pop("scale", 2.0**10), growth_interval=1000)
    return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}


@pytest.mark.parametrize(
    "options",
    [{}, {"schedule": "alternating"}, {"generator": "tiny", "accumulate_batches": 2}, {"meta_batch": "half"}],
)
@pytest.mark.parametrize("precision", ["bf16", "16"])
def test_half_precision_gives_about_the_same_meta_gradient(fit_maxl, precision: str, options) -> None:
    seen = {}
    for half in (False, True):
        torch.manual_seed(0)
        steps = Steps()
        module = maxl(meta_gradient="raw", entropy_weight=0.0, optimizer=partial(torch.optim.SGD, lr=0.01), **options)
        chosen = {} if not half else {"precision": "bf16-mixed"} if precision == "bf16" else in_half_precision()
        trainer = fit_maxl(module, callbacks=[steps], shuffle=False, **chosen)
        seen[half] = steps.gradients[min(steps.gradients)], trainer, module
    exact, about = (torch.cat([g.flatten() for g in seen[half][0].values()]) for half in (False, True))
    assert about.dtype == torch.float32
    assert 0.8 < about.norm() / exact.norm() < 1.25
    assert torch.nn.functional.cosine_similarity(about, exact, 0) > 0.9
    before, after = (torch.cat([p.flatten() for p in seen[half][2].generator.parameters()]) for half in (False, True))
    torch.testing.assert_close(after, before, rtol=0.05, atol=0.01)


@pytest.mark.parametrize("schedule", ["interleaved", "alternating_epochs"])
def test_the_loss_scale_is_updated_once_a_batch(fit_maxl, schedule: str) -> None:
    options = in_half_precision(scale=2.0**8)
    trainer = fit_maxl(maxl(schedule=schedule, meta_batch="same"), epochs=2, **options)
    scaler = trainer.precision_plugin.scaler
    assert scaler.state_dict()["_growth_tracker"] == trainer.global_step == 6


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step..` before `optimizer.step")
def test_a_step_that_overflows_teaches_nothing(fit_maxl) -> None:
    steps, module = Steps(), maxl()
    before = copy.deepcopy(module.state_dict())
    trainer = fit_maxl(module, callbacks=[steps], **in_half_precision(scale=2.0**120))
    assert not steps.gradients
    assert trainer.precision_plugin.scaler.get_scale() == 2.0**117
    assert all(torch.equal(value, before[f"generator.{name}"]) for name, value in module.generator.state_dict().items())


def test_clipping_sees_gradients_without_loss_scale(fit_maxl) -> None:
    modules = []
    for options in ({}, in_half_precision()):
        torch.manual_seed(0)
        modules.append(maxl(gradient_clip_norm=0.1, labels="random", optimizer=partial(torch.optim.SGD, lr=0.1)))
        fit_maxl(modules[-1], shuffle=False, **options)
    first, second = (torch.cat([p.flatten() for p in module.network.parameters()]) for module in modules)
    assert (first - second).norm() < 0.01


# -------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "options",
    [{}, {"meta_batch": "same"}, {"meta_batch": "half"}, {"accumulate_batches": 2}, {"generator_every": 2}],
)
def test_keeping_convolutions_changes_nothing(fit_maxl, options: dict[str, object]) -> None:
    modules = []
    for keep in (False, True):
        torch.manual_seed(0)
        module = maxl(keep_convolutions=keep, lr=1e-2, **options)
        fit_maxl(module, epochs=2)
        modules.append(module)
    for name, value in modules[0].state_dict().items():
        torch.testing.assert_close(modules[1].state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_kept_convolutions_are_not_made_again(fit_maxl, batch) -> None:
    """Of the forward-mode pass of each step that the generator learned from, only the derivatives remain."""
    spent = []
    for options in ({}, {"keep_convolutions": True}, {"method": "one_convolution"}):
        torch.manual_seed(0)
        module, learned = maxl(generator_every=2, **options), Steps()
        with FlopCounterMode(display=False) as counter:
            fit_maxl(module, callbacks=[learned])
        spent.append(counter.get_flop_counts()["Global"][torch.ops.aten.convolution])
    with FlopCounterMode(display=False) as counter:
        module.network.eval()(batch(8)["image"])
    forward = counter.get_flop_counts()["Global"][torch.ops.aten.convolution]
    assert spent[0] - spent[1] >= len(learned.gradients) * forward > 0
    first = module.classifier.backbone.model.blocks[0][0].weight.numel() * 16 * 16 * 2 * 8  # its input does not move
    assert spent[1] - spent[2] == len(learned.gradients) * (forward - first)


def test_one_convolution_gives_the_derivative_but_for_rounding(fit_maxl) -> None:
    learned = []
    for method in ("forward_mode", "one_convolution"):
        torch.manual_seed(0)
        learned.append(Steps())
        fit_maxl(maxl(method=method, optimizer=SGD, meta_gradient="raw"), epochs=1, callbacks=[learned[-1]])
    firsts = (next(iter(steps.gradients.values())) for steps in learned)
    exact, near = (torch.cat([gradient.flatten() for gradient in first.values()]) for first in firsts)
    assert 0 < (near - exact).norm() < 3e-3 * exact.norm()


def test_one_convolution_is_refused_where_convolutions_are_rounded(fit_maxl, monkeypatch) -> None:
    monkeypatch.setattr("lightning_priors.techniques.maxl.rounds_convolutions", lambda device: True)
    with pytest.raises(PriorError, match="one_convolution needs convolutions in full precision"):
        fit_maxl(maxl(method="one_convolution"))


@pytest.mark.parametrize("schedule", ["interleaved", "alternating"])
def test_checkpointing_the_generator_changes_nothing(fit_maxl, schedule: str) -> None:
    """Running statistics included, which each image is to enter once."""
    modules = []
    for checkpoint in (False, True):
        torch.manual_seed(0)
        module = maxl(generator="tiny", checkpoint_generator=checkpoint, schedule=schedule, optimizer=SGD)
        fit_maxl(module, epochs=2)
        modules.append(module)
    assert same_weights(*modules)
    statistics = [name for name in modules[0].state_dict() if name.startswith("generator") and "running" in name]
    assert statistics


def test_a_checkpointed_generator_keeps_no_activations(batch) -> None:
    image, kept = batch()["image"], {}
    for checkpoint in (False, True):
        module, saved = maxl(generator="tiny", checkpoint_generator=checkpoint), []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, saved=saved: saved.append(x.numel()) or x, lambda x: x):
            module.generator.logits(image)
        kept[checkpoint] = sum(saved)
    assert kept[True] == image.numel() < kept[False] / 5, "the image alone"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subclasses": [1, 2, 3]}, "subclasses: psi gives sub-classes for 3 primary classes, but there are 2"),
        ({"subclasses": 0}, "subclasses: each primary class needs at least one sub-class"),
        ({"labels": "human"}, "aux_task 0 is none of the 0 auxiliary tasks of the data"),
        ({"labels": "human", "aux_num_classes": [4], "aux_task": 1}, "aux_task 1 is none of the 1"),
        ({"generator_every": 0}, "generator_every is at least 1, not 0"),
        ({"accumulate_batches": 0}, "accumulate_batches is at least 1, not 0"),
        ({"temperature": 0.0}, "temperature is above 0, not 0.0"),
        ({"held_out_fraction": 1.0}, "held_out_fraction is between 0 and 1, not 1.0"),
        ({"method": "unrolled"}, "method unrolled needs schedule alternating"),
        ({"meta_batch": "half", "schedule": "alternating"}, "meta_batch half needs schedule interleaved"),
        ({"schedule": "alternating_epochs"}, "alternating_epochs takes meta_batch same or held_out"),
        (
            {"schedule": "alternating_epochs", "meta_batch": "same", "accumulate_batches": 2},
            "alternating_epochs takes accumulate_batches 1",
        ),
        ({"generator": "resnt18"}, "unknown backbone 'resnt18'"),
        ({"keep_convolutions": True, "schedule": "alternating"}, "keep_convolutions needs schedule interleaved"),
        ({"keep_convolutions": True, "method": "finite_difference"}, "keep_convolutions needs schedule interleaved"),
        ({"method": "one_convolution", "schedule": "alternating"}, "one_convolution needs schedule interleaved"),
        ({"checkpoint_generator": True}, "checkpoint_generator needs a generator with a network of its own"),
    ],
)
def test_mistakes_in_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(PriorError, match=message):
        MAXL(**options)


@pytest.mark.parametrize("meta_batch", ["next", "half"])
def test_an_epoch_of_one_step_has_nothing_to_learn_from(fit_maxl, meta_batch: str) -> None:
    with pytest.raises(PriorError, match="an epoch of one step has no next batch for the generator"):
        fit_maxl(maxl(meta_batch=meta_batch), limit_train_batches=1)


def test_optimisers_that_cannot_be_looked_through(fit_maxl) -> None:
    with pytest.raises(PriorError, match=r"labels maxl: .*SGD, Adam and AdamW.* not for RMSprop"):
        fit_maxl(maxl(optimizer=torch.optim.RMSprop))
    fit_maxl(maxl(optimizer=torch.optim.RMSprop, labels="random"))


def test_halves_cost_half_of_the_passes_for_learning(fit_maxl) -> None:
    """One forward and backward pass of each image, half of the generator's and of the derivative's."""
    spent = []
    for options in ({"labels": "none"}, {}, {"meta_batch": "half"}):
        torch.manual_seed(0)
        with FlopCounterMode(display=False) as counter:
            fit_maxl(maxl(generator="tiny", generator_every=1, **options), limit_val_batches=0)
        spent.append(counter.get_flop_counts()["Global"])
    plain, whole, halved = (sum(v for k, v in s.items() if "convolution" in str(k)) for s in spent)
    assert 0.3 * (whole - plain) < halved - plain < 0.55 * (whole - plain)


def test_human_labels_have_to_be_there(fit) -> None:
    with pytest.raises(PriorError, match=r"MAXL with labels human needs batch\['aux_labels'\]"):
        fit(maxl(labels="human", aux_num_classes=[4]))


# -------------------------------------------------------------------- several processes


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    """With the same images in each step, under the strategy ``ddp`` as it is."""
    train(tmp_path, 1)
    script = Path(__file__).parent / "train_maxl_in_processes.py"
    command = [sys.executable, "-W", "ignore", str(script), str(tmp_path), "2"]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(script.parents[2])})
    for name in OPTIONS:
        one, *two = (torch.load(tmp_path / f"{name}-{end}.pt", weights_only=True) for end in ("1-0", "2-0", "2-1"))
        tolerance = 1e-5 if name == "single" else 1e-12
        for state, logged in two:
            for key, value in state.items():
                torch.testing.assert_close(value, one[0][key], rtol=tolerance, atol=tolerance, msg=f"{name} {key}")
            assert logged.keys() == one[1].keys()
            for key, value in logged.items():
                torch.testing.assert_close(value, one[1][key], rtol=1e-4, atol=1e-6, msg=f"{name} {key}")
        assert all(torch.equal(value, two[1][0][key]) for key, value in two[0][0].items())
