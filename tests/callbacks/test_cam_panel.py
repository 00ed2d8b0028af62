"""The panel shows what the evaluated network saw, and leaves the training as it is without it."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.strategies import FSDPStrategy
from PIL import Image
from torch.optim.swa_utils import get_ema_avg_fn

import lightning_priors.callbacks.cam_panel as cam_panel
from lightning_priors.callbacks import CAMPanel, ConfusionMatrix, collect_evidence
from lightning_priors.callbacks.cam_panel import place
from lightning_priors.errors import PriorError


@pytest.fixture
def drawn(monkeypatch):
    """What was drawn: batch, evidence and names of each panel."""
    panels = []
    draw = cam_panel.draw_panel

    def remember(batch, evidence, names):
        panels.append((batch, evidence, names))
        return draw(batch, evidence, names)

    monkeypatch.setattr(cam_panel, "draw_panel", remember)
    return panels


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("panels/*"))


def selection(stream, limit):
    chosen = []
    for cell in stream:
        position = place(chosen, cell, limit)
        if position is not None:
            chosen[position : position + 1] = [cell]
    return Counter(chosen)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("order", ["sorted", "reversed", "mixed"])
def test_a_selection_is_even_over_classes_and_over_the_groups_in_each(limit, order):
    stream = [(label, group) for label in range(2) for group in range(2) for _ in range(10 if group else 40)]
    if order == "reversed":
        stream.reverse()
    if order == "mixed":
        stream = [stream[int(i)] for i in torch.randperm(len(stream), generator=torch.Generator().manual_seed(0))]
    counts = selection(stream, limit)
    labels = [sum(counts[label, group] for group in range(2)) for label in range(2)]
    assert sum(labels) == limit
    assert abs(labels[0] - labels[1]) <= 1
    for label in range(2):
        assert abs(counts[label, 0] - counts[label, 1]) <= 1


def test_a_selection_takes_what_there_is():
    assert selection([(0, 0)] * 3, limit=5) == {(0, 0): 3}
    assert selection([(0, 0)] * 9 + [(1, 1)], limit=4) == {(0, 0): 3, (1, 1): 1}


def test_asking_leaves_no_trace(looker):
    class Random(looker):
        def explain_maps(self, image):
            return {"noise": torch.rand(len(image), 2, 2)}

    module = Random(dropout=0.5)
    module.train()
    first_block = module.classifier.backbone.model.blocks[0]
    first_block.eval()
    image = torch.randn(2, 3, 32, 32)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    modes, state = [part.training for part in module.modules()], torch.get_rng_state()

    evidence = collect_evidence(module, image)

    assert [part.training for part in module.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not evidence.logits.requires_grad
    logits, cam = module.eval().explain(image)
    assert torch.equal(evidence.logits, logits)
    assert torch.equal(evidence.cam, cam)


def test_modes_are_restored_when_asking_fails(looker):
    module = looker().train()
    with pytest.raises(RuntimeError):
        collect_evidence(module, torch.zeros(1, 1, 32, 32))
    assert module.classifier.backbone.training


def test_a_panel_after_every_epoch_and_none_in_the_sanity_check(looker, data, make_trainer, run_dir):
    trainer = make_trainer(CAMPanel(), max_epochs=3)
    trainer.fit(looker(), datamodule=data())
    assert files(run_dir) == ["epoch_000.png", "epoch_001.png", "epoch_002.png"]


def test_no_panel_without_a_validation(looker, data, make_trainer, run_dir):
    make_trainer(CAMPanel(), max_epochs=1, check_val_every_n_epoch=2).fit(looker(), datamodule=data())
    assert files(run_dir) == []  # though there was a sanity check


def test_every_n_epochs(looker, data, make_trainer, run_dir):
    make_trainer(CAMPanel(every_n_epochs=2), max_epochs=5).fit(looker(), datamodule=data())
    assert files(run_dir) == ["epoch_001.png", "epoch_003.png"]


def test_validate_and_test_have_panels_of_their_own(looker, data, make_trainer, run_dir):
    trainer = make_trainer(CAMPanel(every_n_epochs=7))
    trainer.validate(looker(), datamodule=data(), verbose=False)
    trainer.test(looker(), datamodule=data(), verbose=False)
    assert files(run_dir) == ["test.png", "val.png"]


def test_fast_dev_run_writes_nothing(looker, data, make_trainer, tmp_path):
    make_trainer(CAMPanel(), ConfusionMatrix(), fast_dev_run=True).fit(looker(), datamodule=data())
    assert list(tmp_path.rglob("*.png")) == list(tmp_path.rglob("*.csv")) == []


def test_the_images_are_few_balanced_and_the_same_in_every_epoch(looker, data, make_trainer, drawn):
    make_trainer(CAMPanel(images=4), max_epochs=3).fit(looker(), datamodule=data())
    first = drawn[0][0]
    assert first["label"].tolist() == [0, 0, 1, 1]  # in the data two thirds are 0, and they come first
    assert sorted(first["group"].tolist()) == [0, 1, 2, 3]
    assert drawn[0][2] == ["kakapo", "other bird"]
    for batch, _, _ in drawn:
        assert torch.equal(batch["index"], first["index"])
        assert torch.equal(batch["image"], first["image"])


def assert_evidence_is_what_was_validated(panel, module, tolerance=1e-5):
    batch, evidence, _ = panel
    validated = torch.stack([module.validated[index] for index in batch["index"].tolist()])
    torch.testing.assert_close(evidence.logits, validated, rtol=tolerance, atol=tolerance)


def test_the_evidence_is_that_of_the_validated_network(looker, data, make_trainer, drawn):
    module = looker(dropout=0.5)
    make_trainer(CAMPanel(images=6)).fit(module, datamodule=data())
    assert_evidence_is_what_was_validated(drawn[-1], module)


@pytest.mark.parametrize("first", [True, False])
def test_the_evidence_is_that_of_averaged_weights_where_these_are_validated(first, looker, data, make_trainer, drawn):
    averaging, panel, module = WeightAveraging(avg_fn=get_ema_avg_fn(0.9)), CAMPanel(), looker()
    trainer = make_trainer(*((panel, averaging) if first else (averaging, panel)))
    trainer.fit(module, datamodule=data())
    assert_evidence_is_what_was_validated(drawn[-1], module)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_the_evidence_is_in_the_precision_of_the_validation(precision, looker, data, make_trainer, drawn):
    class Watching(looker):
        def explain(self, image):
            modes.add((image.dtype, torch.is_autocast_enabled("cpu")))
            return super().explain(image)

    modes, module = set(), Watching()
    make_trainer(CAMPanel(), precision=precision).validate(module, datamodule=data(), verbose=False)
    assert modes == {(torch.float32, True) if precision == "bf16-mixed" else (torch.bfloat16, False)}
    assert_evidence_is_what_was_validated(drawn[-1], module, tolerance=2e-2)
    assert drawn[-1][1].cam.dtype == torch.float32


def test_training_is_the_same_to_the_bit_with_and_without_a_panel(looker, data, make_trainer):
    states = []
    for callbacks in ([], [CAMPanel(), ConfusionMatrix()]):
        trainer = make_trainer(*callbacks)
        module = looker(dropout=0.5)
        trainer.fit(module, datamodule=data())
        states.append(module.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("keys", [(), ("mask",), ("part_boxes",), ("keypoints",), ("mask", "part_boxes", "keypoints")])
def test_any_kind_of_prior_or_none(keys, looker, data, make_trainer, run_dir, drawn):
    make_trainer(CAMPanel()).validate(looker(), datamodule=data(keys), verbose=False)
    assert files(run_dir) == ["val.png"]
    assert set(keys) == set(drawn[0][0]) & {"mask", "part_boxes", "keypoints"}


@pytest.mark.parametrize("backbone", ["resnet18", "vit_tiny_patch16_224"])
def test_any_backbone_and_number_of_classes(backbone, looker, data, make_trainer, run_dir):
    module = looker(backbone, num_classes=3)
    make_trainer(CAMPanel(images=2)).validate(module, data(size=64).val_dataloader(), verbose=False)
    assert files(run_dir) == ["val.png"]


def test_further_maps_are_asked_for_where_the_module_has_them(looker, data, make_trainer, drawn):
    class Attentive(looker):
        def explain_maps(self, image):
            return {"attention": image.mean(1)}

    make_trainer(CAMPanel()).validate(Attentive(), datamodule=data(), verbose=False)
    batch, evidence, _ = drawn[0]
    torch.testing.assert_close(evidence.further, {"attention": batch["image"].mean(1)})


def test_a_module_that_explains_nothing_is_refused(data, make_trainer):
    class Mute(L.LightningModule):
        def validation_step(self, batch, batch_idx):
            return None

    with pytest.raises(PriorError, match=r"CAMPanel needs a module with explain\(image\); Mute has none"):
        make_trainer(CAMPanel()).validate(Mute(), datamodule=data(), verbose=False)


def test_sharded_weights_are_refused(looker, make_trainer):
    trainer = make_trainer()
    trainer.strategy.__class__ = FSDPStrategy  # setting one up takes a GPU
    with pytest.raises(PriorError, match="CAMPanel does not work under FSDPStrategy"):
        CAMPanel().setup(trainer, looker(), "fit")


@pytest.mark.parametrize("options", [{"images": 0}, {"every_n_epochs": 0}])
def test_a_number_below_one_is_refused(options):
    with pytest.raises(PriorError, match="is 1 or more, not 0"):
        CAMPanel(**options)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Keeps W&B off the network and everything that it writes in the test's folder."""
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    import wandb

    yield
    wandb.finish()


