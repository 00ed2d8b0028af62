# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What MAXL invents
#
# A classifier can learn better when it has to answer a finer question too, such as which character
# it sees and not only which group of characters. That second question is an *auxiliary task*, and
# its labels come from a person.
#
# MAXL (Liu, Davison and Johns 2019, "Self-Supervised Generalisation with Meta Auxiliary Learning")
# does without the person. A second network, the *label generator*, divides each class into
# sub-classes. It gives every picture a *soft label*, a probability for each sub-class, and the
# classifier learns these labels beside its own. The generator is trained so that the classifier's
# own loss falls after its next step.
#
# This notebook looks at three things: what the generated labels say of a picture, measured in bits;
# what happens when the generator is pushed; and how the derivative that the generator learns from
# is computed, and that it is exact.

# %%
import warnings

warnings.filterwarnings("ignore")  # advice on loader processes and the like

# %%
import io
import logging
import tempfile
from pathlib import Path

import lightning as L
import PIL.Image
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn

from lightning_priors import MAXL, PriorDataModule
from lightning_priors.callbacks import LabelReport
from lightning_priors.data.sources import Glyphs
from lightning_priors.hypergradient import InnerStep, named_gradients, unrolled_label_gradient
from lightning_priors.metrics import LabelUsage

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
torch.set_num_threads(1)  # the pictures are small; and with one thread the numbers repeat


def small(figure, dpi=80):
    """Turns a figure into a picture of few colours, so that this page stays small."""
    file = io.BytesIO()
    figure.savefig(file, dpi=dpi)
    return PIL.Image.open(file).convert("RGB").quantize(48)


# %% [markdown]
# ## Train it
#
# The task: letters and digits in five mixed groups, drawn in fonts that validation does not share.
# Here finer labels of a person do help (see [finer labels](finer_labels.ipynb)). The generator may
# divide each group into ten sub-classes. The callback `LabelReport` looks at the labels of the
# validation pictures, and warns when they say nothing.

# %%
data = PriorDataModule(Glyphs(940, 470, 10), image_size=48, augmentation="none")


