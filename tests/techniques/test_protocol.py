"""What every technique keeps to: loaders of any kind, evaluation from the image alone, weights, tuning, metrics."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import Metric
from torchmetrics.classification import MulticlassRecall

from lightning_priors.batch import PriorBatch
from lightning_priors.callbacks import CAMPanel, LabelReport, PredictionWriter
from lightning_priors.errors import PriorError
from lightning_priors.nn import Backbone, Classifier
from lightning_priors.priors import AuxiliaryTasks, GuidedAttention, Restriction
from lightning_priors.techniques import (
    MAXL,
    Auxiliary,
    CAMRestriction,
    Combined,
    GlobalLocal,
    Pretrained,
    PriorAttention,
    PriorModule,
    PublishedMAXL,
    Tuning,
)


def priors() -> list:
    return [Restriction(found_regions=True, exchange_background=True), GuidedAttention(), AuxiliaryTasks()]


TECHNIQUES: dict[str, Callable[..., PriorModule]] = {
    "Pretrained": Pretrained,
    "CAMRestriction": partial(CAMRestriction, found_regions=True, exchange_background=True, hard_mask=True),
    "PriorAttention": PriorAttention,
    "GlobalLocal": partial(GlobalLocal, crop_size=16, exchange_background=True, found_parts=True),
    "Auxiliary": partial(Auxiliary, aux_num_classes=[4, 3], mode="multitask"),
    "MAXL": partial(MAXL, subclasses=3, generator_every=1),
    "PublishedMAXL": partial(PublishedMAXL, subclasses=3, method="first_order"),
    "Combined": lambda **options: Combined(priors(), aux_num_classes=[4, 3], **options),
    "GlobalLocal with priors": lambda **options: GlobalLocal(
        priors=priors(), aux_num_classes=[4, 3], crop_size=16, **options
    ),
    "MAXL with priors": lambda **options: MAXL(priors=priors(), aux_num_classes=[4, 3], generator_every=1, **options),
}
EVERY = pytest.mark.parametrize("name", list(TECHNIQUES))


def build(name: str, **options) -> PriorModule:
    torch.manual_seed(0)
    return TECHNIQUES[name](**options)


def trainer(**options) -> L.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return L.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **(quiet | options))


def loader(squares, images: int, *keys: str) -> DataLoader:
    return DataLoader([as_users_write_it(sample, keys) for sample in squares(images, keys=keys)], 8)


def as_users_write_it(sample: dict[str, Tensor], keys: tuple[str, ...]) -> dict[str, Tensor]:
    """No index, no validity, and the channel that a library's masks have."""
    kept = {key: sample[key] for key in ("image", "label", *keys)}
    return kept | ({"mask": sample["mask"].unsqueeze(0)} if "mask" in keys else {})


@EVERY
def test_own_loaders_train_test_and_predict(name: str, squares) -> None:
    """The last batch has one image."""
    module = build(name)
    before = copy.deepcopy(module.state_dict())
    data = loader(squares, 17, "mask", "part_boxes", "aux_labels")
    run = trainer()
    run.fit(module, data, data)
    assert run.global_step == 3
    trained = [key for key, value in module.named_parameters() if value.requires_grad]
    assert [key for key in trained if torch.equal(before[key], module.state_dict()[key])] == []
    assert "test/acc" in run.test(module, loader(squares, 9), verbose=False)[0]
    predictions = run.predict(module, DataLoader([{"image": torch.zeros(3, 32, 32)}] * 9, 8))
    assert [tuple(batch["probabilities"].shape) for batch in predictions] == [(8, 2), (1, 2)]
    assert [batch["index"].tolist() for batch in predictions] == [list(range(8)), [8]]


@EVERY
@pytest.mark.parametrize("key", ["mask", "part_boxes", "keypoints", "aux_labels", "group", "index"])
def test_evaluation_sees_the_image_alone(name: str, key: str, squares) -> None:
    """Whatever stands under a key changes no logit, and no metric that does not judge by that key."""
    module, keys = build(name).eval(), ("mask", "part_boxes", "keypoints", "aux_labels", "group")
    sample = next(iter(DataLoader(squares(8, keys=keys), 8)))
    other = torch.zeros_like(sample[key])
    judges = {"mask": ("epg", "cam_iou", "pointing_game"), "part_boxes": ("acc_oracle",), "group": ("worst_group",),
              "aux_labels": ("acc_aux",)}.get(key, ())  # fmt: skip
    logits, metrics = [], []
    for batch in (sample, {**sample, key: other}, {k: v for k, v in sample.items() if k != key}):
        seen: list[Tensor] = []

        class Keep(L.Callback):
            def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
                seen.append(outputs)  # noqa: B023 - read before the next round

        run = trainer(callbacks=[Keep()])
        (found,) = run.validate(module, DataLoader([batch], batch_size=None), verbose=False)
        logits.append(seen[0])
        metrics.append({k: v for k, v in found.items() if not k.removeprefix("val/").startswith(judges or ("-",))})
    assert all(torch.equal(logits[0], each) for each in logits[1:])
    for each in metrics[1:]:
        assert {k: each[k] for k in metrics[0] if k in each} == {k: metrics[0][k] for k in metrics[0] if k in each}
        assert {"val/loss", "val/acc", "val/f1_macro", "val/ece"} <= each.keys()


