"""MAXL as a technique: its labels, its options, the Trainer's features, several ranks, half precision, mistakes."""

import copy
import gc
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from processes import run_on_ranks
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from train_maxl_on_ranks import OPTIONS, train

from lightning_priors.errors import PriorError
from lightning_priors.nn import Classifier
from lightning_priors.priors import AuxiliaryTasks, GuidedAttention, Restriction
from lightning_priors.techniques import MAXL, Pretrained, PublishedMAXL

KEYS = ("aux_labels", "mask")
SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9)

maxl = partial(MAXL, subclasses=3, generator_every=1)
published = partial(PublishedMAXL, subclasses=3, generator="features", method="first_order")


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

        def note(gradients: dict[str, Tensor]) -> None:
            self.gradients[trainer.fit_loop.epoch_loop.total_batch_idx] = {n: g.clone() for n, g in gradients.items()}
            step(gradients)

        pl_module.step_generator = note

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.scores.append(outputs["loss"])


# -------------------------------------------------------------------- labels


def test_asking_for_labels_changes_nothing(batch) -> None:
    for options in ({}, {"generator": "tiny"}, {"priors": [Restriction(exchange_background=True)]}):
        module = maxl(**options).train()
        before = copy.deepcopy(module.state_dict())
        labels = module.auxiliary_labels(batch())
        assert labels.dtype == torch.float32
        assert not labels.requires_grad
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


# -------------------------------------------------------------------- what is trained, and when


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"generator_every": 1}, [1, 2, 4, 5]),
        ({"generator_every": 2}, [1, 4]),
        ({"generator_every": 1, "meta_batch": "half"}, [1, 2, 4, 5]),
        ({"generator_every": 2, "meta_batch": "half"}, [1, 4]),
        ({"generator_every": 1, "accumulate_batches": 2}, [2, 5]),
    ],
)
def test_when_the_generator_learns(fit_maxl, options: dict[str, object], expected: list[int]) -> None:
    """An epoch has three batches; what waits for a next one at its end waits in vain."""
    steps = Steps()
    module = MAXL(subclasses=3, **options)
    fit_maxl(module, epochs=2, callbacks=[steps], limit_val_batches=0, num_sanity_val_steps=0)
    assert list(steps.gradients) == expected


def test_published_it_learns_from_every_batch(fit_maxl) -> None:
    steps = Steps()
    fit_maxl(published(), epochs=2, callbacks=[steps])
    assert list(steps.gradients) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("meta_batch", ["next", "half"])
@pytest.mark.parametrize("images", [17, 18])
def test_a_short_last_batch_is_learned_from(squares, meta_batch: str, images: int) -> None:
    """Two full batches and one of one or two images, which is halved into itself."""
    module, data = maxl(meta_batch=meta_batch), squares(images, keys=())
    steps = Steps()
    trainer = L.Trainer(max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                        enable_model_summary=False, accelerator="cpu", callbacks=[steps])  # fmt: skip
    before = copy.deepcopy(module.state_dict())
    trainer.fit(module, DataLoader(data, 8), DataLoader(data, 8))
    assert list(steps.gradients) == [1, 2, 4, 5]
    assert trainer.global_step == 6
    assert all(value.isfinite().all() for value in module.state_dict().values())
    assert not torch.equal(before["generator.head.0.weight"], module.generator.head[0].weight)


def test_what_is_logged(fit_maxl) -> None:
    trained = {
        f"train/{name}" for name in ("loss", "acc", "loss_primary", "loss_auxiliary", "label_entropy", "confidence")
    }
    learned = {f"train/{name}" for name in ("meta_gradient_norm", "entropy_gradient_norm")}
    logged = {name for name in fit_maxl(maxl(balance="entropy")).callback_metrics if name.startswith("train")}
    assert logged == trained | learned | {"train/cosine"}
    logged = {name for name in fit_maxl(maxl()).callback_metrics if name.startswith("train")}
    assert logged == trained | {"train/meta_gradient_norm", "train/cosine"}
    values = fit_maxl(published()).callback_metrics
    assert {name for name in values if name.startswith("train")} == trained | learned
    assert 0 < values["train/label_entropy"] <= torch.tensor(6.0).log() + 1e-6
    assert 1 / 3 <= values["train/confidence"] < 1
    assert values["train/loss"] == pytest.approx((values["train/loss_primary"] + values["train/loss_auxiliary"]).item())


