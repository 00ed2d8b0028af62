"""What a label generator makes of the validation images, and whether that says anything of them."""

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
from torchmetrics import MeanMetric

from lightning_priors.batch import PriorBatch
from lightning_priors.callbacks.label_sheet import THUMBNAIL, draw_label_sheet
from lightning_priors.callbacks.logged_picture import log_picture
from lightning_priors.callbacks.run_folder import class_names, run_folder
from lightning_priors.errors import PriorError
from lightning_priors.metrics import LabelOverlap, LabelUsage, Typical, TypicalImages
from lightning_priors.whole_files import write_figure, write_table

LEAST_INFORMATION = 0.02
"""Share of the possible information below which labels say nothing."""
SHIFT = 16
"""An image is moved by one part in so many of its sides."""


@runtime_checkable
class MakesLabels(Protocol):
    """A module that trains on auxiliary labels of its own making, such as `MAXL`."""

    sub_classes: list[int]
    """The number of sub-classes psi of each of the C primary classes, A in all; none for labels of another kind."""

    def auxiliary_labels(self, batch: PriorBatch) -> Tensor:
        """The labels (B, A) that the auxiliary head is trained on for a batch."""


@runtime_checkable
class ComparesGradients(Protocol):
    """A module that can tell whether its auxiliary task teaches what the primary one teaches anyway."""

    def gradient_cosine(self, batch: PriorBatch) -> Tensor:
        """The cosine () between the gradients of both losses on what they share."""


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
    agreement: MeanMetric
    cosine: MeanMetric


