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
# # Where does it look? Restriction and attention
#
# A classifier may give the right answer for the wrong reason. Here it is asked whether a bird is a
# kakapo, a parrot that cannot fly. In 95 % of the training pictures the place gives the answer
# away: kakapos sit on land, other birds are in the open, before sky or water. A network that learns
# the place is right nearly always, until it meets a kakapo at the water.
#
# This notebook trains the same network three times: as usual, with its evidence kept on the bird
# (*restriction*), and with features that are weighed by a map of where to look (*attention*). The
# pictures are drawn, so their masks, which say where the bird is, are exact.

# %%
import warnings

warnings.filterwarnings("ignore")  # advice on loader processes and the like

# %%
import io
import logging

import lightning as L
import PIL.Image
import torch
from matplotlib.figure import Figure
from torch.utils.data import default_collate

from lightning_priors import CAMRestriction, Pretrained, PriorAttention, PriorDataModule
from lightning_priors.callbacks import collect_evidence, draw_comparison, draw_panel
from lightning_priors.data.sources import Kakapo
from lightning_priors.functional import signed_cam

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
torch.set_num_threads(1)  # the pictures are small; and with one thread the numbers repeat


def small(figure, dpi=64):
    """Turns a figure into a picture of few colours, so that this page stays small."""
    file = io.BytesIO()
    figure.savefig(file, dpi=dpi)
    return PIL.Image.open(file).convert("RGB").quantize(96)


# %% [markdown]
# ## The four groups
#
# A class and a kind of place make a *group*. In validation and test the place has nothing to do
# with the bird, so all four groups are equally large there. The accuracy in the group that does
# worst shows whether a network goes by the place.

# %%
data = PriorDataModule(
    Kakapo(train_size=600, val_size=160, test_size=400, bias=0.95),
    image_size=64,
    augmentation="none",
)
data.setup()
for name, count in zip(data.source.group_names, data.group_counts()):
    print(f"{name:24} {count:4} training pictures")

# %% [markdown]
# ## Three classifiers
#
# - **Plain**: `Pretrained` without weights is training as usual.
# - **Restriction**: for each cell of a picture, a *class activation map* (CAM) says how much the
#   cell speaks for a class. `CAMRestriction` adds to the loss the share of the evidence for the
#   true class that lies outside of the bird's mask.
# - **Attention**: `PriorAttention` computes a map of where to look from the network's own features
#   and multiplies the features by it. In training this map is compared with the mask. With
#   `residual=False` cells that it does not look at are shut out.
#
# Training sees the masks. Validation and test see the picture alone. All three begin with the same
# weights. The weights of the added losses and the number of epochs were chosen on validation
# pictures.

# %%
techniques = {
    "plain": lambda: Pretrained(num_classes=2, lr=5e-3),
    "restriction": lambda: CAMRestriction(num_classes=2, lr=5e-3, weight=3.0),
    "attention": lambda: PriorAttention(num_classes=2, lr=5e-3, weight=2.0, residual=False),
}
models, results = {}, {}
for name, build in techniques.items():
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(
        max_epochs=8,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        check_val_every_n_epoch=8,
    )
    models[name] = build()
    trainer.fit(models[name], data)
    (results[name],) = trainer.test(models[name], data, verbose=False)

print(f"{'400 test pictures':18} accuracy  worst group   EPG")
for name, result in results.items():
    numbers = [result[f"test/{metric}"] for metric in ("acc", "worst_group_acc", "epg")]
    print("{:18} {:8.2f} {:12.2f} {:5.2f}".format(name, *numbers))

# %% [markdown]
# The last column is the *energy pointing game* (EPG): the share of the positive evidence for the
# true class that lies inside of the mask, as a mean over the pictures. Evidence that is spread
# evenly would have the share of the picture that the bird covers, about a quarter.
#
# And the accuracy in each group:

# %%
with torch.no_grad():
    batches = [
        (
            batch["group"],
            batch["label"],
            {name: model.eval()(batch["image"]) for name, model in models.items()},
        )
        for batch in data.test_dataloader()
    ]
group, label = (torch.cat([batch[part] for batch in batches]) for part in (0, 1))

figure = Figure(figsize=(8, 2.8), layout="constrained")
axes = figure.subplots()
for number, name in enumerate(models):
    right = torch.cat([logits[name] for _, _, logits in batches]).argmax(1) == label
    shares = [float(right[group == which].float().mean()) for which in range(4)]
    places = [which + 0.27 * (number - 1) for which in range(4)]
    axes.bar(
        places, shares, width=0.25, label=name, color=["#9a9a9a", "#1f5fbe", "#78149f"][number]
    )
axes.set_xticks(range(4), data.source.group_names)
axes.set_ylabel("accuracy")
axes.set_ylim(0, 1)
axes.spines[["top", "right"]].set_visible(False)
figure.legend(loc="outside upper center", ncols=3, frameon=False)
small(figure, dpi=90)

# %% [markdown]
# The plain network is right where the place agrees with the bird (the first and the last group),
# and wrong where it does not.
#
# ## The evidence adds up to the answer
#
# All techniques here end in the same way: a linear map on each cell of the features, then the mean
# over the cells. So the map is no picture drawn afterwards. Its mean, plus a bias, *is* the
# *logit*, the score that the class gets:

# %%
# the first test picture of each of the two groups whose place misleads
chosen = [int((group == which).nonzero()[0]) for which in (1, 2)]
batch = default_collate([data.datasets["test"][number] for number in chosen])
model = models["restriction"]
with torch.no_grad():
    logits, cam = model.explain(batch["image"])
    bias = model.classifier.head.bias
    print("logits:          ", logits[0])
    print("mean(CAM) + bias:", cam[0].mean((1, 2)) + bias)

# %% [markdown]
# With two classes one map is enough, the map of the second class less that of the first. It is
# negative where the picture speaks for a kakapo, drawn cold, and positive where it speaks for
# another bird, drawn warm. Its mean plus the difference of the biases is the *log-odds*, and their
# sign is the answer.

# %%
signed = signed_cam(cam)[0]
print(f"log-odds: {logits[0, 1] - logits[0, 0]:.4f}")
print(f"mean of the cells + bias: {signed.mean() + bias[1] - bias[0]:.4f}")
one = {key: value[:1] for key, value in batch.items()}
small(draw_panel(one, collect_evidence(model, one["image"]), data.classes), dpi=72)

# %% [markdown]
# ## Two pictures, seen by all three
#
# A kakapo in the open, and another bird on land. The yellow line is the outline of the mask. The
# box and the circles are the head and its keypoints, which are not used here.

# %%
evidence = {name: collect_evidence(model, batch["image"]) for name, model in models.items()}
small(draw_comparison(batch, evidence, data.classes), dpi=64)

# %% [markdown]
# ## What to keep in mind
#
# - These are one seed and a few hundred pictures. The repository's front page has means over three
#   seeds, also on photographs.
# - Evidence inside the mask is no proof that the answer comes from the bird: with a deep network a
#   cell on the bird has also seen what is around it. So look at the worst group too, where groups
#   are known. `CAMRestriction(exchange_background=True)` takes the background's meaning away in
#   training.
# - Not every picture needs a mask. Pictures without one train as usual, or with
#   `found_regions=True` are restricted to the region that the network finds in them.