def test_normalisation_mends_the_balance_of_meta_gradient_and_entropy(fit_maxl) -> None:
    norms = {}
    for mode in ("normalised", "raw"):
        torch.manual_seed(0)
        module = maxl(entropy_weight=0.0, balance="entropy")
        module.learner.meta_gradient = mode
        logged = fit_maxl(module).callback_metrics
        norms[mode] = logged["train/meta_gradient_norm"]
        assert "train/entropy_gradient_norm" not in logged
    assert norms["raw"] < 0.05 * norms["normalised"]


# -------------------------------------------------------------------- priors in the primary loss


@pytest.mark.parametrize("meta_batch", ["next", "half"])
def test_the_terms_of_priors_are_part_of_the_primary_loss(fit_maxl, meta_batch: str) -> None:
    priors = [Restriction(exchange_background=True, found_regions=True), AuxiliaryTasks([4, 3]), GuidedAttention()]
    module = maxl(priors=priors, meta_batch=meta_batch)
    before = copy.deepcopy(module.state_dict())
    logged = fit_maxl(module).callback_metrics
    terms = {"primary", "auxiliary", "finder", "restriction", "aux0", "aux1", "branch", "attention"}
    assert {name for name in logged if name.startswith("train/loss_")} == {f"train/loss_{name}" for name in terms}
    parts = sum(logged[f"train/loss_{name}"] for name in terms - {"auxiliary"})
    if meta_batch == "half":
        assert logged["train/loss"] == pytest.approx((parts + logged["train/loss_auxiliary"]).item(), rel=1e-5)
    trained = {name for name, _ in module.named_parameters()}
    assert all(not torch.equal(before[name], module.state_dict()[name]) for name in trained)


def test_priors_change_what_the_generator_learns(fit_maxl) -> None:
    """From the same first step: the derivative is that of another loss."""
    learned = []
    for weight in (0.0, 5.0):
        torch.manual_seed(0)
        learned.append(Steps())
        fit_maxl(maxl(priors=[Restriction(weight=weight)]), callbacks=[learned[-1]], shuffle=False)
    plain, restricted = (next(iter(steps.gradients.values())) for steps in learned)
    assert not torch.allclose(plain["head.0.weight"], restricted["head.0.weight"], rtol=0.01)


def test_a_prior_of_weight_zero_changes_nothing_to_the_bit(fit_maxl) -> None:
    modules = []
    for priors in ([], [Restriction(weight=0.0), GuidedAttention(weight=0.0), AuxiliaryTasks(weight=0.0)]):
        torch.manual_seed(0)
        modules.append(maxl(priors=priors))
        fit_maxl(modules[-1], epochs=2)
    assert same_weights(*modules)


# -------------------------------------------------------------------- the Trainer's features