class LabelReport(L.Callback):
    """Reports on generated labels over the validation images, over all ranks.

    Logged as ``val/``, averages over the primary classes: ``label_bits``, the mutual information between an image and
    its label beyond the class, and ``label_information``, the same as a share of the possible; ``label_confidence``,
    the mean probability of the most probable sub-class, and ``label_surety``, the same from 0 = uniform labels to 1 =
    certain ones; ``label_entropy`` of the classes' mean labels as a share of its maximum, 1 = all sub-classes alike;
    ``label_used_<class>``, how many sub-classes are in use. Over all images: ``label_agreement``, the share whose most
    probable sub-class stays when the image moves by a sixteenth of its sides. Where the module can tell,
    ``label_cosine`` between the gradients of both losses on the first images: near 1 the auxiliary task is the primary
    one once more. For each human auxiliary task of the data ``label_ami_<task>``, the adjusted mutual information of
    generated and human classes, and ``label_ami_within_<task>``, the same within the primary classes, where
    sub-classes by chance get 0.

    Labels that do not divide the primary classes, such as human ones, are not reported on.

    Written to the run's folder: ``generated_labels.csv``, a row for each sub-class, and the sheet of the images most
    typical of each, ``panels/labels_epoch_003.png`` (``labels_val.png`` outside of `fit`), and ``val/labels`` of W&B,
    TensorBoard and MLflow. Nothing is written in the sanity check or under ``fast_dev_run``.

    A generator that gives all images of a primary class the same most probable sub-class, or whose labels have less
    than a fiftieth of the possible information, is named in a warning, once: in training if two reports in a row find
    it so, for an untrained generator may well begin there.

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
        self._said_nothing = self._warned = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuses a module that makes no labels."""
        if not isinstance(pl_module, MakesLabels):
            raise PriorError(
                f"LabelReport needs a module that makes auxiliary labels, such as MAXL; {type(pl_module).__name__} "
                "has no sub_classes or no auxiliary_labels"
            )
        self._suspected, self._said_nothing, self._warned = set(), False, False

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
            moved = pl_module.auxiliary_labels(batch | {"image": moved_a_little(batch["image"])})
        if self._collected is None:
            self._collected = _begin(pl_module.sub_classes, self.images, labels.device)
            if isinstance(pl_module, ComparesGradients):
                with trainer.precision_plugin.forward_context(), isolate_rng():
                    self._collected.cosine.update(pl_module.gradient_cosine(batch))
        self._collected.usage.update(labels, batch["label"])
        self._collected.typical.update(labels, batch["index"], batch["image"])
        self._collected.agreement.update((labels.argmax(1) == moved.argmax(1)).float())
        if "aux_labels" in batch:
            self._collected.overlap.update(labels, batch["aux_labels"])

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs, draws, writes and warns."""
        if self._collected is None:
            return
        usage, overlap, typical, agreement, cosine = self._collected
        self._collected = None
        names = class_names(trainer, len(usage.sub_classes))
        used, images = usage.compute(), typical.compute()  # over the ranks, so all of them come here
        pl_module.log_dict(_usage_values(used, names) | {"val/label_agreement": agreement.compute()})
        if cosine.update_called:
            pl_module.log("val/label_cosine", cosine.compute())
        if overlap.update_called:
            pl_module.log_dict(_overlap_values(overlap.compute(), trainer))
        self._warn(trainer, used, usage.sub_classes, names)
        if trainer.is_global_zero:
            shares = used["share"].nan_to_num().tolist()
            folder = run_folder(trainer)
            (folder / "panels").mkdir(parents=True, exist_ok=True)
            _write_csv(folder / "generated_labels.csv", used, images, usage.sub_classes, names)
            path = folder / "panels" / f"labels_{_moment(trainer)}.png"
            write_figure(path, draw_label_sheet(images, shares, usage.sub_classes, names))
            for logger in trainer.loggers:
                log_picture(logger, "val/labels", path, trainer.global_step)

    def _due(self, trainer: L.Trainer) -> bool:
        if trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return False
        return not _fitting(trainer) or (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _warn(
        self, trainer: L.Trainer, used: Mapping[str, Tensor], sub_classes: Sequence[int], names: Sequence[str]
    ) -> None:
        """Names a generator that says nothing or has collapsed, once."""
        share = float(used["information_share"].nanmean())
        single = {label for label, count in enumerate(used["used"].tolist()) if count <= 1 and sub_classes[label] > 1}
        silent, collapsed = share < LEAST_INFORMATION, single
        if _fitting(trainer):  # two reports in a row
            silent, collapsed = silent and self._said_nothing, single & self._suspected
        self._said_nothing, self._suspected = share < LEAST_INFORMATION, single
        if not (silent or collapsed) or self._warned or not trainer.is_global_zero:
            return
        self._warned = True
        if silent:
            warnings.warn(f"LabelReport: {_silence(share, float(used['surety'].nanmean()))}", stacklevel=2)
        else:
            classes = ", ".join(f"{names[label]} ({sub_classes[label]})" for label in sorted(collapsed))
            warnings.warn(
                f"LabelReport: the label generator is collapsing: it uses one sub-class only of {classes}; "
                "raise entropy_weight, or try balance: sinkhorn or another generator_lr",
                stacklevel=2,
            )


def moved_a_little(image: Tensor) -> Tensor:
    """Moves images to the lower right by a sixteenth of their sides; their border fills the gap.

    Args:
        image: (B, C, H, W).

    >>> moved_a_little(torch.arange(16.0).view(1, 1, 1, 16))[0, 0, 0, :4]
    tensor([0., 0., 1., 2.])
    """
    down, right = (side // SHIFT for side in image.shape[-2:])
    padded = torch.nn.functional.pad(image, (right, 0, down, 0), mode="replicate")
    return padded[..., : image.shape[-2], : image.shape[-1]]


def _silence(share: float, surety: float) -> str:
    kind, cure = "uniform", "set generator_every 1 and a greater generator_lr, or a lower temperature"
    if surety >= 0.5:
        kind, cure = "the same for all of a class", "try balance: sinkhorn, or raise entropy_weight"
    return f"the generated labels say {share:.1%} of what they could say of an image: they are {kind}; {cure}"


def _begin(sub_classes: Sequence[int], images: int, device: torch.device) -> _Collected:
    return _Collected(
        LabelUsage(sub_classes).to(device),
        LabelOverlap(sub_classes).to(device),
        TypicalImages(sum(sub_classes), images, THUMBNAIL).to(device),
        MeanMetric().to(device),
        MeanMetric().to(device),
    )


def _usage_values(used: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """What is logged of the usage; nothing of primary classes that do not occur."""
    counts = zip(names, used["used"], strict=True)
    values = {f"val/label_used_{name}": count for name, count in counts if not count.isnan()}
    means = {"entropy": "entropy", "confidence": "confidence", "surety": "surety", "bits": "information"}
    means["information"] = "information_share"
    return values | {f"val/label_{name}": used[key].nanmean() for name, key in means.items()}


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
    numbers = zip(owners, used["share"].tolist(), used["probability"].tolist(), typical, strict=True)
    rows = [
        [*owner, f"{share:.4f}", f"{probability:.4f}", " ".join(str(index) for index in images.indices)]
        for owner, share, probability, images in numbers
    ]
    write_table(path, [["class", "sub_class", "share", "mean_probability", "typical_images"], *rows])


def _fitting(trainer: L.Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING


def _moment(trainer: L.Trainer) -> str:
    return f"epoch_{trainer.current_epoch:03d}" if _fitting(trainer) else "val"
