"""A run whose numbers have become nan or infinite ends as an error, and leaves nothing that looks like a result."""

from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from squares import Squares
from test_protocol import EVERY, build
from torch.utils.data import DataLoader, Dataset

from lightning_priors.techniques import Pretrained
from lightning_priors.techniques.finite import NotFiniteError

KEYS = ("mask", "part_boxes", "group", "aux_labels")


class Spoilt(Dataset):
    """Squares of which one picture holds a value that it should not."""

    def __init__(self, where: int, value: float) -> None:
        self.squares, self.where, self.value = Squares(24, keys=KEYS), where, value

    def __len__(self) -> int:
        return len(self.squares)

    def __getitem__(self, item: int):
        sample = dict(self.squares[item])
        if item == self.where:
            sample["image"] = sample["image"].clone()
            sample["image"][0, 3, 3] = self.value
        return sample


def trainer(folder: Path, **options) -> L.Trainer:
    return L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )


def saved(folder: Path) -> list[Path]:
    return list(folder.rglob("*.ckpt"))


@EVERY
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_picture_that_is_not_finite_stops_the_training(name, value, tmp_path):
    loader = DataLoader(Spoilt(9, value), batch_size=8)
    with pytest.raises(NotFiniteError, match="a picture holds numbers that are nan or infinite, among image 8"):
        trainer(tmp_path).fit(build(name), loader, DataLoader(Squares(8, keys=KEYS), batch_size=8))
    assert not saved(tmp_path)


@EVERY
def test_a_rate_that_is_too_high_ends_as_an_error_and_keeps_no_checkpoint(name, tmp_path):
    loader = DataLoader(Squares(24, keys=KEYS), batch_size=8)
    callbacks = [ModelCheckpoint(tmp_path / "best", monitor="val/acc", mode="max"), ModelCheckpoint(tmp_path / "last")]
    with pytest.raises(NotFiniteError):
        trainer(tmp_path, callbacks=callbacks).fit(build(name, lr=1e30), loader, loader)
    for path in saved(tmp_path):
        weights = torch.load(path, weights_only=True)["state_dict"].values()
        assert all(value.isfinite().all() for value in weights)


def test_the_error_names_step_terms_and_images(tmp_path):
    class Diverges(Pretrained):
        def step(self, batch):
            step = super().step(batch)
            bad = step.loss * (float("nan") if self.global_step == 2 else 1.0)
            return step._replace(loss=bad, terms={"primary": bad, "other": step.loss})

    loader = DataLoader(Squares(24, keys=KEYS), batch_size=8)
    expected = "^step 2: loss is nan, primary is nan; images: image 16, image 17, image 18 and 5 more$"
    with pytest.raises(NotFiniteError, match=expected):
        trainer(tmp_path).fit(Diverges(), loader, loader)


def test_weights_that_are_not_finite_are_neither_trained_nor_evaluated(tmp_path):
    module = Pretrained()
    module.classifier.head.bias.data[1] = float("inf")
    loader = DataLoader(Squares(8, keys=KEYS), batch_size=8)
    for run in (trainer(tmp_path).validate, trainer(tmp_path).test):
        with pytest.raises(NotFiniteError, match=r"the weights are not finite \(classifier.head.bias\)"):
            run(module, loader, verbose=False)
    with pytest.raises(NotFiniteError):
        trainer(tmp_path).predict(module, loader)
    with pytest.raises(NotFiniteError):
        trainer(tmp_path).fit(module, loader, loader)


def test_only_the_images_whose_answer_is_not_finite_are_named(tmp_path):
    class Fails(Pretrained):
        def explain(self, image):
            logits, cam = super().explain(image)
            logits[5] = float("nan")
            return logits, cam

    module = Fails()
    module.evaluate = lambda batch, stage: module.log_evaluation(batch, stage, *module.explain(batch["image"]))
    loader = DataLoader(Squares(8, keys=KEYS), batch_size=8)
    with pytest.raises(NotFiniteError, match=r"^the logits are nan or infinite for image 5$"):
        trainer(tmp_path).validate(module, loader, verbose=False)


def test_a_checkpoint_within_an_epoch_is_not_written_either(tmp_path):
    class Breaks(L.Callback):
        def on_before_zero_grad(self, trainer, module, optimizer):
            if trainer.global_step == 2:
                module.classifier.head.weight.data[0, 0] = float("nan")

    loader = DataLoader(Squares(24, keys=KEYS), batch_size=8)
    callbacks = [Breaks(), ModelCheckpoint(tmp_path / "steps", every_n_train_steps=1, save_top_k=-1)]
    with pytest.raises(NotFiniteError):
        trainer(tmp_path, callbacks=callbacks).fit(Pretrained(), loader, loader)
    for path in saved(tmp_path):
        assert all(value.isfinite().all() for value in torch.load(path, weights_only=True)["state_dict"].values())
