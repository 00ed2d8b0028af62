"""What is reported of a label generator."""

import csv
import math
import warnings

import pytest
import torch
from lightning.pytorch.loggers import WandbLogger
from PIL import Image
from torch import Tensor

from conftest import Looker
from lightning_priors.callbacks import LabelReport
from lightning_priors.callbacks.label_sheet import THUMBNAIL
from lightning_priors.errors import PriorError
from lightning_priors.metrics.mutual_information import adjusted_mutual_information

HARD = torch.eye(5)
KEYS = ("aux_labels",)


class Labeller(Looker):
    """Labels by a rule: three sub-classes of the kakapo, two of the other birds."""

    sub_classes = (3, 2)

    def __init__(self, collapsed: bool = False, labels=None) -> None:
        super().__init__()
        self.collapsed, self.asked = collapsed, 0
        if labels is not None:
            self.auxiliary_labels = labels

    def auxiliary_labels(self, batch: dict[str, Tensor]) -> Tensor:
        self.asked += 1
        assert not self.training
        assert not torch.is_grad_enabled()
        torch.rand(3)  # must leave no trace
        label, number = batch["label"], batch["index"] - 100
        kakapo = HARD[number % 3 if not self.collapsed else 0 * number]
        return torch.where((label == 0)[:, None], 0.9 * kakapo + 0.1 * HARD[0], HARD[3 + number % 2])


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def logged(run_dir, name):
    return [float(row[name]) for row in read(run_dir / "metrics.csv") if row[name]]


def test_what_is_logged(data, make_trainer, run_dir):
    """Of the 18 validation images 12 are kakapos, four in each of three sub-classes, and 6 others, three in each."""
    make_trainer(LabelReport()).fit(Labeller(), datamodule=data(KEYS))
    assert logged(run_dir, "val/label_used_kakapo") == [3, 3]
    assert logged(run_dir, "val/label_used_other bird") == [2, 2]
    kakapo = torch.tensor([0.4, 0.3, 0.3])
    entropy = float(-(kakapo * kakapo.log()).sum()) / math.log(3)
    assert logged(run_dir, "val/label_entropy") == pytest.approx([(entropy + 1) / 2] * 2, abs=1e-5)
    confidence = (4 * 1.0 + 8 * 0.9) / 12
    assert logged(run_dir, "val/label_confidence") == pytest.approx([(confidence + 1) / 2] * 2, abs=1e-5)


def uniform(batch):
    return torch.where((batch["label"] == 0)[:, None], HARD[:3].mean(0), HARD[3:].mean(0))


def constant(batch):
    return torch.where((batch["label"] == 0)[:, None], HARD[2], HARD[3])


def perfect(batch):
    """The human labels, which divide both classes into three; the other birds have two sub-classes only."""
    human = batch["aux_labels"][:, 0].clamp(min=0)
    return torch.where((batch["label"] == 0)[:, None], HARD[human.clamp(max=2)], HARD[3 + human % 2])


