"""Auxiliary tasks: losses, what is logged, what is left at inference, options and mistakes."""

import copy
import itertools
from functools import partial
from pathlib import Path
from typing import get_args

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from processes import run_on_ranks
from train_on_ranks import train

from lightning_priors.errors import PriorError
from lightning_priors.nn import Backbone, Classifier
from lightning_priors.priors import AuxiliaryTasks
from lightning_priors.priors.auxiliary_tasks.prior import last_layers
from lightning_priors.priors.auxiliary_tasks.task_losses import task_gradients, task_losses
from lightning_priors.priors.auxiliary_tasks.weighting import Weighting
from lightning_priors.techniques import Auxiliary, GlobalLocal, Pretrained

KEYS = ("aux_labels",)
OFFLINE = [name for name in get_args(Weighting) if name != "torchjd"]
GRADIENTS = ["gradient_similarity", "gradient_similarity_unweighted", "lookahead"]

auxiliary = partial(Auxiliary, aux_num_classes=[4, 3])


def tasks(module: Auxiliary) -> AuxiliaryTasks:
    """The prior of a module."""
    (prior,) = module.priors
    return prior


def losses_of(module: Auxiliary, batch) -> torch.Tensor:
    """The losses (T,) of all tasks, without weights."""
    features = module.classifier.backbone(batch["image"])
    primary = F.cross_entropy(module.classifier.head(features)[0], batch["label"])
    others, _ = task_losses(tasks(module).heads(features), batch["aux_labels"])
    return torch.cat([primary[None], others])


@pytest.fixture
def fit_tasks(fit):
    return partial(fit, keys=KEYS)


def same_weights(left: L.LightningModule, right: L.LightningModule, part: str = "") -> bool:
    other = right.state_dict()
    return all(torch.equal(value, other[name]) for name, value in left.state_dict().items() if name.startswith(part))


@pytest.mark.parametrize("weighting", OFFLINE)
@pytest.mark.parametrize("mode", ["auxiliary", "multitask"])
def test_weight_zero_is_plain_training_to_the_bit(fit_tasks, mode: str, weighting: str) -> None:
    """The optimiser, its weight decay and the draws of the whole run are the same too."""
    torch.manual_seed(0)
    plain = Pretrained()
    torch.manual_seed(0)
    module = auxiliary(aux_weight=0.0, mode=mode, weighting=weighting)
    fit_tasks(plain)
    fit_tasks(module)
    assert same_weights(plain, module)


def test_with_a_weight_training_is_another_one(fit_tasks) -> None:
    modules = []
    for weight in (0.0, 0.1):
        torch.manual_seed(0)
        modules.append(auxiliary(aux_weight=weight))
        fit_tasks(modules[-1])
    assert not same_weights(*modules, part="classifier.backbone")


def test_a_run_with_auxiliary_tasks_starts_like_one_without() -> None:
    torch.manual_seed(0)
    plain, after = Pretrained(), torch.rand(3)
    torch.manual_seed(0)
    module = auxiliary(mode="multitask")
    assert torch.equal(torch.rand(3), after)
    assert same_weights(plain, module)


def test_the_fixed_loss_by_hand(batch) -> None:
    module, sample = auxiliary(aux_weight=[0.5, 2.0]), batch(keys=KEYS)
    sample["aux_labels"][0, 1] = -1
    step = module.step(sample)
    features = module.classifier.backbone(sample["image"])
    logits = tasks(module).heads(features)
    primary = F.cross_entropy(module.classifier.head(features)[0], sample["label"])
    first = 0.5 * F.cross_entropy(logits[:, 0], sample["aux_labels"][:, 0])
    second = 2.0 * F.cross_entropy(logits[1:, 1, :3], sample["aux_labels"][1:, 1])
    torch.testing.assert_close(step.loss, primary + first + second)
    torch.testing.assert_close(step.terms, {"primary": primary, "aux0": first, "aux1": second})
    torch.testing.assert_close(step.logits, module(sample["image"]))


@pytest.mark.parametrize("weighting", OFFLINE)
def test_the_terms_add_up_to_the_loss(batch, weighting: str) -> None:
    step = auxiliary(weighting=weighting, mode="multitask").step(batch(keys=KEYS))
    torch.testing.assert_close(torch.stack(list(step.terms.values())).sum(), step.loss)