@EVERY
def test_a_wrong_batch_is_refused_at_the_first_step(name: str, squares) -> None:
    right = squares(8, keys=("mask", "part_boxes", "aux_labels"))
    wrong = DataLoader([sample | {"label": sample["label"].float()} for sample in right], 4)
    with pytest.raises(PriorError, match=r"batch\['label'\] is float32, but int64 is wanted"):
        trainer().fit(build(name), wrong, DataLoader(right, 4))
    with pytest.raises(PriorError, match=r"batch\['label'\] is float32, but int64 is wanted"):
        trainer().validate(build(name), wrong)


# -------------------------------------------------------------------- weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Of another task."""
    torch.manual_seed(7)
    torch.save(Classifier(num_classes=5).state_dict(), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def backbones_of(module: PriorModule) -> list[Backbone]:
    return module.tuned_backbones()


@EVERY
def test_weights_are_there_before_the_first_forward_pass_outside_of_a_trainer(name: str, weights: Path) -> None:
    expected = Classifier(5, "tiny", str(weights)).backbone.eval()
    module, image = build(name, weights=str(weights)).eval(), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        module(image)
        for backbone in backbones_of(module):
            torch.testing.assert_close(backbone(image), expected(image), rtol=0, atol=0)


@EVERY
def test_the_state_of_a_new_module_has_the_weights_that_were_asked_for(name: str, weights: Path) -> None:
    expected = Classifier(5, "tiny", str(weights)).backbone.model.state_dict()
    module = build(name, weights=str(weights))
    module.state_dict()
    for backbone in backbones_of(module):
        found = dict(backbone.model.named_parameters())
        assert all(torch.equal(value, expected[key]) for key, value in found.items())


@EVERY
def test_what_a_user_has_loaded_is_never_overwritten(name: str, weights: Path, squares) -> None:
    """Neither by the Trainer nor by the first forward pass, nor is the file asked for."""
    mine = build(name).state_dict()
    module = build(name, weights=str(weights))
    module.load_state_dict(mine)
    weights.unlink()
    trainer().test(module, loader(squares, 8), verbose=False)
    module.eval()(torch.rand(2, 3, 32, 32))
    assert all(torch.equal(value, mine[key]) for key, value in module.state_dict().items())


@EVERY
def test_a_checkpoint_needs_no_weights_file(name: str, weights: Path, squares, tmp_path: Path) -> None:
    module, image = build(name, weights=str(weights)), torch.rand(2, 3, 32, 32)
    data = loader(squares, 16, "mask", "part_boxes", "aux_labels")
    run = trainer()
    run.fit(module, data, data)
    run.save_checkpoint(tmp_path / "model.ckpt")
    weights.unlink()
    loaded = type(module).load_from_checkpoint(tmp_path / "model.ckpt").eval()
    assert torch.equal(loaded(image), module.eval()(image))
    assert loaded.hparams == module.hparams
    again = build(name, weights=str(weights))
    (metrics,) = trainer().test(again, data, ckpt_path=tmp_path / "model.ckpt", verbose=False, weights_only=True)
    assert metrics == run.test(module, data, verbose=False)[0]


def test_some_entries_of_a_state_come_on_top_of_the_initial_weights(weights: Path) -> None:
    module, head = Pretrained(weights=str(weights)), torch.full((2, 128), 3.0)
    module.load_state_dict({"classifier.head.weight": head}, strict=False)
    expected = Classifier(5, "tiny", str(weights)).backbone.model.state_dict()
    assert torch.equal(module.state_dict()["classifier.head.weight"], head)
    assert all(
        torch.equal(value, expected[key]) for key, value in module.classifier.backbone.model.state_dict().items()
    )


def test_weights_that_are_no_file_are_said_at_the_first_use(tmp_path: Path) -> None:
    module = Pretrained(weights=str(tmp_path / "wights.pt"))
    with pytest.raises(PriorError, match="is no file"):
        module(torch.zeros(1, 3, 32, 32))


# -------------------------------------------------------------------- tuning

TUNED = [name for name in TECHNIQUES if name != "Pretrained"]


@pytest.mark.parametrize("name", TUNED)
def test_a_probe_leaves_the_backbones_as_they_are(name: str, squares) -> None:
    module = build(name, tuning=Tuning(mode="probe"))
    before = copy.deepcopy(module.state_dict())
    data = loader(squares, 16, "mask", "part_boxes", "aux_labels")
    trainer(limit_val_batches=0).fit(module, data, data)
    backbones = {id(p) for backbone in backbones_of(module) for p in backbone.parameters()}
    changed = {key for key, value in module.state_dict().items() if not torch.equal(before[key], value)}
    assert not any(id(p) in backbones for key, p in module.named_parameters() if key in changed)
    assert not any("running" in key for key in changed if "backbone" in key and not key.startswith("generator"))
    assert changed


@pytest.mark.parametrize("name", TUNED)
def test_layers_and_new_parts_learn_at_rates_of_their_own(name: str) -> None:
    module = build(name, tuning=Tuning(layer_decay=0.5, new_parts_factor=3.0))
    factors = {id(p): factor for factor, group in module.parameter_groups() for p in group}
    local = [module.local_branch.backbone] if isinstance(module, GlobalLocal) else []
    for backbone in backbones_of(module):
        for height, layer in enumerate(reversed(backbone.layers()), start=1):
            assert {factors[id(p)] for p in layer} == {0.5**height}
    heads = [module.global_branch.head] if local else [module.classifier.head]
    assert {factors[id(p)] for head in heads for p in head.parameters()} == {3.0}
    assert factors.keys() == {id(p) for p in module.trained_network().parameters()}


def test_the_finder_of_regions_is_ten_times_as_fast_as_other_new_parts() -> None:
    module = CAMRestriction(found_regions=True, tuning=Tuning(new_parts_factor=3.0))
    factors = {id(p): factor for factor, group in module.parameter_groups() for p in group}
    assert {factors[id(p)] for p in module.priors[0].finder.parameters()} == {30.0}


@pytest.mark.parametrize("name", ["Combined", "MAXL with priors", "GlobalLocal"])
def test_gradual_unfreezing_frees_from_the_head_downwards(name: str, squares) -> None:
    module, free = build(name, tuning=Tuning(mode="gradual")), []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            layers = pl_module.tuned_backbones()[0].layers()
            free.append([all(p.requires_grad for p in layer) for layer in layers])

    run = trainer(callbacks=[Watch()], limit_val_batches=0, num_sanity_val_steps=0)
    run.fit_loop.max_epochs = 3
    data = loader(squares, 16, "mask", "part_boxes", "aux_labels")
    run.fit(module, data, data)
    assert free[::2] == [[False] * 4, [False] * 3 + [True], [False] * 2 + [True] * 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "prob"}, "there is no tuning 'prob'; did you mean 'probe'?"),
        ({"layer_decay": 0.0}, "layer_decay is above 0, not 0.0"),
        ({"probe_epochs": 0}, "probe_epochs is at least 1, not 0"),
        ({"new_parts_factor": -1.0}, "new_parts_factor is above 0, not -1.0"),
        ({"layer_deca": 0.5}, "tuning has no option 'layer_deca'; did you mean 'layer_decay'?"),
    ],
)
def test_mistakes_in_the_tuning(options: dict[str, object], message: str) -> None:
    with pytest.raises(PriorError) as error:
        Combined(tuning=options)
    assert str(error.value) == message