@pytest.mark.parametrize(
    ("labels", "information", "surety", "kind"),
    [
        (uniform, 0.0, 0.0, "they are uniform; set generator_every 1 and a greater generator_lr"),
        (constant, 0.0, 1.0, "they are the same for all of a class; try balance: sinkhorn"),
        (perfect, 1.0, 1.0, None),
    ],
)
def test_how_much_labels_say(data, make_trainer, run_dir, labels, information, surety, kind):
    """Uniform and constant labels say nothing, and are named with what to turn; those that divide say all they can."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_trainer(LabelReport()).fit(Labeller(labels=labels), datamodule=data(KEYS))
    said = [str(warning.message) for warning in caught if "LabelReport" in str(warning.message)]
    assert [kind in message for message in said] == ([True] if kind else [])
    assert logged(run_dir, "val/label_information") == pytest.approx([information] * 2, abs=0.08)
    assert logged(run_dir, "val/label_surety") == pytest.approx([surety] * 2, abs=1e-5)
    possible = (math.log2(3) + 1) / 2
    assert logged(run_dir, "val/label_bits") == pytest.approx([information * possible] * 2, abs=0.08)


def test_agreement_is_counted_under_a_small_move(data, make_trainer, run_dir):
    """Labels by the brightness of a corner change for images whose corner has the object; fixed labels agree."""

    def by_a_pixel(batch):
        bright = (batch["image"][:, 0, 9, 9] > 0).long()
        return HARD[torch.where(batch["label"] == 0, bright, 3 + bright)]

    make_trainer(LabelReport(), max_epochs=1).fit(Labeller(labels=by_a_pixel), datamodule=data(()))
    images = torch.stack([sample["image"] for sample in data(()).val_dataloader().dataset])
    expected = ((images[:, 0, 9, 9] > 0) == (images[:, 0, 7, 7] > 0)).float().mean()  # by two pixels of 32
    assert 0 < expected < 1
    assert logged(run_dir, "val/label_agreement") == pytest.approx([float(expected)])
    trainer = make_trainer(LabelReport(), max_epochs=1, logger=False)
    trainer.fit(Labeller(), datamodule=data(()))
    assert trainer.callback_metrics["val/label_agreement"] == 1


def test_the_overlap_with_each_human_task(data, make_trainer, run_dir):
    """The first task divides both classes into three, by the index as the kakapo's labels do; the second none."""
    make_trainer(LabelReport(), max_epochs=1).fit(Labeller(), datamodule=data(KEYS))
    counts = torch.zeros(5, 6, dtype=torch.int64)
    for index in range(2, 18):
        row = index % 3 if index < 12 else 3 + index % 2
        counts[row, index % 3 + 3 * (index >= 12)] += 1
    expected = adjusted_mutual_information(counts)
    assert logged(run_dir, "val/label_ami_0") == pytest.approx([float(expected)], abs=1e-5)
    of_the_others = adjusted_mutual_information(counts[3:])
    within = (10 * 1.0 + 6 * float(of_the_others)) / 16
    assert logged(run_dir, "val/label_ami_within_0") == pytest.approx([within], abs=1e-5)
    assert 0 < logged(run_dir, "val/label_ami_1")[0] < 1
    assert "val/label_ami_within_1" not in read(run_dir / "metrics.csv")[0]


def test_tasks_have_the_names_of_the_source(data, make_trainer, run_dir):
    module = data(KEYS)
    module.source = type("Birds", (), {"aux_classes": {"species": ["a"], "is kakapo": ["yes", "no"]}})()
    make_trainer(LabelReport(), max_epochs=1).fit(Labeller(), datamodule=module)
    names = read(run_dir / "metrics.csv")[0].keys()
    assert {"val/label_ami_species", "val/label_ami_within_species", "val/label_ami_is kakapo"} <= names


def test_the_table_has_a_row_for_each_sub_class(data, make_trainer, run_dir):
    make_trainer(LabelReport(images=2), max_epochs=1).fit(Labeller(), datamodule=data(()))
    rows = read(run_dir / "generated_labels.csv")
    assert [(row["class"], row["sub_class"]) for row in rows] == [
        *(("kakapo", str(number)) for number in (1, 2, 3)),
        *(("other bird", str(number)) for number in (1, 2)),
    ]
    assert [float(row["share"]) for row in rows] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.5, 0.5], abs=1e-3)
    assert [float(row["mean_probability"]) for row in rows] == pytest.approx([0.4, 0.3, 0.3, 0.5, 0.5])
    assert [row["typical_images"] for row in rows] == ["100 103", "101 104", "102 105", "112 114", "113 115"]


def test_a_sheet_is_drawn_every_few_epochs_and_asking_leaves_no_trace(data, make_trainer, run_dir):
    module, states = Labeller(), []
    module.on_validation_epoch_end = lambda: states.append(torch.get_rng_state())
    make_trainer(LabelReport(every_n_epochs=2), max_epochs=5).fit(module, datamodule=data(()))
    drawn = sorted(path.name for path in (run_dir / "panels").iterdir())
    assert drawn == ["labels_epoch_001.png", "labels_epoch_003.png"]
    assert module.asked == 2 * 2 * 4, "four batches of validation images, twice each, and not in the sanity check"
    plain, expected = Looker(), []
    plain.on_validation_epoch_end = lambda: expected.append(torch.get_rng_state())
    make_trainer(max_epochs=5, logger=False).fit(plain, datamodule=data(()))
    assert all(torch.equal(one, other) for one, other in zip(states, expected, strict=True))