def test_uncertainty_weighs_the_primary_task_in_multitask_only(batch) -> None:
    for mode, count in (("auxiliary", 2), ("multitask", 3)):
        module = auxiliary(weighting="uncertainty", mode=mode)
        assert len(tasks(module).weigher.log_variances) == count
        torch.nn.init.constant_(tasks(module).weigher.log_variances, 1.0)
        logged = module.step(batch(keys=KEYS)).logged
        expected = 1 if mode == "auxiliary" else torch.tensor(-1.0).exp().item()
        assert logged["weight_primary"].item() == pytest.approx(expected)
        assert logged["weight_aux1"].item() == pytest.approx(torch.tensor(-1.0).exp().item())


def test_uncertainties_are_trained_without_weight_decay(fit_tasks) -> None:
    module = auxiliary(weighting="uncertainty", weight_decay=0.5)
    trainer = fit_tasks(module, epochs=2)
    assert tasks(module).weigher.log_variances.abs().min() > 0
    (group,) = [
        group
        for group in trainer.optimizers[0].param_groups
        if any(p is tasks(module).weigher.log_variances for p in group["params"])
    ]
    assert group["weight_decay"] == 0


VALIDATION = {
    f"val/{name}"
    for name in (
        "loss",
        "acc",
        "acc_macro",
        "worst_class_acc",
        "worst_group_acc",
        "f1_macro",
        "ece",
        "auroc",
        "average_precision",
    )
}


@pytest.mark.parametrize("mode", ["auxiliary", "multitask"])
@pytest.mark.parametrize("weighting", ["fixed", "dwa", "gradient_similarity"])
def test_what_is_logged(fit_tasks, mode: str, weighting: str) -> None:
    logged = set(fit_tasks(auxiliary(aux_names=["kind", "colour"], mode=mode, weighting=weighting)).callback_metrics)
    names = {"kind", "colour"}
    expected = {"train/loss", "train/acc"} | {f"train/loss_{name}" for name in {"primary", *names}}
    expected |= {"loss", *VALIDATION}
    expected |= {f"train/acc_{name}" for name in names}
    if mode == "multitask":
        expected |= {f"val/acc_{name}" for name in names}
    if weighting != "fixed":
        expected |= {f"train/weight_{name}" for name in {"primary", *names}}
    if weighting == "gradient_similarity":
        expected |= {f"train/cosine_{name}" for name in names}
    assert logged == expected


def test_cosines_are_logged_where_asked_for(fit_tasks, batch) -> None:
    trainer = fit_tasks(auxiliary(log_cosine=True))
    assert {"train/cosine_aux0", "train/cosine_aux1"} <= set(trainer.callback_metrics)
    module, sample = auxiliary(log_cosine=True, gradient_layers=2), batch(keys=KEYS)
    logged, losses = module.step(sample).logged, losses_of(module, sample)
    shared = [parameter for layer in module.classifier.backbone.layers()[-2:] for parameter in layer]
    rows = [torch.cat([g.flatten() for g in torch.autograd.grad(x, shared, retain_graph=True)]) for x in losses]
    for task in range(2):
        expected = F.cosine_similarity(rows[0], rows[1 + task], 0)
        torch.testing.assert_close(logged[f"cosine_aux{task}"], expected)


def test_accuracies_are_those_of_all_labelled_images(squares, fit_tasks, batch) -> None:
    module = auxiliary(mode="multitask")
    trainer = fit_tasks(module)
    sample = batch(8, keys=KEYS)
    sample["aux_labels"][::3, 0] = -1
    loader = torch.utils.data.DataLoader([{k: v[part] for k, v in sample.items()} for part in torch.arange(8).split(3)],
                                         batch_size=None)  # fmt: skip
    (metrics,) = trainer.validate(module, loader, verbose=False)
    with torch.no_grad():
        right = (
            tasks(module.eval()).heads(module.classifier.backbone(sample["image"])).argmax(2) == sample["aux_labels"]
        )
    labelled = sample["aux_labels"][:, 0] >= 0
    assert metrics["val/acc_aux0"] == pytest.approx(right[labelled, 0].float().mean().item())
    assert metrics["val/acc_aux1"] == pytest.approx(right[:, 1].float().mean().item())
    assert {"test/acc_aux0", "test/acc_aux1"} <= set(trainer.test(module, loader, verbose=False)[0])