RESUMED = {
    "default": {},
    "own generator": {"generator": "tiny", "generator_every": 2},
    "accumulating": {"accumulate_batches": 2, "gradient_clip_norm": 0.1},
    "halved": {"meta_batch": "half", "generator_every": 1},
    "own schedule": {"scheduler": lambda o: torch.optim.lr_scheduler.StepLR(o, 1)},
    "restricted": {"priors": [Restriction(weight_warmup_epochs=2.0)]},
    "published": {"method": "unrolled"},
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
            module = (published if name == "published" else maxl)(**RESUMED[name])
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
    assert content["technique"] == "MAXL"
    assert len(content["optimizer_states"]) == 2


def test_inference_and_exports_have_only_the_classifier(fit_maxl, batch, tmp_path: Path) -> None:
    module, image = maxl(generator="tiny"), batch()["image"]
    trainer = fit_maxl(module)
    logits, cam = module.eval().explain(image)
    torch.testing.assert_close(cam.mean((2, 3)) + module.classifier.head.bias, logits)
    with torch.no_grad():
        for parameter in (*module.network.auxiliary.parameters(), *module.generator.parameters()):
            parameter.fill_(1e30)
    assert torch.equal(module(image), logits)
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    start = Pretrained(weights=str(tmp_path / "whole.ckpt"))
    start.on_fit_start()
    assert same_weights(start.classifier.backbone, module.classifier.backbone)
    network = Classifier(num_classes=2)
    network.load_state_dict(module.classifier.state_dict())


def test_initial_weights_are_for_the_network_alone(fit_maxl, tmp_path: Path) -> None:
    source = Pretrained()
    torch.save(source.classifier.state_dict(), tmp_path / "weights.pt")
    module = maxl(generator="tiny", weights=str(tmp_path / "weights.pt"))
    before = copy.deepcopy(module.generator.state_dict())
    module.on_fit_start()
    assert same_weights(module.classifier.backbone, source.classifier.backbone)
    assert all(torch.equal(value, before[name]) for name, value in module.generator.state_dict().items())


@pytest.mark.parametrize("options", [{}, {"meta_batch": "half"}])
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
        averaged["state_dict"]["network.classifier.head.weight"], plain["state_dict"]["network.classifier.head.weight"]
    )


@pytest.mark.parametrize(
    "module", [maxl(generator_every=3), maxl(generator="tiny"), maxl(meta_batch="half"), published()], ids=range(4)
)
def test_nothing_piles_up(fit_maxl, squares, module: L.LightningModule) -> None:
    counts: list[int] = []

    class Count(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            if batch_idx in (20, 59):  # as far from the last look ahead
                gc.collect()
                counts.append(sum(type(found) is Tensor for found in gc.get_objects()))

    trainer = L.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                        enable_model_summary=False, accelerator="cpu", callbacks=[Count()])  # fmt: skip
    data = squares(240, size=8, keys=())
    trainer.fit(module, DataLoader(data, 4), DataLoader(data, 60))
    assert counts[1] <= counts[0]


def test_what_waits_is_dropped_at_the_end(fit_maxl) -> None:
    module = maxl()
    fit_maxl(module)
    assert (module._labelled, module._pending) == ([], None)
    assert all(parameter.grad is None for parameter in module.parameters())


# -------------------------------------------------------------------- half precision


def in_half_precision(**options) -> dict[str, object]:
    scaler = torch.amp.GradScaler("cpu", init_scale=options.pop("scale", 2.0**10), growth_interval=1000)
    return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}


@pytest.mark.parametrize(
    "options",
    [{}, {"published": True}, {"generator": "tiny", "accumulate_batches": 2}, {"meta_batch": "half"}],
)
@pytest.mark.parametrize("precision", ["bf16", "16"])
def test_half_precision_gives_about_the_same_meta_gradient(fit_maxl, precision: str, options) -> None:
    seen = {}
    for half in (False, True):
        torch.manual_seed(0)
        steps = Steps()
        make = published if options.get("published") else maxl
        given = {name: value for name, value in options.items() if name != "published"}
        module = make(entropy_weight=0.0, optimizer=partial(torch.optim.SGD, lr=0.01), **given)
        module.learner.meta_gradient = "raw"
        chosen = {} if not half else {"precision": "bf16-mixed"} if precision == "bf16" else in_half_precision()
        trainer = fit_maxl(module, callbacks=[steps], shuffle=False, **chosen)
        seen[half] = steps.gradients[min(steps.gradients)], trainer, module
    exact, about = (torch.cat([g.flatten() for g in seen[half][0].values()]) for half in (False, True))
    assert about.dtype == torch.float32
    assert 0.8 < about.norm() / exact.norm() < 1.25
    assert torch.nn.functional.cosine_similarity(about, exact, 0) > 0.9
    before, after = (torch.cat([p.flatten() for p in seen[half][2].generator.parameters()]) for half in (False, True))
    torch.testing.assert_close(after, before, rtol=0.05, atol=0.01)


