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
# # Combine priors, and compare
#
# A *prior* is something that is known beforehand: where the bird is in the picture, which species
# it is. Several of them fit into one classifier. Whether that is worth it says only a comparison,
# with several seeds and the same rules for all.
#
# This notebook combines two priors, writes the plan of a small comparison, runs it, and reads the
# report.

# %%
import warnings

warnings.filterwarnings("ignore")  # advice on loader processes and the like

# %%
import contextlib
import csv
import io
import logging
import os
import tempfile
from pathlib import Path

import lightning as L
import PIL.Image
import torch
from IPython.display import Markdown

from lightning_priors import AuxiliaryTasks, CAMRestriction, Combined, PriorDataModule, Restriction
from lightning_priors.compare import main as compare
from lightning_priors.data.sources import Kakapo

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
torch.set_num_threads(1)  # the pictures are small; and with one thread the numbers repeat
os.chdir(tempfile.mkdtemp())  # all that the notebook writes goes into a temporary folder

# %% [markdown]
# ## Several priors in one classifier
#
# `Restriction` keeps the evidence for the label inside the bird's mask. `AuxiliaryTasks` learns the
# species as a second question beside "kakapo or another bird?". `Combined` takes any list of
# priors, also of your own. Each adds its term to the loss:

# %%
data = PriorDataModule(Kakapo(train_size=64, val_size=16, test_size=16), image_size=64)
data.setup()
batch = next(iter(data.train_dataloader()))

L.seed_everything(0, verbose=False)
model = Combined(
    [Restriction(weight=3.0), AuxiliaryTasks(exclude_target=True)],
    num_classes=2,
    aux_num_classes=data.aux_num_classes,
)
step = model.step(batch)
for name, term in step.terms.items():
    print(f"{name:12} {term.item():.3f}")
print(f"{'loss':12} {step.loss.item():.3f}")

# %% [markdown]
# The techniques with a name of their own are the same thing with one prior in it. From the same
# seed `CAMRestriction` and a `Combined` of one `Restriction` have the same loss to the last bit:

# %%
L.seed_everything(0, verbose=False)
alone = CAMRestriction(num_classes=2, weight=3.0).step(batch).loss
L.seed_everything(0, verbose=False)
combined = Combined([Restriction(weight=3.0)], num_classes=2).step(batch).loss
print(bool(alone == combined))

# %% [markdown]
# ## A plan
#
# A plan is a file. What all runs share stands in `options`; each entry of `runs` adds its own. The
# first run is the one that the others are compared with. Every config is trained with every seed on
# the same pictures, its checkpoint is selected on validation pictures by the same rule, and that
# checkpoint is tested once.
#
# The pictures are drawn. In 95 % of the training pictures the place gives the answer away: kakapos
# sit on land, other birds are in the open. In the test it does not. With so few small pictures, and
# with validation only once, after the last epoch, this shows how the tool works and measures
# little.

# %%
Path("birds.yaml").write_text("""
output: comparison
seeds: [0, 1, 2]
options:
  - --data.source=Kakapo
  - --data.source.train_size=240
  - --data.source.val_size=60
  - --data.source.test_size=120
  - --data.source.size=48
  - --data.image_size=48
  - --data.augmentation=none
  - --model.lr=0.005
  - --trainer.max_epochs=8
  - --trainer.check_val_every_n_epoch=8
  - --trainer.accelerator=cpu
runs:
  plain: {options: [--model=Pretrained]}
  restricted: {options: [--model=CAMRestriction, --model.weight=3]}
  combined:
    options:
      - --model=Combined
      - "--model.priors=[{class_path: Restriction, init_args: {weight: 3}}, AuxiliaryTasks]"
columns: [test/acc, test/worst_group_acc, test/epg]
""")
print("the plan is written")

# %% [markdown]
# In a shell the comparison is `lightning-priors compare -c birds.yaml`. If it is interrupted, the
# same command goes on where it was, and `--jobs 2` does two runs at a time. It prints how long each
# run takes; that is left out here.

# %%
with contextlib.redirect_stdout(io.StringIO()):
    compare(["-c", "birds.yaml"])
for path in sorted(Path("comparison").iterdir()):
    print(path)

# %% [markdown]
# ## The runs
#
# `runs.csv` has a row for each run. A seed changes the weights that the networks begin with, so the
# same seed in two configs is a pair.

# %%
with open("comparison/runs.csv", newline="") as file:
    rows = list(csv.DictReader(file))
metric = "test/worst_group_acc"
print(f"{metric:22}" + "".join(f"   seed {seed}" for seed in range(3)))
for run in ("plain", "restricted", "combined"):
    values = [float(row[metric]) for row in rows if row["run"] == run]
    print(f"{run:22}" + "".join(f"{value:9.3f}" for value in values))

# %% [markdown]
# The *worst group* is the one with the lowest accuracy of the four groups: kakapo or not, on land
# or in the open. A network that goes by the place fails there.
#
# ## The report
#
# `summary.md` has the table for a paper or a colleague, and `report.html` the same as a page with
# pictures. The first table has mean and standard deviation over the seeds. The second has the
# difference to the first config, seed by seed, and in brackets its 95 % interval.

# %%
Markdown(Path("comparison/summary.md").read_text().replace("# ", "### ", 1))

# %% [markdown]
# How to read it:
#
# - The intervals of both configs are above zero, so the restriction *looks* better than plain
#   training. But the report does not call it shown. Of three pairs even the best result, three
#   times the same sign, comes up by chance in one of four cases; that is the p of 0.25. With two
#   configs to compare, seven seeds are the fewest that can show a difference; `--seeds
#   0,1,2,3,4,5,6` runs the four that are missing and keeps the others.
# - An interval that has zero in it says: these seeds do not tell whether there is a difference.
# - *EPG* (energy pointing game) is the share of the evidence for the true class that lies inside
#   the bird's mask. It says whether the restriction did what it was asked to, and not whether that
#   was useful. For that read the accuracy.
# - Seeds change the first weights, not the pictures. So all this speaks of these pictures alone;
#   `--splits 3` draws others.
#
# One picture shows what each config looked at, cold for a kakapo and warm for another bird:

# %%
picture = PIL.Image.open("comparison/comparison.png").convert("RGB")
picture.resize((440, picture.height * 440 // picture.width)).quantize(64)

# %% [markdown]
# Is the combination better than the restriction alone? The table compares both with plain training.
# For the other question name `restricted` first in the plan, or look at the pairs:

# %%
for seed in range(3):
    alone, both = (
        next(float(row[metric]) for row in rows if row["run"] == run and row["seed"] == str(seed))
        for run in ("restricted", "combined")
    )
    print(f"seed {seed}: the species change the worst group's accuracy by {both - alone:+.3f}")

# %% [markdown]
# The signs differ, so these three pairs do not tell. What combinations and finer labels are worth
# on larger data is in the repository's front page and in `docs/results`.
