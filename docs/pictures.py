"""Draws the pictures of the documentation, each in a light and a dark version: ``python docs/pictures.py [NAME ...]``.

The networks in them are trained on drawn birds while the script runs, which takes some minutes.
"""

import functools
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import lightning as L
import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyBboxPatch, Rectangle
from PIL import Image
from torch import Tensor, nn

from lightning_priors import CAMRestriction, GlobalLocal, Pretrained, PriorAttention, PriorDataModule, Tuning
from lightning_priors.batch import PriorBatch, checked
from lightning_priors.callbacks.background_exchange import exchange_backgrounds
from lightning_priors.callbacks.drawing import ATTENTION, overlay, pictures, tint
from lightning_priors.data.sources import Glyphs, Kakapo
from lightning_priors.functional import prior_map, signed_cam, upsample
from lightning_priors.nn import Backbone
from lightning_priors.techniques.global_local import global_local as branches
from lightning_priors.techniques.maxl.soft_labels import hierarchy_mask, masked_softmax

FOLDER = Path(__file__).parent / "pictures"
LARGEST = 80_000  # bytes
FIRST = "restriction"  # the picture of the front page, larger than the others: a JPEG
BIRDS = (2, 3, 0, 13)  # of the validation images, one of each group
COLD, WARM, GOLD, GREEN, PURPLE = "#2f73c9", "#d5383c", "#e0a100", "#2e9150", "#8a46c2"


class Theme(NamedTuple):
    """The colours of a page."""

    name: str
    paper: str
    ink: str
    faint: str


THEMES = (Theme("light", "#ffffff", "#222222", "#e4e4e4"), Theme("dark", "#131416", "#dddddd", "#33363a"))


# ---- what the pictures are made of


@functools.cache
def kakapo() -> PriorDataModule:
    data = PriorDataModule(Kakapo(), image_size=64, augmentation="flip")
    data.prepare_data()
    data.setup("fit")
    return data


@functools.cache
def birds() -> PriorBatch:
    samples = [kakapo().datasets["val"][number] for number in BIRDS]
    return checked(torch.utils.data.default_collate(samples))


@functools.cache
def trained(technique: type[L.LightningModule], **options: object) -> L.LightningModule:
    L.seed_everything(0)
    model = technique(lr=0.002, **options)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(max_epochs=6, accelerator="cpu", enable_model_summary=False, limit_val_batches=0, **quiet)
    trainer.fit(model, kakapo())
    return model.eval()


def evidence(model: L.LightningModule) -> Tensor:
    with torch.no_grad():
        return signed_cam(model.explain(birds()["image"])[1])


# ---- drawing


def show(ax: Axes, picture: np.ndarray | Tensor, title: str = "") -> None:
    ax.imshow(picture, interpolation="bicubic")
    ax.set_title(title, fontsize=9)
    ax.axis("off")


def box(ax: Axes, place: tuple[float, float, float, float], text: str, theme: Theme, edge: str = "") -> None:
    left, bottom, width, height = place
    style = {"facecolor": theme.faint, "edgecolor": edge or theme.ink, "linewidth": 1.6 if edge else 0.8}
    ax.add_patch(FancyBboxPatch((left, bottom), width, height, boxstyle="round,pad=0,rounding_size=0.08", **style))
    ax.text(left + width / 2, bottom + height / 2, text, ha="center", va="center", fontsize=9)


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, bend: float = 0.0) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.4, "shrinkA": 2, "shrinkB": 2}
    ax.annotate("", end, start, arrowprops={**style, "connectionstyle": f"arc3,rad={bend}"})


def sketch(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    return figure, ax


def gallery(rows: int, columns: int, heading: float = 0.0, side: float = 1.55) -> tuple[Figure, np.ndarray]:
    height = rows * side + heading
    figure = Figure(figsize=(columns * side, height))
    axes = figure.subplots(rows, columns, squeeze=False)
    top = 0.995 - heading / height
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.005, top=top, wspace=0.04, hspace=0.04)
    return figure, axes


def outline(ax: Axes, mask: Tensor) -> None:
    ax.contour(mask.numpy(), levels=[0.5], colors=[GOLD], linewidths=1.4)


def draw_box(ax: Axes, corners: Tensor, colour: str, line: str = "-") -> None:
    left, top, right, bottom = corners.tolist()
    style = {"fill": False, "edgecolor": colour, "linewidth": 1.6, "linestyle": line}
    ax.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, **style))


# ---- the pictures