def test_tasks_without_any_label_have_no_accuracy(batch) -> None:
    sample = batch(4, keys=KEYS)
    sample["aux_labels"][:, 1] = -1
    trainer = L.Trainer(logger=False, enable_progress_bar=False, enable_model_summary=False)
    loader = torch.utils.data.DataLoader([sample], batch_size=None)
    (metrics,) = trainer.validate(auxiliary(mode="multitask").eval(), loader, verbose=False)
    assert "val/acc_aux0" in metrics
    assert "val/acc_aux1" not in metrics


@pytest.mark.parametrize("mode", ["auxiliary", "multitask"])
def test_evaluation_needs_no_auxiliary_labels(fit_tasks, squares, mode: str) -> None:
    module = auxiliary(mode=mode)
    trainer = fit_tasks(module)
    loader = torch.utils.data.DataLoader(squares(8, keys=()), batch_size=4)
    (metrics,) = trainer.validate(module, loader, verbose=False)
    assert set(metrics) == VALIDATION


@pytest.mark.parametrize("mode", ["auxiliary", "multitask"])
def test_inference_and_exports_have_no_auxiliary_heads(fit_tasks, batch, tmp_path: Path, mode: str) -> None:
    module, image = auxiliary(mode=mode), batch()["image"]
    trainer = fit_tasks(module)
    logits, cam = module.eval().explain(image)
    assert logits.shape == (6, 2)
    torch.testing.assert_close(cam.mean((2, 3)) + module.classifier.head.bias, logits)
    with torch.no_grad():
        tasks(module).heads.weight.fill_(1e30)
    assert torch.equal(module(image), logits), "the other heads have no part in it"

    torch.save(module.classifier.state_dict(), tmp_path / "export.pt")
    exported = torch.load(tmp_path / "export.pt", weights_only=True)
    assert not any("heads" in name for name in exported)
    network = Classifier(num_classes=2).eval()
    network.load_state_dict(exported)
    assert torch.equal(network(image)[0], logits)
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    for path in ("export.pt", "whole.ckpt"):
        start = Pretrained(weights=str(tmp_path / path))
        start.on_fit_start()
        backbone = module.classifier.backbone.state_dict()
        assert all(torch.equal(v, backbone[k]) for k, v in start.classifier.backbone.state_dict().items())
    branches = GlobalLocal(global_checkpoint=str(tmp_path / "whole.ckpt"))
    assert torch.equal(branches.global_branch.eval()(image)[0], logits)


def test_pretraining_on_auxiliary_labels_serves_as_weights(fit_tasks, fit, squares, tmp_path: Path) -> None:
    """The baseline of auxiliary learning: first the finer task by itself, then the primary one."""
    first = Pretrained(num_classes=4)
    trainer = L.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                        enable_model_summary=False, accelerator="cpu")  # fmt: skip
    finer = [sample | {"label": sample["aux_labels"][0]} for sample in squares(24, keys=KEYS)]
    trainer.fit(
        first, torch.utils.data.DataLoader(finer, batch_size=8), torch.utils.data.DataLoader(finer, batch_size=8)
    )
    trainer.save_checkpoint(tmp_path / "finer.ckpt")
    second = Pretrained(num_classes=2, weights=str(tmp_path / "finer.ckpt"))
    second.on_fit_start()
    assert same_weights(second.classifier.backbone, first.classifier.backbone)
    fit(second)


@pytest.mark.parametrize("mode", ["auxiliary", "multitask"])
def test_a_checkpoint_reloads_with_its_heads_and_weights(fit_tasks, tmp_path: Path, mode: str) -> None:
    module = auxiliary(aux_names=("kind", "colour"), tasks=["colour"], weighting="lookahead", mode=mode)
    trainer = fit_tasks(module, epochs=2)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    other = Auxiliary.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert same_weights(module, other)
    assert tasks(other).names == ["colour"]
    assert tasks(module).weigher.weights != 1