def read_back(folder: Path) -> dict[str, object]:
    """All that an offline run has logged, by W&B's own reader."""
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(folder)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [record["history"]["item"] for record in map(json.loads, lines) if record["type"] == "history"]
    return {key: value for row in rows for key, value in row.items()}


@pytest.mark.usefixtures("offline")
def test_wandb_gets_the_images_with_masks_and_boxes_the_panel_and_the_confusion_matrix(
    looker, data, make_trainer, tmp_path, drawn
):
    import wandb

    logger = WandbLogger(project="birds", save_dir=tmp_path, version="one")
    trainer = make_trainer(CAMPanel(images=4), ConfusionMatrix(), logger=logger, max_epochs=1)
    trainer.fit(looker(), datamodule=data())
    wandb.finish()

    assert files(tmp_path / "birds" / "one") == ["confusion_val.png", "epoch_000.png"]
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    logged, stored, (batch, _, _) = read_back(folder), folder / "files", drawn[0]
    assert logged["trainer/global_step"] == 3
    panel = tmp_path / "birds" / "one" / "panels" / "epoch_000.png"
    assert (stored / logged["val/panel.path"]).read_bytes() == panel.read_bytes()

    assert logged["val/images.count"] == 4
    assert not batch["mask_valid"].all()  # one has no annotation, so one has no prior in W&B either
    for row, known in enumerate(batch["mask_valid"].tolist()):
        masks, boxes = logged["val/images.all_masks"][row], logged["val/images.all_boxes"][row]
        assert {"evidence"} | ({"prior"} if known else set()) == set(masks)
        assert bool(boxes) == known
        if known:
            pixels = np.asarray(Image.open(stored / masks["prior"]["path"]))
            np.testing.assert_array_equal(pixels, batch["mask"][row].numpy())
            (box,) = json.loads((stored / boxes["prior"]["path"]).read_text())["box_data"]
            corners = [box["position"][side] for side in ("minX", "minY", "maxX", "maxY")]
            assert corners == batch["part_boxes"][row, 0].tolist()
            assert logged["val/images.captions"][row].startswith(("kakapo, predicted ", "other bird, predicted "))

    table = json.loads((stored / logged["val/confusion_table.path"]).read_text())
    assert table["columns"] == ["Actual", "Predicted", "nPredictions"]
    assert sum(count for *_, count in table["data"]) == 18


def test_wandbs_evidence_mask_has_the_sign_of_the_evidence():
    evidence = torch.tensor([[-4.0, -1.1, -0.9, 0.0], [0.0, 0.9, 1.1, 2.0]])
    mask = cam_panel._masks({}, 0, evidence, ["kakapo", "other bird"])["evidence"]
    assert mask["mask_data"].tolist() == [[1, 1, 0, 0], [0, 0, 2, 2]]
    assert mask["class_labels"] == {0: "little evidence", 1: "evidence for kakapo", 2: "evidence for other bird"}