def trained(**options):
    """Trains MAXL for six epochs and prints what LabelReport says."""
    L.seed_everything(0, verbose=False)
    model = MAXL(num_classes=5, subclasses=10, lr=2e-3, **options)
    trainer = L.Trainer(
        max_epochs=6,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        check_val_every_n_epoch=3,
        callbacks=[LabelReport()],
        default_root_dir=tempfile.mkdtemp(),
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trainer.fit(model, data)
    for warning in said:
        if "LabelReport" in str(warning.message):
            print(warning.message)
    for name in (
        "acc",
        "label_bits",
        "label_information",
        "label_surety",
        "label_ami_within_character",
    ):
        print(f"  val/{name:28}{trainer.callback_metrics[f'val/{name}']:.3f}")
    return model, trainer


default, _ = trained()

# %% [markdown]
# What these numbers are:
#
# - `label_bits`: the *mutual information* of a picture and its label, within a class. That is how
#   many yes-or-no questions about the picture the label answers, on average. A sure division into
#   ten equal parts would have log2(10) = 3.32 bits.
# - `label_information`: the same as a share of what is possible.
# - `label_surety`: 0 if all sub-classes are equally probable for every picture, 1 if one of them is
#   certain.
# - `label_ami_within_character`: how well the most probable sub-classes agree with the characters,
#   within the groups. 0 is chance, 1 is the same division.
#
# So the labels say next to nothing. The generator leaves them nearly *uniform*: all sub-classes
# alike, for every picture. This is what MAXL does here by default, and the published form of it as
# well.
#
# ## Push the generator
#
# The warning says what to turn. With an update at every step, here from half of each batch, and
# thirty times the learning rate, the labels say more:

# %%
pushed, trainer = trained(generator_every=1, meta_batch="half", generator_lr=3e-2)

# %% [markdown]
# The labels now say 1.3 bits of a picture, 40 % of what they could. But they agree with the
# characters no better than before: what they say is something else.
#
# For comparison the labels of a person, the characters, and labels that are uniform. A row of each
# picture is one validation picture of the first group, ordered by character, a column is a
# sub-class, and black is certain.

# %%
batches = list(data.val_dataloader())
label = torch.cat([batch["label"] for batch in batches])
character = torch.cat([batch["aux_labels"][:, 0] for batch in batches])

order = torch.zeros(47, dtype=torch.long)  # the number of each character within its group
for group in range(5):
    members = character[label == group].unique()
    order[members] = torch.arange(len(members))
person = F.one_hot(label * 10 + order[character], 50).float()
uniform = F.one_hot(label, 5).repeat_interleave(10, dim=1) / 10

with torch.no_grad():
    labels = {
        "uniform": uniform,
        "MAXL": torch.cat([default.eval().auxiliary_labels(batch) for batch in batches]),
        "MAXL, pushed": torch.cat([pushed.eval().auxiliary_labels(batch) for batch in batches]),
        "a person": person,
    }

figure = Figure(figsize=(8, 4), layout="constrained")
for axes, (name, soft) in zip(figure.subplots(1, 4), labels.items()):
    usage = LabelUsage([10] * 5)
    usage.update(soft, label)
    bits = usage.compute()["information"].mean()
    rows = (label == 0).nonzero()[:, 0]
    rows = rows[character[rows].argsort(stable=True)]
    axes.imshow(
        soft[rows, :10], cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest"
    )
    axes.set_title(f"{name}\n{bits:.2f} bits", fontsize=10)
    axes.set_xlabel("sub-class")
    axes.set_xticks([])
    axes.set_yticks([])
figure.axes[0].set_ylabel("pictures, by character")
small(figure)

# %% [markdown]
# What does the pushed generator tell apart? These are the validation pictures most typical of each
# sub-class of the first group, with the share of the group's pictures that the sub-class has. Some
# rows have a shape in common, such as the letters with one arm in the fourth, and most have not.

# %%
sheet = PIL.Image.open(sorted(Path(trainer.default_root_dir, "panels").glob("labels_*.png"))[-1])
sheet.convert("RGB").crop((0, 0, sheet.width, 545)).quantize(16)

# %% [markdown]
# ## Is it worth anything?
#
# Not here: labels that say more are not yet labels that help. Over five seeds, with checkpoints
# selected on validation and 1,410 test pictures (`docs/results/maxl_search.md`), in points of test
# accuracy over training without auxiliary labels:
#
# | labels | difference | 95 % interval |
# |---|---|---|
# | a person's characters | **+5.2** | [+3.7, +6.6] |
# | at random | -1.5 | [-3.2, +0.4] |
# | an untrained generator | +0.9 | [-0.1, +1.9] |
# | `MAXL` | -0.3 | [-2.1, +2.0] |
# | `PublishedMAXL`, double backward | +0.7 | [-0.4, +2.1] |
#
# The reason is not the derivative, which is exact, as follows. It is the aim: what finer labels are
# good for shows about a hundred steps later and on unlike pictures, while MAXL looks one step ahead
# on training pictures. If you have finer labels, use `Auxiliary`. If you have none, MAXL is for
# research on this question.
#
# ## The derivative, checked
#
# The generator has to know how the loss *after* a step of the classifier changes with the labels
# *in* that step. The usual way is *double backward*: keep the graph of the gradient, take the step
# within the graph, and differentiate all of it. `InnerStep` uses that the loss is linear in the
# labels. Then one forward-mode derivative of the network, along one direction, gives the same
# numbers. In float64, where rounding is at 1e-16, with AdamW after a few steps, so that its moments
# matter:


# %%
class TwoHeads(nn.Module):
    """A small network with a primary head and an auxiliary one."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh())
        self.primary, self.auxiliary = nn.Linear(16, 3), nn.Linear(16, 12)

    def forward(self, x):
        """Logits of both tasks."""
        features = self.features(x)
        return self.primary(features), self.auxiliary(features)


def costs(outputs):
    """What each sub-class would cost each picture (B, 12)."""
    return -outputs[1].log_softmax(1)


torch.manual_seed(0)
network = TwoHeads().double()
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
x, next_x = torch.randn(2, 32, 6, dtype=torch.float64)
y, next_y = torch.randint(3, (2, 32))
q = torch.rand(32, 12, dtype=torch.float64).softmax(1)  # the labels


def inner_loss(outputs, q):
    """The loss that the step lowers: that of the primary task and that of the labels."""
    return F.cross_entropy(outputs[0], y) + (q * costs(outputs)).sum(1).mean()


def meta_loss(outputs):
    """The primary loss of the next pictures."""
    return F.cross_entropy(outputs[0], next_y)


for _ in range(5):
    optimizer.zero_grad()
    inner_loss(network(x), q).backward()
    optimizer.step()

reference = unrolled_label_gradient(network, optimizer, (x,), q, inner_loss, (next_x,), meta_loss)

optimizer.zero_grad()
inner_loss(network(x), q).backward()
step = InnerStep(network, optimizer)
optimizer.step()
v = named_gradients(meta_loss(network(next_x)), dict(network.named_parameters()))
exact = step.label_gradient((x,), costs, v)

print(f"largest derivative:  {reference.abs().max():.1e}")
print(f"largest difference:  {(exact - reference).abs().max():.1e}")

# %% [markdown]
# The double backward is done in one function, `unrolled_label_gradient`, at several times the cost
# of a step. The two calls around `optimizer.step()` need no graph of the step at all.