# -------------------------------------------------------------------- metrics, optimisers, checkpoints


class Certain(Metric):
    """The share of images with a probability above a limit; it takes what it needs of an evaluation."""

    def __init__(self, limit: float = 0.5) -> None:
        super().__init__()
        self.limit = limit
        self.add_state("certain", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, preds: Tensor) -> None:
        self.certain += (preds.softmax(1).amax(1) > self.limit).sum()
        self.images += len(preds)

    def compute(self) -> Tensor:
        return self.certain / self.images


@EVERY
def test_extra_metrics_are_logged_beside_the_shared_ones(name: str, squares, tmp_path: Path) -> None:
    recall = MulticlassRecall(2, average="macro")
    module = build(name, extra_metrics={"certain": Certain(0.5), "balanced": recall})
    data = loader(squares, 16, "mask", "part_boxes", "aux_labels")
    run = trainer()
    run.fit(module, data, data)
    logged = {key: value.item() for key, value in run.callback_metrics.items()}
    assert logged["val/certain"] == 1
    with torch.no_grad():
        logits = torch.cat([module.eval()(batch["image"]) for batch in data])
    labels = torch.cat([batch["label"] for batch in data])
    assert logged["val/balanced"] == pytest.approx(MulticlassRecall(2, average="macro")(logits, labels).item())
    (tested,) = run.test(module, loader(squares, 8), verbose=False)
    assert {"test/certain", "test/balanced"} <= tested.keys()
    run.save_checkpoint(tmp_path / "a.ckpt")
    assert type(module).load_from_checkpoint(tmp_path / "a.ckpt", extra_metrics={"certain": Certain()})