def pretrained(theme: Theme) -> Figure:
    """Which layers learn in which epoch, and how fast."""
    backbone, epochs = Backbone("tf_efficientnet_lite0"), 8
    layers = len(backbone.layers())
    modes = {
        "full": Tuning(),
        "full, layer_decay 0.8": Tuning(layer_decay=0.8),
        "probe": Tuning(mode="probe"),
        "probe_then_tune": Tuning(mode="probe_then_tune", probe_epochs=2),
        "gradual": Tuning(mode="gradual"),
    }
    figure = Figure(figsize=(8.6, 2.3))
    axes = figure.subplots(1, len(modes), sharey=True)
    figure.subplots_adjust(left=0.07, right=0.99, bottom=0.2, top=0.88, wspace=0.12)
    for ax, (name, tuning) in zip(axes, modes.items(), strict=True):
        factors = tuning.factors(nn.ModuleDict({"backbone": backbone}))
        rates = [factors[layer[0]] for layer in reversed(backbone.layers())]
        learns = np.ones((layers + 1, epochs))
        learns[1:] = np.array(rates)[:, None]
        if tuning.mode == "probe":
            learns[1:] = 0
        elif tuning.mode == "probe_then_tune":
            learns[1:, : tuning.probe_epochs] = 0
        elif tuning.mode == "gradual":
            learns[1:] *= np.arange(epochs)[None] > np.arange(layers)[:, None]
        colour = np.array(matplotlib.colors.to_rgb(GREEN))
        paper = np.array(matplotlib.colors.to_rgb(theme.faint))
        ax.imshow(paper + (colour - paper) * learns[..., None], aspect="auto")
        ax.set_xticks(np.arange(epochs + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(layers + 2) - 0.5, minor=True)
        ax.grid(which="minor", color=theme.paper, linewidth=1)
        ax.tick_params(which="both", length=0)
        ax.set_xticks([0, epochs - 1], ["1", str(epochs)])
        ax.set_yticks([0, layers], ["head", "image"])
        ax.set_title(name, fontsize=9)
        ax.set_xlabel("epoch", fontsize=8)
    return figure


def global_local(theme: Theme) -> Figure:
    """The way of a picture through the two branches."""
    model = trained(GlobalLocal, crop_size=32, crop_scale=2.0, exchange_background=True, fusion="gate")
    batch = birds()
    crops = model.annotated_crops(batch)
    torch.manual_seed(1)
    seen = branches.cut_out(batch["image"], crops, 64)
    covered = branches.cut_out(batch["mask"].unsqueeze(1), crops, 64).squeeze(1)
    elsewhere = branches.exchange_backgrounds(seen, covered, batch["image"], crops)
    with torch.no_grad():
        found = model.found_crops(batch["image"], model.look_at_whole(batch["image"]))
    figure, axes = gallery(3, 4)
    for column in range(4):
        show(axes[0, column], pictures(batch["image"])[column])
        draw_box(axes[0, column], crops.parts[column], GOLD)
        draw_box(axes[0, column], found.parts[column], "#ffffff", "--")
        show(axes[1, column], pictures(seen)[column])
        show(axes[2, column], pictures(elsewhere)[column])
    return figure


def prior_attention(theme: Theme) -> Figure:
    """What the attention is taught, what it has learned, and what the classifier then uses."""
    model = trained(PriorAttention, residual=False, weight=2.0, prior="part_boxes", dilation=0.5, hard=True)
    batch = birds()
    taught, _ = prior_map(batch, (8, 8), prefer="part_boxes", dilation=0.5, hard=True)
    with torch.no_grad():
        attention = model.explain_maps(batch["image"])["attention"]
    shown = pictures(batch["image"])
    figure, axes = gallery(3, 4)
    for column in range(4):
        show(axes[0, column], shown[column])
        draw_box(axes[0, column], batch["part_boxes"][column, 0], GOLD)
        squares = taught[column].repeat_interleave(8, 0).repeat_interleave(8, 1)
        for row, large in enumerate((squares, upsample(attention[column][None], (64, 64))[0]), start=1):
            grey = shown[column].mean(2, keepdims=True).repeat(3, 2) * 0.4 + 150
            show(axes[row, column], tint(grey, large, 1.0, positive=ATTENTION))
    return figure


def cam_restriction(theme: Theme) -> Figure:
    """Where the evidence lies, without and with the restriction."""
    plain, restricted = evidence(trained(Pretrained)), evidence(trained(CAMRestriction))
    shown = pictures(birds()["image"])
    figure, axes = gallery(3, 4)
    for column in range(4):
        show(axes[0, column], shown[column])
        for row, cells in ((1, plain), (2, restricted)):
            show(axes[row, column], overlay(shown[column], cells[column]))
        for row in range(3):
            outline(axes[row, column], birds()["mask"][column])
    return figure


def restriction(theme: Theme) -> Figure:
    """The first picture: four birds, where two classifiers look, and what they say."""
    shown, labels = pictures(birds()["image"]), birds()["label"].tolist()
    models = {"as usual": trained(Pretrained), "told where\nto look": trained(CAMRestriction)}
    figure, axes = gallery(3, 4, heading=0.28, side=1.95)
    figure.subplots_adjust(left=0.115, hspace=0.17)
    for row, name in enumerate(["picture\nand mask", *models]):
        place = axes[row, 0].get_position()
        figure.text(0.108, (place.y0 + place.y1) / 2, name, ha="right", va="center", fontsize=10)
    for column, label in enumerate(labels):
        show(axes[0, column], shown[column])
        axes[0, column].set_title(kakapo().classes[label], fontsize=10)
        outline(axes[0, column], birds()["mask"][column])
    for row, model in enumerate(models.values(), start=1):
        with torch.no_grad():
            sure, said = model(birds()["image"]).softmax(1).max(1)
        cells = evidence(model)
        for column, label in enumerate(labels):
            show(axes[row, column], overlay(shown[column], cells[column]))
            outline(axes[row, column], birds()["mask"][column])
            right = bool(said[column] == label)
            text = f"{'✓' if right else '✗'} {kakapo().classes[int(said[column])]}, {sure[column]:.0%}"
            axes[row, column].set_title(text, fontsize=10, color=GREEN if right else WARM)
    return figure


def auxiliary(theme: Theme) -> Figure:
    """Two groups of characters, and the heads that learn groups and characters."""
    source = Glyphs(train_size=300, val_size=5, test_size=5)
    source.setup()
    figure, ax = sketch(8.4, 2.6)
    for row in (0, 1):
        chosen: dict[str, int] = {}
        for index in source.indices("train"):
            if source.label(index) == row:
                chosen.setdefault(str(source.character(index)), index)
        for column, index in enumerate(list(chosen.values())[:5]):
            left, bottom = 0.15 + 0.62 * column, 1.42 - 1.2 * row
            picture = source.load(index)["image"].permute(1, 2, 0).numpy()
            ax.imshow(picture, extent=(left, left + 0.58, bottom, bottom + 0.58), interpolation="bicubic", zorder=2)
            sample = source.load(index)
            name = source.aux_classes["character"][sample["aux_labels"][0]]
            ax.text(left + 0.29, bottom - 0.14, name, ha="center", fontsize=9, color=WARM)
        ax.text(0.15, 2.12 - 1.2 * row, source.classes[row], fontsize=9, color=COLD)
    ax.set(xlim=(0, 8.4), ylim=(0, 2.6), aspect="auto")
    box(ax, (3.9, 0.85, 1.3, 0.9), "backbone", theme)
    box(ax, (6.1, 1.55, 2.1, 0.62), "primary head:\nwhich group?", theme, COLD)
    box(ax, (6.1, 0.4, 2.1, 0.62), "auxiliary head:\nwhich character?", theme, WARM)
    arrow(ax, (3.3, 1.3), (3.9, 1.3), theme.ink)
    arrow(ax, (5.2, 1.45), (6.1, 1.86), COLD)
    arrow(ax, (5.2, 1.15), (6.1, 0.71), WARM)
    ax.text(7.15, 2.32, "the answer", ha="center", fontsize=8)
    ax.text(7.15, 0.14, "in training alone", ha="center", fontsize=8)
    return figure


def maxl(theme: Theme) -> Figure:
    """The loop in which the generator learns."""
    figure, ax = sketch(8.4, 3.1)
    box(ax, (0.15, 1.75, 1.5, 0.8), "images and\nclasses", theme)
    box(ax, (2.25, 2.15, 1.7, 0.7), "generator", theme, WARM)
    box(ax, (2.25, 1.05, 1.7, 0.7), "network\nat θ", theme, COLD)
    box(ax, (4.75, 1.05, 1.5, 0.7), "network\nat θ⁺", theme, COLD)
    box(ax, (6.85, 1.05, 1.4, 0.7), "primary loss,\nnext batch", theme)
    arrow(ax, (1.65, 2.3), (2.25, 2.5), theme.ink)
    arrow(ax, (1.65, 2.0), (2.25, 1.4), theme.ink)
    arrow(ax, (3.95, 1.4), (4.75, 1.4), COLD)
    ax.text(4.35, 1.5, "step", ha="center", fontsize=8, color=COLD)
    arrow(ax, (6.25, 1.4), (6.85, 1.4), COLD)
    arrow(ax, (7.55, 1.05), (3.1, 1.02), GREEN, bend=-0.14)
    ax.text(5.3, 0.3, "which labels would have made this loss smaller?", ha="center", fontsize=8, color=GREEN)
    labels = masked_softmax(torch.tensor([[0.3, 1.6, -0.4, 0.0, 0.0, 0.0]]), hierarchy_mask([3, 3])[:1])[0]
    for number, share in enumerate(labels.tolist()):
        left = 4.85 + 0.24 * number
        ax.add_patch(Rectangle((left, 2.25), 0.18, 0.62 * share + 0.015, color=WARM if number < 3 else theme.faint))
    ax.text(5.55, 2.0, "soft label: only sub-classes\nof the image's own class", ha="center", va="center", fontsize=8)
    arrow(ax, (3.95, 2.5), (4.75, 2.5), WARM)
    arrow(ax, (4.7, 2.3), (3.75, 1.75), WARM, bend=0.1)
    arrow(ax, (2.5, 1.05), (2.3, 2.15), GREEN, bend=-0.75)
    return figure


def baselines(theme: Theme) -> Figure:
    """The four groups of the drawn birds, and the same birds before other backgrounds."""
    torch.manual_seed(9)
    batch, data = birds(), kakapo()
    names, counts = data.source.group_names, data.group_counts()
    exchanged = exchange_backgrounds(batch)
    figure, axes = gallery(2, 4, heading=0.4)
    for column in range(4):
        group = int(batch["group"][column])
        show(axes[0, column], pictures(batch["image"])[column], f"{names[group]}\n{counts[group]} in training")
        show(axes[1, column], pictures(exchanged)[column])
    return figure


def priors(theme: Theme) -> Figure:
    """Where priors act on a classifier."""
    figure, ax = sketch(8.4, 2.5)
    for number, (text, left) in enumerate(
        (("image", 0.1), ("early\nlayers", 1.5), ("late\nlayers", 3.7), ("head", 5.6))
    ):
        box(ax, (left, 1.3, 1.0, 0.7), text, theme)
        if number:
            arrow(ax, ({1: 1.1, 2: 2.5, 3: 4.7}[number], 1.65), (left, 1.65), theme.ink)
    box(ax, (7.1, 1.3, 1.2, 0.7), "loss", theme)
    arrow(ax, (6.6, 1.65), (7.1, 1.65), theme.ink)
    arrow(ax, (2.95, 0.75), (3.1, 1.6), PURPLE)
    ax.text(2.95, 0.62, "act: weigh or replace\na feature map", ha="center", va="top", fontsize=9, color=PURPLE)
    arrow(ax, (6.25, 0.72), (6.82, 1.6), GOLD)
    ax.text(5.6, 0.62, "cell_weights: which cells\ncount in training", ha="center", va="top", fontsize=9, color=GOLD)
    arrow(ax, (7.7, 0.75), (7.7, 1.3), GREEN)
    ax.text(7.65, 0.62, "terms: add\nto the loss", ha="center", va="top", fontsize=9, color=GREEN)
    ax.add_patch(Ellipse((3.1, 1.65), 0.1, 0.1, color=PURPLE))
    return figure


DRAWN: dict[str, Callable[[Theme], Figure]] = {
    **{"pretrained": pretrained, "global_local": global_local, "prior_attention": prior_attention},
    **{"cam_restriction": cam_restriction, "auxiliary": auxiliary, "maxl": maxl, "baselines": baselines},
    **{"priors": priors, "restriction": restriction},
}
SKETCHES = ("pretrained", "maxl", "priors")


def save(name: str, theme: Theme) -> None:
    colours = {"text.color": theme.ink, "axes.labelcolor": theme.ink, "xtick.color": theme.ink}
    colours |= {"ytick.color": theme.ink, "axes.edgecolor": theme.paper, "svg.hashsalt": name}
    with matplotlib.rc_context(colours):
        figure = DRAWN[name](theme)
        suffix = "svg" if name in SKETCHES else "jpg" if name == FIRST else "png"
        path = FOLDER / f"{name}_{theme.name}.{suffix}"
        if name in SKETCHES:
            figure.savefig(path, facecolor=theme.paper, metadata={"Date": None})
        elif name == FIRST:
            figure.savefig(path, dpi=104, facecolor=theme.paper, pil_kwargs={"quality": 85})
        else:
            drawn = io.BytesIO()
            figure.savefig(drawn, dpi=96, facecolor=theme.paper)
            whole = Image.open(drawn).convert("RGB")
            for count in (256, 128, 64, 48, 32):
                whole.quantize(count, method=Image.Quantize.MEDIANCUT).save(path, optimize=True)
                if path.stat().st_size <= LARGEST:
                    break
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    for wanted in sys.argv[1:] or DRAWN:
        for either in THEMES:
            save(wanted, either)
