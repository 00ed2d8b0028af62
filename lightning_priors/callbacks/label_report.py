"""What a label generator makes of the validation images, and whether it has collapsed."""

import csv
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lightning_priors.batch import PriorBatch
from lightning_priors.callbacks.label_sheet import THUMBNAIL, draw_label_sheet
from lightning_priors.callbacks.logged_picture import log_picture
from lightning_priors.callbacks.run_folder import class_names, run_folder
from lightning_priors.errors import PriorError
from lightning_priors.metrics import LabelOverlap, LabelUsage, Typical, TypicalImages


@runtime_checkable
class MakesLabels(Protocol):
    """A module that trains on auxiliary labels of its own making, such as `MAXL`."""

    sub_classes: list[int]
    """The number of sub-classes psi of each of the C primary classes, A in all; none for labels of another kind."""

    def auxiliary_labels(self, batch: PriorBatch) -> Tensor:
        """The labels (B, A) that the auxiliary head is trained on for a batch."""


@runtime_checkable
class NamesTasks(Protocol):
    """A data module whose source knows the names of its auxiliary tasks."""

    @property
    def source(self) -> Any:
        """Has ``aux_classes``, a dict by the names of the tasks."""


class _Collected(NamedTuple):
    """What one pass over the validation images adds up."""

    usage: LabelUsage
    overlap: LabelOverlap
    typical: TypicalImages