def test_a_metric_of_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(PriorError, match="extra_metrics: there is a metric 'acc' already"):
        Pretrained(extra_metrics={"acc": Certain()})


def test_a_metric_for_another_number_of_classes_is_refused() -> None:
    with pytest.raises(PriorError, match="extra_metrics: recall has num_classes 2, but there are 5 classes"):
        Pretrained(num_classes=5, extra_metrics={"recall": MulticlassRecall(2)})


@EVERY
def test_options_are_keyword_only(name: str) -> None:
    with pytest.raises(TypeError):
        TECHNIQUES[name](2, 3)


@pytest.mark.parametrize("key", ["optimizer", "scheduler"])
def test_a_checkpoint_names_nothing_to_run(key: str, squares, tmp_path: Path) -> None:
    """A class path among its options is an option that is not there, and Lightning's instantiator is not asked."""
    module, data, marker = Pretrained(), loader(squares, 8), tmp_path / "ran"
    run = trainer(limit_val_batches=0)
    run.fit(module, data, data)
    run.save_checkpoint(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    content["hyper_parameters"] |= {
        key: {"class_path": "os.system", "init_args": {"command": f"touch {marker}"}},
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
        "_class_path": "lightning_priors.techniques.Pretrained",
    }
    torch.save(content, tmp_path / "b.ckpt")
    loaded = Pretrained.load_from_checkpoint(tmp_path / "b.ckpt").eval()
    image = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded(image), module.eval()(image))
    with pytest.raises(PriorError, match=f"{key} is a function that makes one, such as a class, not a dict"):
        Pretrained(**{key: content["hyper_parameters"][key]})
    assert not marker.exists()


def test_a_checkpoint_cannot_name_a_class_as_a_prior(squares, tmp_path: Path) -> None:
    module, data = Combined([Restriction()]), loader(squares, 8, "mask")
    run = trainer(limit_val_batches=0)
    run.fit(module, data, data)
    run.save_checkpoint(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    marker = tmp_path / "ran"
    content["hyper_parameters"]["priors"] = [
        {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", str(marker)]}}
    ]
    torch.save(content, tmp_path / "b.ckpt")
    with pytest.raises(PriorError, match=r"subprocess.Popen is no prior in an imported module"):
        Combined.load_from_checkpoint(tmp_path / "b.ckpt")
    assert not marker.exists()


def test_the_progress_bar_shows_the_loss_and_the_last_accuracy(squares) -> None:
    data = loader(squares, 16, "mask")
    run = trainer()
    run.fit(CAMRestriction(), data, data)
    assert {"loss", "val/acc"} <= run.progress_bar_metrics.keys()


def test_a_user_takes_a_prior_into_a_training_loop_in_five_lines(batch) -> None:
    """As the docstring of `training_step` has it."""
    from lightning_priors.priors import attach_priors, training_step

    torch.manual_seed(0)
    classifier, sample = Classifier(num_classes=2), batch()
    prior = Restriction(weight=3.0)
    attach_priors([prior], classifier)
    optimizer = torch.optim.SGD([*classifier.parameters(), *prior.parameters()], lr=0.1)
    losses = []
    for _ in range(20):
        step = training_step(classifier, [prior], sample)
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
        losses.append(step.terms["restriction"].item())
    assert losses[-1] < losses[0] / 2


def test_batches_are_completed_for_the_callbacks(squares) -> None:
    seen: list[PriorBatch] = []

    class Keep(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            seen.append(batch)

    data = loader(squares, 8, "mask")
    trainer(callbacks=[Keep()], limit_val_batches=0).fit(CAMRestriction(), data, data)
    assert seen[0]["mask"].shape == (8, 32, 32)
    assert seen[0]["mask_valid"].all()


def test_images_without_a_number_are_reported_on_in_the_order_of_the_loader(squares, tmp_path: Path) -> None:
    """By every callback that names images."""
    callbacks = [LabelReport(images=2), CAMPanel(images=3), PredictionWriter()]
    run = L.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=callbacks, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, logger=CSVLogger(tmp_path, "", 0),
    )  # fmt: skip
    module, data = build("MAXL"), loader(squares, 12, "mask")
    run.fit(module, data, data)
    run.predict(module, data)
    folder = tmp_path / "version_0"
    rows = (folder / "predictions.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["index", *map(str, range(12))]
    assert (folder / "panels" / "epoch_000.png").is_file()
    assert (folder / "generated_labels.csv").is_file()