def test_outside_of_fit_the_sheet_has_another_name(data, make_trainer, run_dir):
    make_trainer(LabelReport()).validate(Labeller(), datamodule=data(()), verbose=False)
    assert (run_dir / "panels" / "labels_val.png").is_file()


def test_fast_dev_run_writes_nothing(data, make_trainer, run_dir):
    make_trainer(LabelReport(), fast_dev_run=True).fit(Labeller(), datamodule=data(()))
    assert not run_dir.exists()


def test_a_collapsing_generator_is_named_once_with_what_to_turn(data, make_trainer):
    with pytest.warns(UserWarning, match=r"one sub-class only of kakapo \(3\); raise entropy_weight") as caught:
        make_trainer(LabelReport(), max_epochs=5).fit(Labeller(collapsed=True), datamodule=data(()))
    assert len([warning for warning in caught if "collapsing" in str(warning.message)]) == 1


def test_one_report_alone_does_not_warn_in_training_but_does_outside(data, make_trainer):
    module = Labeller(collapsed=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        make_trainer(LabelReport(), max_epochs=1).fit(module, datamodule=data(()))
    with pytest.warns(UserWarning, match="collapsing"):
        make_trainer(LabelReport(), logger=False).validate(module, datamodule=data(()), verbose=False)


def test_a_class_with_a_single_sub_class_cannot_collapse(data, make_trainer):
    module = Labeller()
    module.sub_classes = (1, 4)
    module.auxiliary_labels = lambda batch: HARD[torch.where(batch["label"] == 0, 0, 1 + batch["index"] % 4)]
    make_trainer(LabelReport(), max_epochs=3).fit(module, datamodule=data(()))


def test_a_module_without_labels_is_refused(looker, data, make_trainer):
    with pytest.raises(
        PriorError, match="LabelReport needs a module that makes auxiliary labels, such as MAXL; Looker"
    ):
        make_trainer(LabelReport()).fit(looker(), datamodule=data(()))


@pytest.mark.parametrize("option", ["images", "every_n_epochs"])
def test_numbers_below_one_are_refused(option):
    with pytest.raises(PriorError, match=f"LabelReport: {option} is 1 or more, not 0"):
        LabelReport(**{option: 0})


def test_under_wandb_the_sheet_is_logged_with_the_step(data, make_trainer, tmp_path):
    class Recorder(WandbLogger):
        """W&B's logger without W&B behind it."""

        name, version, save_dir = "runs", "version_0", str(tmp_path)

        def __init__(self) -> None:
            self.entries: list[dict] = []

        @property
        def experiment(self):
            return type("Run", (), {"log": lambda _, entry: self.entries.append(entry)})()

        def log_metrics(self, metrics, step=None):
            pass

        def log_hyperparams(self, *params):
            pass

        def save(self):
            pass

        def finalize(self, status):
            pass

    recorder = Recorder()
    make_trainer(LabelReport(), max_epochs=2, logger=recorder).fit(Labeller(), datamodule=data(()))
    assert [entry["trainer/global_step"] for entry in recorder.entries] == [3, 6]
    sheet = recorder.entries[1]["val/labels"].image
    with Image.open(tmp_path / "runs" / "version_0" / "panels" / "labels_epoch_001.png") as drawn:
        assert sheet.size == drawn.size
    assert sheet.width > 4 * THUMBNAIL, "four images in the longest row"


def test_labels_that_are_no_sub_classes_are_not_reported(data, make_trainer, run_dir):
    module = Labeller()
    module.sub_classes = ()
    make_trainer(LabelReport(), max_epochs=1).fit(module, datamodule=data(KEYS))
    assert not (run_dir / "generated_labels.csv").exists()
    assert module.asked == 0