@pytest.mark.parametrize("make", [maxl, published])
def test_the_loss_scale_is_updated_once_a_batch(fit_maxl, make) -> None:
    options = in_half_precision(scale=2.0**8)
    trainer = fit_maxl(make(), epochs=2, **options)
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
        modules.append(maxl(gradient_clip_norm=0.1, generator_lr=0.0, optimizer=partial(torch.optim.SGD, lr=0.1)))
        fit_maxl(modules[-1], shuffle=False, **options)
    first, second = (torch.cat([p.flatten() for p in module.network.parameters()]) for module in modules)
    assert (first - second).norm() < 0.01


# -------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subclasses": [1, 2, 3]}, "subclasses gives 3 numbers, but there are 2 primary classes"),
        ({"subclasses": 0}, "subclasses: each primary class needs at least one sub-class"),
        ({"generator_every": 0}, "generator_every is at least 1, not 0"),
        ({"accumulate_batches": 0}, "accumulate_batches is at least 1, not 0"),
        ({"temperature": 0.0}, "temperature is above 0, not 0.0"),
        ({"generator": "resnt18"}, "unknown backbone 'resnt18'"),
    ],
)
def test_mistakes_in_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(PriorError, match=message):
        MAXL(**options)


@pytest.mark.parametrize("meta_batch", ["next", "half"])
def test_an_epoch_of_one_step_has_nothing_to_learn_from(fit_maxl, meta_batch: str) -> None:
    with pytest.raises(PriorError, match="an epoch of one step has no next batch for the generator"):
        fit_maxl(maxl(meta_batch=meta_batch), limit_train_batches=1)


@pytest.mark.parametrize("make", [maxl, published])
def test_optimisers_that_cannot_be_looked_through(fit_maxl, make) -> None:
    with pytest.raises(PriorError, match=r"MAXL: .*SGD, Adam and AdamW.* not for RMSprop"):
        fit_maxl(make(optimizer=torch.optim.RMSprop))


def test_halves_cost_half_of_the_passes_for_learning(fit_maxl) -> None:
    """One forward and backward pass of each image, half of the generator's and of the derivative's."""
    spent = []
    for options in (None, {}, {"meta_batch": "half"}):
        torch.manual_seed(0)
        module = Pretrained() if options is None else maxl(generator="tiny", **options)
        with FlopCounterMode(display=False) as counter:
            fit_maxl(module, limit_val_batches=0)
        spent.append(counter.get_flop_counts()["Global"])
    plain, whole, halved = (sum(v for k, v in s.items() if "convolution" in str(k)) for s in spent)
    assert 0.3 * (whole - plain) < halved - plain < 0.55 * (whole - plain)


# -------------------------------------------------------------------- several ranks


@pytest.mark.slow
def test_two_ranks_train_what_one_trains(tmp_path: Path) -> None:
    """With the same images in each step, under the strategy ``ddp`` as it is."""
    train(tmp_path, 1)
    script = Path(__file__).parents[1] / "train_maxl_on_ranks.py"
    run_on_ranks(2, script, str(tmp_path), "2")
    for name in OPTIONS:
        one, *two = (torch.load(tmp_path / f"{name}-{end}.pt", weights_only=True) for end in ("1-0", "2-0", "2-1"))
        tolerance = {"single": 1e-5, "published": 1e-7}.get(name, 1e-12)  # a difference magnifies rounding
        for state, logged in two:
            for key, value in state.items():
                torch.testing.assert_close(value, one[0][key], rtol=tolerance, atol=tolerance, msg=f"{name} {key}")
            assert logged.keys() == one[1].keys()
            for key, value in logged.items():
                torch.testing.assert_close(value, one[1][key], rtol=1e-4, atol=1e-6, msg=f"{name} {key}")
        assert all(torch.equal(value, two[1][0][key]) for key, value in two[0][0].items())
