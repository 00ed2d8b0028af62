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
# # Your own photographs in ten minutes
#
# This notebook takes a folder of pictures, looks at it, trains two classifiers, and asks them about
# pictures that they have never seen. One of the two is told where to look.
#
# The pictures are drawn here, so that the notebook runs everywhere and without a download. With
# your own photographs skip the cell that draws, and put your folder in its place.

# %%
import warnings

warnings.filterwarnings("ignore")  # advice on loader processes and the like

# %%
import logging
import os
import tempfile
from pathlib import Path

import lightning as L
import PIL.Image
import torch
from torch.utils.data import default_collate
from torchvision.transforms.v2.functional import to_pil_image

import lightning_priors
from lightning_priors import CAMRestriction, Pretrained, PriorDataModule
from lightning_priors.__main__ import main as lightning_priors_command
from lightning_priors.callbacks import Evidence, draw_comparison
from lightning_priors.data.sources import ImageFolderSource, Kakapo

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
torch.set_num_threads(1)  # the pictures are small; and with one thread the numbers repeat
os.chdir(tempfile.mkdtemp())  # all that the notebook writes goes into a temporary folder


def small(path, width):
    """Reads a picture and makes it smaller, with few colours, so that this page stays small."""
    picture = PIL.Image.open(path).convert("RGB")
    return picture.resize((width, picture.height * width // picture.width)).quantize(96)


# %% [markdown]
# ## The folder
#
# A picture lies in the folder of its split and its class: `my_birds/train/kakapo/001.png`. The
# splits are
#
# - `train`, from which the network learns;
# - `val` (validation), by which you choose between networks and options;
# - `test`, at which you look once, at the end.
#
# A *mask* says which pixels belong to the bird. It is a grey picture of the same name in
# `my_birds/masks`, white where the bird is. Masks are not needed, and some pictures may have one
# and others not. Only training uses them: to classify a picture, the picture is enough.
#
# The stand-in for your photographs: a kakapo is a flightless parrot that lives on the ground. So in
# photographs for training nearly all kakapos sit on forest floor or grass, and nearly all other
# birds are seen before sky or water. In `val` and `test` the place has nothing to do with the bird.

# %%
drawn = Kakapo(train_size=500, val_size=120, test_size=240, bias=0.95, size=64)
drawn.setup()
for split in ("train", "val", "test"):
    for number, index in enumerate(drawn.indices(split)):
        sample = drawn.load(index)
        label = drawn.classes[sample["label"]].replace(" ", "_")
        for top, picture in (("my_birds", sample["image"]), ("my_birds/masks", sample["mask"])):
            path = Path(top, split, label, f"{number:03}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            to_pil_image(picture).save(path)

for folder in sorted(Path("my_birds").glob("[tv]*/*")):
    print(f"{folder}: {len(list(folder.glob('*.png')))} pictures")

# %% [markdown]
# ## Look at the data first
#
# `inspect-data` reads every picture once. It counts, and it names files that cannot be read and
# pictures that two splits share. A small file says where the data is; in a shell the command is
# then
#
#     lightning-priors inspect-data -c my_birds.yaml
#
# The sheet shows some pictures of each split with the outlines of their masks, and the same
# pictures as training sees them.

# %%
Path("my_birds.yaml").write_text("""
data:
  source:
    class_path: ImageFolderSource
    init_args: {root: my_birds}
  image_size: 64
  augmentation: flip
""")
lightning_priors_command(["inspect-data", "-c", "my_birds.yaml", "--pictures", "6"])
small("inspection/inspection.png", width=700)

# %% [markdown]
# ## Train two classifiers
#
# `Pretrained` without weights is plain training. `CAMRestriction` is the same network with a second
# aim. It looks at the *class activation map* (CAM): for each cell of the picture, how much this
# cell speaks for a class. `CAMRestriction` adds to the loss the share of this evidence that lies
# outside of the mask.
#
# `tiny` is a network of four convolutions, trained from nothing. With photographs take a larger one
# with weights that have seen other photographs, such as `backbone="resnet18", weights="imagenet"`,
# and pictures of 128 or 224 pixels.

# %%
data = PriorDataModule(ImageFolderSource("my_birds"), image_size=64, augmentation="flip")
models = {
    "plain": lambda: Pretrained(num_classes=2, lr=5e-3),
    "restricted": lambda: CAMRestriction(num_classes=2, lr=5e-3, weight=3.0),
}
for name, build in models.items():
    L.seed_everything(0, verbose=False)  # both begin with the same weights
    model = build()
    trainer = L.Trainer(
        max_epochs=8,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        check_val_every_n_epoch=8,
    )
    trainer.fit(model, data)
    trainer.save_checkpoint(f"{name}.ckpt", weights_only=True)
    seen = trainer.callback_metrics
    print(f"{name}: accuracy {seen['val/acc']:.2f}, evidence inside the bird {seen['val/epg']:.2f}")

# %% [markdown]
# The second number is the *energy pointing game* (EPG): the share of the evidence for the true
# class that lies inside of the mask, as a mean over the pictures. Evidence that lies anywhere would
# have the share of the picture that the bird covers:

# %%
masks = torch.cat([batch["mask"] for batch in data.val_dataloader()])
print(f"a bird covers {masks.mean():.2f} of its picture on average")

# %% [markdown]
# ## Ask them
#
# A checkpoint is enough to ask a classifier: it knows the class names and the size of the pictures.
# It takes paths, Pillow images and arrays, and sees the picture alone.

# %%
pictures = sorted(Path("my_birds/test").glob("*/*.png"))
said = {}
for name in models:
    said[name] = lightning_priors.load(f"{name}.ckpt", device="cpu").predict(pictures)
    right = sum(one.label == path.parent.name for one, path in zip(said[name], pictures))
    print(f"{name}: {right} of {len(pictures)} test pictures are right")

one = said["restricted"][0]
print()
print(one.name, "is a", one.label)
print({name: round(value, 3) for name, value in one.probabilities.items()})
print("the evidence for this answer is a map of", one.evidence.shape, "cells")

# %% [markdown]
# ## See the evidence
#
# Cold colours speak for a kakapo, warm colours for another bird, the yellow line is the outline of
# the mask. These are the first two test pictures of each class.

# %%
data.setup("test")
labels = [path.parent.name for path in pictures]
chosen = [labels.index(name) + step for name in ("kakapo", "other_bird") for step in range(2)]
batch = default_collate([data.datasets["test"][number] for number in chosen])
evidence = {
    name: Evidence(
        torch.stack([answers[number].logits for number in chosen]),
        torch.stack([answers[number].cam for number in chosen]),
        {},
    )
    for name, answers in said.items()
}
figure = draw_comparison(batch, evidence, data.classes)
figure.savefig("evidence.png")
small("evidence.png", width=380)

# %% [markdown]
# The plain classifier has learned the place, because in training the place was the easier answer.
# Its evidence lies all over the picture. The evidence of the restricted one lies on the bird and
# close to it. It is not always right, as the third picture shows, but there it is the bird that it
# gets wrong.
#
# ## The same in three commands
#
#     lightning-priors fit -c cam_restriction -c my_birds.yaml
#     lightning-priors predict runs/CAMRestriction/version_0 my_birds/test --out birds.csv --panels
#     lightning-priors explain runs/CAMRestriction/version_0
#
# Where masks are missing, boxes do as well, and a tenth of the pictures with masks is often enough.
# The next notebook, [where does it look](where_does_it_look.ipynb), looks closer at what happened
# here.