class LabelReport(L.Callback):
    """Reports on generated labels over the validation images, over all ranks.

    Logged as ``val/``: ``label_used_<class>``, how many sub-classes of a primary class are in use; ``label_entropy``,
    that of the classes' mean labels as a share of its maximum, 1 = all sub-classes alike; ``label_confidence``, the
    mean probability of the most probable sub-class; and for each human auxiliary task of the data
    ``label_ami_<task>``, the adjusted mutual information of generated and human classes, with
    ``label_ami_within_<task>``, the same within the primary classes, where sub-classes by chance get 0.

    Labels that do not divide the primary classes, such as human ones, are not reported on.

    Written to the run's folder: ``generated_labels.csv``, a row for each sub-class, and the sheet of the images most
    typical of each, ``panels/labels_epoch_003.png`` (``labels_val.png`` outside of `fit`), and ``val/labels`` of W&B,
    TensorBoard and MLflow. Nothing is written in the sanity check or under ``fast_dev_run``.

    A generator that gives all images of a primary class the same most probable sub-class is named in a warning, once:
    in training if two reports in a row find it so, for an untrained generator may well begin there.

    Args:
        images: How many images of each sub-class the sheet shows.
        every_n_epochs: Epochs from one report to the next.

    Raises:
        PriorError: If a number is below 1, or the module makes no auxiliary labels.

    >>> LabelReport(images=0)
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: LabelReport: images is 1 or more, not 0
    """

    def __init__(self, images: int = 8, every_n_epochs: int = 1) -> None:
        for name, value in (("images", images), ("every_n_epochs", every_n_epochs)):
            if value < 1:
                raise PriorError(f"LabelReport: {name} is 1 or more, not {value}")
        self.images, self.every_n_epochs = images, every_n_epochs
        self._collected: _Collected | None = None
        self._suspected: set[int] = set()
        self._warned = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuses a module that makes no labels."""
        if not isinstance(pl_module, MakesLabels):
            raise PriorError(
                f"LabelReport needs a module that makes auxiliary labels, such as MAXL; {type(pl_module).__name__} "
                "has no sub_classes or no auxiliary_labels"
            )
        self._suspected, self._warned = set(), False

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begins anew."""
        self._collected = None

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Asks for the labels of a batch; every rank does, since balanced labels may depend on all of them."""
        assert isinstance(pl_module, MakesLabels)
        if not pl_module.sub_classes or not self._due(trainer):
            return
        with trainer.precision_plugin.forward_context(), torch.no_grad(), isolate_rng():
            labels = pl_module.auxiliary_labels(batch).float()
        if self._collected is None:
            self._collected = _begin(pl_module.sub_classes, self.images, labels.device)
        self._collected.usage.update(labels, batch["label"])
        self._collected.typical.update(labels, batch["index"], batch["image"])
        if "aux_labels" in batch:
            self._collected.overlap.update(labels, batch["aux_labels"])

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs, draws, writes and warns."""
        if self._collected is None:
            return
        usage, overlap, typical = self._collected
        self._collected = None
        names = class_names(trainer, len(usage.sub_classes))
        used, images = usage.compute(), typical.compute()  # over the ranks, so all of them come here
        pl_module.log_dict(_usage_values(used, names))
        if overlap.update_called:
            pl_module.log_dict(_overlap_values(overlap.compute(), trainer))
        self._warn_of_collapse(trainer, used["used"].tolist(), usage.sub_classes, names)
        if trainer.is_global_zero:
            shares = used["share"].nan_to_num().tolist()
            folder = run_folder(trainer)
            (folder / "panels").mkdir(parents=True, exist_ok=True)
            _write_csv(folder / "generated_labels.csv", used, images, usage.sub_classes, names)
            path = folder / "panels" / f"labels_{_moment(trainer)}.png"
            draw_label_sheet(images, shares, usage.sub_classes, names).savefig(path)
            for logger in trainer.loggers:
                log_picture(logger, "val/labels", path, trainer.global_step)

    def _due(self, trainer: L.Trainer) -> bool:
        if trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return False
        return not _fitting(trainer) or (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _warn_of_collapse(
        self, trainer: L.Trainer, used: Sequence[float], sub_classes: Sequence[int], names: Sequence[str]
    ) -> None:
        found = {label for label, count in enumerate(used) if count <= 1 and sub_classes[label] > 1}
        collapsed = sorted(found & self._suspected if _fitting(trainer) else found)
        self._suspected = found
        if collapsed and not self._warned and trainer.is_global_zero:
            self._warned = True
            classes = ", ".join(f"{names[label]} ({sub_classes[label]})" for label in collapsed)
            warnings.warn(
                f"LabelReport: the label generator is collapsing: it uses one sub-class only of {classes}; "
                "raise entropy_weight, or try balance: sinkhorn or another generator_lr",
                stacklevel=2,
            )


def _begin(sub_classes: Sequence[int], images: int, device: torch.device) -> _Collected:
    return _Collected(
        LabelUsage(sub_classes).to(device),
        LabelOverlap(sub_classes).to(device),
        TypicalImages(sum(sub_classes), images, THUMBNAIL).to(device),
    )


def _usage_values(used: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """What is logged of the usage; nothing of primary classes that do not occur."""
    counts = zip(names, used["used"], strict=True)
    values = {f"val/label_used_{name}": count for name, count in counts if not count.isnan()}
    return values | {f"val/label_{name}": used[name].nanmean() for name in ("entropy", "confidence")}


def _overlap_values(overlap: Mapping[str, Sequence[float]], trainer: L.Trainer) -> dict[str, float]:
    """What is logged of the overlap; nothing where there is nothing to compare."""
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    tasks = [str(task) for task in range(len(overlap["all"]))]
    if isinstance(datamodule, NamesTasks):
        tasks = list(datamodule.source.aux_classes)
    keys = {"ami": "all", "ami_within": "within"}
    values = {f"val/label_{k}_{task}": overlap[key][i] for k, key in keys.items() for i, task in enumerate(tasks)}
    return {name: value for name, value in values.items() if not math.isnan(value)}


def _write_csv(
    path: Path, used: Mapping[str, Tensor], typical: Sequence[Typical], sub_classes: Sequence[int], names: Sequence[str]
) -> None:
    """A row for each sub-class, with the rows of its typical images in the source."""
    owners = [(name, number + 1) for name, count in zip(names, sub_classes, strict=True) for number in range(count)]
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["class", "sub_class", "share", "mean_probability", "typical_images"])
        numbers = zip(owners, used["share"].tolist(), used["probability"].tolist(), typical, strict=True)
        for owner, share, probability, images in numbers:
            indices = " ".join(str(index) for index in images.indices)
            rows.writerow([*owner, f"{share:.4f}", f"{probability:.4f}", indices])


def _fitting(trainer: L.Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING


def _moment(trainer: L.Trainer) -> str:
    return f"epoch_{trainer.current_epoch:03d}" if _fitting(trainer) else "val"
