"""The confusion matrix counts what was taken for what."""

import csv

import lightning as L
import pytest
import torch
import torch.nn.functional as F

from lightning_priors.callbacks import ConfusionMatrix, draw_confusion
from lightning_priors.callbacks.confusion import _wandb_chart
from lightning_priors.errors import PriorError


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def known_answers(looker):
    """A module that takes every fourth image for class 1."""

    class Known(looker):
        def validation_step(self, batch, batch_idx):
            return F.one_hot((batch["index"] % 4 == 0).long(), 2).float()

    return Known()


def test_the_last_epochs_counts_are_in_a_table_with_names(looker, data, make_trainer, run_dir):
    make_trainer(ConfusionMatrix(), max_epochs=3).fit(known_answers(looker), datamodule=data())
    # of 12 and 6 images; neither earlier epochs nor the sanity check count
    assert read(run_dir / "confusion_val.csv") == [
        ["true \\ predicted", "kakapo", "other bird"],
        ["kakapo", "9", "3"],
        ["other bird", "4", "2"],
    ]
    assert (run_dir / "panels" / "confusion_val.png").is_file()


def test_the_test_has_a_table_of_its_own_and_classes_without_names_have_numbers(looker, data, make_trainer, run_dir):
    make_trainer(ConfusionMatrix()).test(looker(num_classes=3), data().val_dataloader(), verbose=False)
    assert read(run_dir / "confusion_test.csv")[0] == ["true \\ predicted", "0", "1", "2"]
    assert not (run_dir / "confusion_val.csv").exists()


def test_a_sanity_check_alone_writes_nothing(looker, data, make_trainer, run_dir):
    make_trainer(ConfusionMatrix(), max_epochs=1, check_val_every_n_epoch=2).fit(looker(), datamodule=data())
    assert not (run_dir / "confusion_val.csv").exists()


def test_steps_that_give_no_logits_are_named(data, make_trainer):
    class Mute(L.LightningModule):
        def validation_step(self, batch, batch_idx):
            return None

    with pytest.raises(PriorError, match="needs the evaluation steps of Mute to give logits"):
        make_trainer(ConfusionMatrix()).validate(Mute(), datamodule=data(), verbose=False)


def test_the_drawn_matrix_has_true_classes_in_rows():
    counts = torch.tensor([[5, 2, 0], [0, 7, 1], [0, 0, 0]])  # a class without an image has no shares
    (axes,) = draw_confusion(counts, ["ant", "bee", "$c$"]).axes
    numbers = {text.get_position(): int(text.get_text()) for text in axes.texts}
    assert numbers == {(0, 0): 5, (1, 0): 2, (1, 1): 7, (2, 1): 1}
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true", "predicted")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ant", "bee", "$c$"]
    pixels = axes.images[0].get_array().astype(int)
    blueness = pixels[..., 2] - pixels[..., 0]
    assert blueness[1, 1] > blueness[0, 0] > blueness[0, 1] > blueness[1, 2] > blueness[2, 2] == 0


def test_many_classes_are_drawn_without_numbers(tmp_path):
    counts = torch.eye(60, dtype=torch.int64)
    figure = draw_confusion(counts, [str(label) for label in range(60)])
    figure.savefig(tmp_path / "confusion.png")
    assert not figure.axes[0].texts


def test_wandbs_chart_has_every_class_and_every_count_but_no_heap_of_zeros():
    counts = torch.zeros(200, 200, dtype=torch.int64)
    counts[3, 5] = 7
    rows = _wandb_chart(counts, [f"c{label}" for label in range(200)]).table.data
    assert len(rows) == 201
    assert ["c3", "c5", 7] in rows
    assert ["c9", "c9", 0] in rows