@pytest.mark.parametrize("weighting", ["dwa", "lookahead", "uncertainty", "gradient_similarity"])
def test_training_continues_exactly_after_an_interruption(fit_tasks, tmp_path: Path, weighting: str) -> None:
    def train(epochs_at_once: list[int]) -> dict[str, torch.Tensor]:
        path = None
        for epochs in epochs_at_once:
            L.seed_everything(0, verbose=False)
            module = auxiliary(
                weighting=weighting,
                lookahead_rate=0.5,
                temperature=0.1,
                optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3),
                scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 1),
            )
            trainer = fit_tasks(module, epochs=epochs, ckpt_path=path, shuffle=False)
            path = str(tmp_path / f"{len(epochs_at_once)}-{epochs}.ckpt")
            trainer.save_checkpoint(path)
        return copy.deepcopy(module.state_dict())

    whole, resumed = train([4]), train([1, 3, 4])
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("epochs", [2, 3])
def test_dynamic_weights_act_from_the_third_epoch_on(fit_tasks, epochs: int) -> None:
    trainer = fit_tasks(auxiliary(weighting="dwa", temperature=0.1, mode="multitask"), epochs=epochs)
    weights = [trainer.callback_metrics[f"train/weight_{name}"].item() for name in ("primary", "aux0", "aux1")]
    assert sum(weights) == pytest.approx(3, rel=1e-5)
    assert (max(weights) > 1.001) == (epochs == 3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [True, True, False, True, True]),
        ({"gradient_clip_val": 0.01}, [True, True, False, True, True]),
        ({"accumulate_grad_batches": 2}, [False, True, False, False, True]),
    ],
)
def test_weights_that_look_ahead_learn_from_each_step_but_an_epochs_last(fit_tasks, options, expected) -> None:
    """From the batch after it; an epoch has three batches."""
    module = auxiliary(weighting="lookahead", optimizer=lambda p: torch.optim.SGD(p, lr=0.01))
    seen: list[torch.Tensor] = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            seen.append(tasks(pl_module).weigher.weights.clone())

    fit_tasks(module, epochs=2, callbacks=[Watch()], **options)
    assert [not torch.equal(before, after) for before, after in itertools.pairwise(seen)] == expected


def test_looking_ahead_sees_the_gradients_after_clipping(fit_tasks) -> None:
    module = auxiliary(weighting="lookahead", optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3))
    norms = []

    def note(parameters, optimizer) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.nn.utils.get_total_norm(gradients).item())

    tasks(module).weigher.look_at_step = note
    fit_tasks(module, gradient_clip_val=0.01)
    assert norms == pytest.approx([0.01] * 3, rel=1e-3)


def test_looking_ahead_says_which_optimisers_it_knows(fit_tasks) -> None:
    module = auxiliary(weighting="lookahead", optimizer=torch.optim.RMSprop)
    with pytest.raises(PriorError, match=r"weighting lookahead: .*SGD, Adam and AdamW.* not for RMSprop"):
        fit_tasks(module)


def test_options_of_the_weightings_arrive(monkeypatch) -> None:
    assert tasks(auxiliary(weighting="dwa", temperature=0.3)).weigher.temperature == 0.3
    assert tasks(auxiliary(weighting="lookahead", lookahead_rate=0.3)).weigher.rate == 0.3
    with pytest.raises(PriorError, match="torchjd"):
        auxiliary(weighting="torchjd", aggregator="no such thing")


@pytest.mark.parametrize("aggregator", ["PCGrad", "UPGrad"])
def test_torchjd_trains_and_combines_the_gradients_of_the_backbone(fit_tasks, batch, aggregator: str) -> None:
    pytest.importorskip("torchjd", reason="needs the extra torchjd")
    module, sample = auxiliary(weighting="torchjd", aggregator=aggregator, gradient_layers=9).double(), batch(keys=KEYS)
    sample["image"] = sample["image"].double()
    step = module.step(sample)
    weights = torch.stack([step.logged[f"weight_{name}"] for name in ("primary", "aux0", "aux1")])
    shared = last_layers(module.classifier.backbone, layers=9)
    expected = weights @ task_gradients(losses_of(module, sample), shared)
    found = torch.autograd.grad(step.loss, shared)
    torch.testing.assert_close(torch.cat([g.flatten() for g in found]), expected)
    trainer = fit_tasks(auxiliary(weighting="torchjd", aggregator=aggregator))
    assert "train/weight_primary" in trainer.callback_metrics


@pytest.mark.parametrize("weighting", GRADIENTS)
def test_frozen_layers_cannot_be_compared(batch, weighting: str) -> None:
    module = auxiliary(weighting=weighting)
    module.classifier.backbone.requires_grad_(False)
    with pytest.raises(PriorError, match="the backbone's last 1 layers are frozen"):
        module.step(batch(keys=KEYS))


def test_gradients_are_compared_on_the_last_layers() -> None:
    backbone = Backbone("tiny")
    layers = backbone.layers()
    assert [id(p) for p in last_layers(backbone, 2)] == [id(p) for layer in layers[-2:] for p in layer]
    assert len(last_layers(backbone, 100)) == len(list(backbone.parameters()))


