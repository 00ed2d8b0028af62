"""What the compared networks look at, in the same images side by side."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.utils.data import default_collate

from lightning_priors.batch import PriorBatch, PriorSample
from lightning_priors.callbacks.cam_panel import collect_evidence, place
from lightning_priors.callbacks.drawing import draw_comparison
from lightning_priors.cli.quiet import less_warnings
from lightning_priors.compare.resolve import Task
from lightning_priors.compare.rows import Row
from lightning_priors.compare.run import PreparedFit, logged_to
from lightning_priors.data import PriorDataModule
from lightning_priors.whole_files import write_figure


def evenly_chosen(samples: Iterable[PriorSample], number: int) -> list[PriorSample]:
    """Images that hold all classes, and in each class all groups, as evenly as can be; the earliest of each.

    Args:
        samples: Images in their order.
        number: How many to choose.

    Returns:
        The chosen ones, sorted by label and group.

    >>> import torch
    >>> labels = [0, 0, 0, 1]
    >>> samples = [{"label": torch.tensor(label), "index": torch.tensor(i)} for i, label in enumerate(labels)]
    >>> [int(sample["index"]) for sample in evenly_chosen(samples, 2)]
    [0, 3]
    """
    cells: list[tuple[int, int]] = []
    chosen: list[PriorSample] = []
    for sample in samples:
        cell = int(sample["label"]), int(sample.get("group", sample["label"]))
        position = place(cells, cell, number)
        if position is not None:
            cells[position : position + 1], chosen[position : position + 1] = [cell], [sample]
    order = sorted(range(len(chosen)), key=lambda position: cells[position])
    return [chosen[position] for position in order]


@less_warnings()
def draw_picture(tasks: Sequence[Task], rows: Sequence[Row], output: Path, number: int = 4) -> Path | None:
    """Draws a few validation images with the evidence of every config's network.

    Shown are the runs of the first split and seed that most configs have.

    Runs whose checkpoint has been deleted since are left out.

    Args:
        tasks: All runs.
        rows: The finished ones.
        output: Folder for the picture.
        number: How many images.

    Returns:
        The picture's path; None where no checkpoint is left.
    """
    finished = {row.key: row for row in rows if Path(row.checkpoint).is_file()}
    if not finished:
        return None
    places = [(task.split, task.seed) for task in tasks if task.key in finished]
    place_of_most = max(dict.fromkeys(places), key=places.count)
    shown = [task for task in tasks if (task.split, task.seed) == place_of_most and task.key in finished]
    # nothing is run, so nothing is written to the folder
    with TemporaryDirectory() as folder, logged_to(output / "comparison.log"):
        prepared = {task.run: PreparedFit(task.arguments, Path(folder), []) for task in shown}
    data: PriorDataModule = prepared[shown[0].run].datamodule
    data.setup("validate")
    images = data.val_dataloader().dataset
    batch: PriorBatch = default_collate(evenly_chosen((images[i] for i in range(len(images))), number))  # type: ignore[arg-type]
    evidence = {}
    for task in shown:
        checkpoint = torch.load(finished[task.key].checkpoint, map_location="cpu", weights_only=True)
        prepared[task.run].model.load_state_dict(checkpoint["state_dict"])
        evidence[task.run] = collect_evidence(prepared[task.run].model, batch["image"])
    path = output / "comparison.png"
    write_figure(path, draw_comparison(batch, evidence, data.classes))
    return path
