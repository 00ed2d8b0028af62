"""What the network looks at in a few images, drawn while it is trained."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, cast, runtime_checkable

import lightning as L
import torch
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from lightning_priors.batch import PriorBatch
from lightning_priors.callbacks.drawing import Evidence, draw_panel, inside_share, pictures, shown_map
from lightning_priors.callbacks.evaluation import EvaluationCallback
from lightning_priors.callbacks.logged_picture import log_picture
from lightning_priors.callbacks.run_folder import class_names, run_folder
from lightning_priors.errors import PriorError
from lightning_priors.functional.cam import upsample
from lightning_priors.whole_files import write_figure

STRONG = 0.25
"""Share of the greatest evidence in an image from which W&B's mask shows it."""


class Explains(Protocol):
    """A module that says what it looked at, such as every `PriorModule`."""

    def explain(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """From images (B, 3, H, W) gives logits (B, K) and class activation maps (B, K, h, w)."""


@runtime_checkable
class ExplainsMore(Protocol):
    """A module that has more to show than its class activation maps, such as attention."""

    def explain_maps(self, image: Tensor) -> dict[str, Tensor]:
        """From images (B, 3, H, W) gives further maps (B, h', w') by name, zero where nothing was looked at."""


class _Shown(NamedTuple):
    """One image of the panel."""

    cell: tuple[int, int]
    """Label and group."""
    sample: PriorBatch
    """One row, on the CPU."""
    evidence: Evidence
    """One row."""


def collect_evidence(module: nn.Module, image: Tensor) -> Evidence:
    """Asks a network about some images, without a gradient and without a trace.

    Batch normalisation and dropout are in evaluation mode; afterwards each part is in the mode that it was in, and
    the random number generators are where they were.

    Args:
        module: A module with `explain`, such as a `PriorModule`; it may have `explain_maps` too.
        image: (B, 3, H, W), normalised, on the module's device.

    Returns:
        The evidence, on the CPU.

    >>> from lightning_priors.techniques import CAMRestriction
    >>> evidence = collect_evidence(CAMRestriction(backbone="tiny"), torch.zeros(2, 3, 64, 64))
    >>> evidence.cam.shape
    torch.Size([2, 2, 8, 8])
    """
    modes = {part: part.training for part in module.modules()}
    try:
        module.eval()
        with torch.no_grad(), isolate_rng():
            logits, cam = cast(Explains, module).explain(image)
            further = module.explain_maps(image) if isinstance(module, ExplainsMore) else {}
    finally:
        for part, mode in modes.items():
            part.training = mode
    return Evidence(_plain(logits), _plain(cam), {name: _plain(maps) for name, maps in further.items()})


def place(chosen: Sequence[tuple[int, int]], new: tuple[int, int], limit: int) -> int | None:
    """Where an image goes in a small selection that is to hold all classes, and in each class all groups, evenly.

    Args:
        chosen: Label and group of the images chosen so far.
        new: Label and group of the image.
        limit: Size of the selection.

    Returns:
        A position in `chosen`, its end while there is room; None when the selection would not be more even.

    >>> place([(0, 0), (0, 1)], (1, 0), limit=3), place([(0, 0), (0, 1)], (1, 0), limit=2)
    (2, 1)
    >>> place([(0, 0), (1, 0)], (1, 1), limit=2) is None
    True
    """
    if len(chosen) < limit:
        return len(chosen)
    labels, cells = Counter(label for label, _ in chosen), Counter(chosen)

    def crowd(position: int) -> tuple[int, int, int]:
        return labels[chosen[position][0]], cells[chosen[position]], position

    most = max(range(limit), key=crowd)
    if labels[chosen[most][0]] - labels[new[0]] >= 2:
        return most
    same = [position for position in range(limit) if chosen[position][0] == new[0]]
    most = max(same, key=crowd, default=most)
    return most if same and cells[chosen[most]] - cells[new] >= 2 else None


class CAMPanel(EvaluationCallback):
    """Draws what the network looks at in a few validation images, side by side with the prior.

    The images are chosen evenly over classes and groups, and are the same in every epoch. The picture goes to
    ``panels/epoch_003.png`` in the run's folder (``val.png``, ``test.png`` outside of `fit`) and to ``val/panel`` of
    loggers that take pictures: W&B, TensorBoard, MLflow. Under W&B ``val/images`` has the images with priors and
    evidence as masks and boxes to switch on and off. Nothing is drawn in the sanity check or under ``fast_dev_run``.

    A module is asked through ``explain(image)``. If it has ``explain_maps(image)`` too, a dict of maps (B, h', w') by
    name, such as attention, these stand beside the evidence.

    Args:
        images: How many images.
        every_n_epochs: Epochs from one drawing to the next.

    Raises:
        PriorError: If a number is below 1; if the module has no `explain`; or if the weights are sharded over
            ranks, where one rank alone cannot look at an image.

    >>> CAMPanel(images=0)
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: CAMPanel: images is 1 or more, not 0
    """

    def __init__(self, images: int = 4, every_n_epochs: int = 1) -> None:
        for name, value in (("images", images), ("every_n_epochs", every_n_epochs)):
            if value < 1:
                raise PriorError(f"{type(self).__name__}: {name} is 1 or more, not {value}")
        self.images, self.every_n_epochs = images, every_n_epochs
        self._shown: list[_Shown] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuses a module that cannot be asked."""
        if not callable(getattr(pl_module, "explain", None)):
            name = type(self).__name__
            raise PriorError(f"{name} needs a module with explain(image); {type(pl_module).__name__} has none")
        if isinstance(trainer.strategy, DeepSpeedStrategy | FSDPStrategy | ModelParallelStrategy):
            name = type(self).__name__
            raise PriorError(f"{name} does not work under {type(trainer.strategy).__name__}; leave the callback out")

    def begin(self) -> None:
        """Begins a new selection."""
        self._shown = []

    def _due(self, trainer: L.Trainer) -> bool:
        if trainer.sanity_checking or trainer.fast_dev_run or not trainer.is_global_zero:  # type: ignore[attr-defined]
            return False
        return not _fitting(trainer) or (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def see(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: PriorBatch) -> None:
        """Takes images into the selection and asks the network about them.

        At once and not at the end of the epoch, when averaged weights may have been swapped out again.
        """
        if not self._due(trainer):
            return
        labels = batch["label"].tolist()
        groups = batch["group"].tolist() if "group" in batch else [0] * len(labels)
        chosen: list[tuple[int, int]] = [shown.cell for shown in self._shown]
        rows: dict[int, int] = {}
        for row, cell in enumerate(zip(labels, groups, strict=True)):
            position = place(chosen, cell, self.images)
            if position is not None:
                chosen[position : position + 1] = [cell]
                rows[position] = row
        if not rows:
            return
        placed = sorted(rows.items())
        with trainer.precision_plugin.forward_context():
            evidence = collect_evidence(pl_module, batch["image"][[row for _, row in placed]])
        for number, (position, row) in enumerate(placed):
            sample = {key: _plain(value[row : row + 1]) for key, value in _known(batch).items()}
            shown = _Shown(chosen[position], cast(PriorBatch, sample), _rows(evidence, number))
            self._shown[position : position + 1] = [shown]

    def selection(self) -> tuple[PriorBatch, Evidence]:
        """Gives the selected images, at least one, by class and group, and what the network made of them."""
        shown = sorted(self._shown, key=lambda one: (one.cell, int(one.sample["index"])))
        batch = {key: torch.cat([_known(one.sample)[key] for one in shown]) for key in _known(shown[0].sample)}
        return cast(PriorBatch, batch), _stacked([one.evidence for one in shown])

    def finish(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: Literal["val", "test"]) -> None:
        """Draws the panel."""
        if not self._due(trainer) or not self._shown:
            return
        batch, evidence = self.selection()
        names = class_names(trainer, evidence.logits.shape[1])
        stage = "test" if trainer.testing else "val"
        name = f"epoch_{trainer.current_epoch:03d}" if _fitting(trainer) else stage
        path = run_folder(trainer) / "panels" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_figure(path, draw_panel(batch, evidence, names))
        self._shown = []
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                _log_to_wandb(logger, stage, trainer.global_step, path, batch, evidence, names)
            else:
                log_picture(logger, f"{stage}/panel", path, trainer.global_step)


def _log_to_wandb(
    logger: WandbLogger, stage: str, step: int, panel: Path, batch: PriorBatch, evidence: Evidence, names: list[str]
) -> None:
    """Logs through the run itself: `WandbLogger.log_image` would wrap the images anew, without masks and boxes."""
    import wandb

    size = (batch["image"].shape[2], batch["image"].shape[3])
    maps, inside = upsample(shown_map(evidence)[0], size), inside_share(batch, evidence)
    images = []
    for row, picture in enumerate(pictures(batch["image"])):
        probability, predicted = evidence.logits[row].softmax(0).max(0)
        caption = f"{names[int(batch['label'][row])]}, predicted {names[int(predicted)]} {float(probability):.2f}"
        caption += "" if inside[row] is None else f", {inside[row]:.2f} of the evidence inside the prior"
        masks, boxes = _masks(batch, row, maps[row], names), _boxes(batch, row)
        images.append(wandb.Image(picture, masks=masks, boxes=boxes, caption=caption))
    logged = {f"{stage}/panel": wandb.Image(str(panel)), f"{stage}/images": images, "trainer/global_step": step}
    logger.experiment.log(logged)


def _masks(batch: PriorBatch, row: int, evidence: Tensor, names: list[str]) -> dict[str, Any]:
    """The prior and the strong evidence of an image as W&B's masks: whole numbers (H, W) and what they stand for."""
    bound = STRONG * evidence.abs().amax()
    against, towards = (names[0], names[1]) if len(names) == 2 else ("another class", "the prediction")
    signs = (evidence > bound).int() * 2 + (evidence < -bound).int()
    labels = {0: "little evidence", 1: f"evidence for {against}", 2: f"evidence for {towards}"}
    masks: dict[str, Any] = {"evidence": {"mask_data": signs.numpy(), "class_labels": labels}}
    if "mask" in batch and batch["mask_valid"][row]:
        inside = (batch["mask"][row] > 0.5).int().numpy()
        masks["prior"] = {"mask_data": inside, "class_labels": {0: "outside the prior", 1: "prior"}}
    return masks


def _boxes(batch: PriorBatch, row: int) -> dict[str, Any] | None:
    """The part boxes of an image in W&B's form."""
    if "part_boxes" not in batch or not batch["part_valid"][row].any():
        return None
    sides, parts = ("minX", "minY", "maxX", "maxY"), batch["part_boxes"][row].tolist()
    boxes = [
        {"position": dict(zip(sides, corners, strict=True)), "domain": "pixel", "class_id": part}
        for part, corners in enumerate(parts)
        if batch["part_valid"][row, part]
    ]
    return {"prior": {"box_data": boxes, "class_labels": {part: f"part {part}" for part in range(len(parts))}}}


def _fitting(trainer: L.Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING


def _known(batch: PriorBatch) -> Mapping[str, Tensor]:
    """The entries of a batch that a `PriorBatch` can have."""
    return {key: cast(Mapping[str, Tensor], batch)[key] for key in PriorBatch.__annotations__ if key in batch}


def _rows(evidence: Evidence, row: int) -> Evidence:
    one = slice(row, row + 1)
    further = {name: maps[one] for name, maps in evidence.further.items()}
    return Evidence(evidence.logits[one], evidence.cam[one], further)


def _stacked(rows: Sequence[Evidence]) -> Evidence:
    further = {name: torch.cat([row.further[name] for row in rows]) for name in rows[0].further}
    return Evidence(torch.cat([row.logits for row in rows]), torch.cat([row.cam for row in rows]), further)


def _plain(values: Tensor) -> Tensor:
    """On the CPU, and in float32 if it was of any other floating type."""
    return values.detach().float().cpu() if values.is_floating_point() else values.cpu()