def test_of_a_large_network_the_last_convolution_is_enough() -> None:
    """Its last stage has three quarters of all weights, and a backward pass through it for each task costs as much."""
    backbone = Backbone("resnet18")
    block = backbone.model.layer4[1]
    assert [id(p) for p in last_layers(backbone, 1)] == [
        id(block.conv2.weight),
        id(block.bn2.weight),
        id(block.bn2.bias),
    ]


@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16])
def test_half_precision_gives_about_the_same_cosines(batch, autocast: torch.dtype) -> None:
    module, sample, cosines = auxiliary(log_cosine=True, gradient_layers=4), batch(keys=KEYS), []
    for enabled in (False, True):
        with torch.autocast("cpu", autocast, enabled=enabled):
            logged = module.step(sample).logged
        cosines.append([logged[f"cosine_aux{task}"].item() for task in range(2)])
    assert cosines[1] == pytest.approx(cosines[0], abs=0.03)


def test_chosen_tasks_are_learned_and_the_others_left_alone(batch) -> None:
    sample = batch(keys=KEYS)
    module = auxiliary(aux_names=["kind", "colour"], tasks=["colour"])
    assert tasks(module).heads.num_classes == [3]
    step = module.step(sample)
    assert list(step.terms) == ["primary", "colour"]
    sample["aux_labels"][:, 0] = 999
    torch.testing.assert_close(module.step(sample).loss, step.loss)


def test_names_are_numbers_unless_given() -> None:
    assert tasks(auxiliary()).names == ["aux0", "aux1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_class": 2}, "target_class 2 is none of the 2 classes"),
        ({"gradient_layers": 0}, "gradient_layers is at least 1, not 0"),
        ({"aux_weight": [1.0]}, "aux_weight has 1 numbers for 2 auxiliary tasks"),
        ({"aux_weight": -1.0}, "aux_weight may not be negative"),
        ({"aux_names": ["a"]}, "aux_names gives 1 names, but the data has 2 auxiliary tasks"),
        ({"aux_names": ["a", "a"]}, "aux_names must differ"),
        ({"aux_names": ["a", "primary"]}, "aux_names must differ from each other and from 'primary'"),
        ({"aux_names": ["kind", "colour"], "tasks": ["kinds"]}, "no auxiliary task 'kinds'; did you mean 'kind'?"),
    ],
)
def test_mistakes_in_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(PriorError, match=message.replace("?", r"\?")):
        auxiliary(**options)


@pytest.mark.parametrize("options", [{"aux_num_classes": [4]}, {"aux_num_classes": []}, {"tasks": []}])
def test_mistakes_about_the_number_of_tasks(batch, options: dict[str, object]) -> None:
    with pytest.raises(PriorError, match="the data has 2 auxiliary tasks, aux_num_classes"):
        auxiliary(**options).step(batch(keys=KEYS))


def test_data_without_auxiliary_labels(fit) -> None:
    with pytest.raises(PriorError, match=r"Auxiliary needs batch\['aux_labels'\]"):
        fit(auxiliary())


@pytest.mark.slow
# batch normalisation keeps to its running statistics here, since each rank would have its own
@pytest.mark.filterwarnings(r"ignore:Found 4 module\(s\) in eval mode:UserWarning")
def test_two_ranks_train_what_one_trains(tmp_path: Path) -> None:
    """With the same pictures in each step: all weights, those of the tasks too, agree to the last few digits."""
    weightings = ["zero", *OFFLINE]
    train(tmp_path, 1, weightings)
    script = Path(__file__).parent / "train_on_ranks.py"
    run_on_ranks(2, script, str(tmp_path), "2", *weightings)
    for weighting in weightings:
        one, *two = (
            torch.load(tmp_path / f"{weighting}-{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1")
        )
        for state, logged in two:
            assert state.keys() == one[0].keys()
            for name, value in state.items():
                torch.testing.assert_close(value, one[0][name], rtol=1e-9, atol=1e-11, equal_nan=True, msg=weighting)
            assert logged.keys() == one[1].keys()
            for name, value in logged.items():
                torch.testing.assert_close(value, one[1][name], rtol=1e-5, atol=1e-6, msg=f"{weighting} {name}")
        assert all(torch.equal(value, two[1][0][name]) for name, value in two[0][0].items() if "history" not in name)
