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
# # Priors in your own LightningModule, and in a bare training loop
#
# The parts of `lightning-priors` are ordinary PyTorch modules and functions. This notebook uses
# them in four places:
#
# 1. two priors in a training loop of plain PyTorch;
# 2. the same in a LightningModule of your own;
# 3. one function on a network of your own, which knows nothing of this package;
# 4. the derivative of a loss through an optimiser's step, in two calls.
#
# A *prior* here is something that is known beforehand: where the bird is, or which species it
# belongs to.

# %%
import warnings

warnings.filterwarnings("ignore")  # advice on loader processes and the like

# %%
import logging

import lightning as L
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.functional import auroc

from lightning_priors import AuxiliaryTasks, Classifier, PriorError, Restriction
from lightning_priors.batch import IMAGE_MEAN, IMAGE_STD, checked
from lightning_priors.data.sources import Kakapo
from lightning_priors.functional import (
    GUIDANCE_LOSSES,
    class_activation_map,
    evidence_map,
    logits_from_cam,
    resize_to_grid,
)
from lightning_priors.hypergradient import InnerStep, named_gradients
from lightning_priors.metrics import EnergyPointingGame
from lightning_priors.priors import attach_priors, training_step

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
torch.set_num_threads(1)  # the pictures are small; and with one thread the numbers repeat

# %% [markdown]
# ## The data: a Dataset of your own
#
# A batch is a dictionary. It needs `image` (B, 3, H, W), with the usual ImageNet normalisation, and
# `label` (B,). Whatever else is known goes beside them: `mask` (B, H, W) from 0 to 1, `aux_labels`
# (B, T) for T further tasks, boxes, keypoints. `checked` looks at the keys and shapes of a batch
# and names what is wrong.
#
# The birds are drawn: a kakapo (0) or another bird (1), with the bird's mask and its species.


# %%
class Birds(Dataset):
    """Drawn birds as a user's own Dataset would give them."""

    def __init__(self, split, bias=0.95):
        source = Kakapo(train_size=400, val_size=160, bias=bias, size=64)
        mean, std = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
        self.samples = []
        for index in source.indices(split):
            drawn = source.load(index)
            pixels = drawn["image"].as_subclass(torch.Tensor) / 255
            self.samples.append(
                {
                    "image": (pixels - mean[:, None, None]) / std[:, None, None],
                    "label": torch.tensor(drawn["label"]),
                    "mask": drawn["mask"][0].as_subclass(torch.Tensor),
                    "aux_labels": torch.tensor(drawn["aux_labels"]),
                }
            )

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


train, val = Birds("train"), Birds("val")
batch = checked(next(iter(DataLoader(val, batch_size=32))))
print({name: tuple(value.shape) for name, value in batch.items()})
try:
    checked({**batch, "mask": batch["mask"][:, None]})
except PriorError as error:
    print("a mask with one dimension too many:", error)

# %% [markdown]
# ## 1. A training loop of plain PyTorch
#
# `Restriction` keeps the evidence for the label on the bird, `AuxiliaryTasks` learns the species
# beside it. `Classifier` is a network whose *class activation map* (how much each cell of the
# picture speaks for a class) adds up to the class's score, the logit. `training_step` runs the
# network once and returns the loss with its terms.


# %%
def judged(classify):
    """Accuracy on the validation birds, and the share of evidence inside the mask (EPG)."""
    right, inside = 0, EnergyPointingGame()
    with torch.no_grad():
        for batch in DataLoader(val, batch_size=32):
            logits, cam = classify(batch["image"])
            right += int((logits.argmax(1) == batch["label"]).sum())
            valid = torch.ones(len(logits), dtype=torch.bool)
            inside.update(evidence_map(cam, batch["label"]), batch["mask"], valid)
    return f"accuracy {right / len(val):.2f}, evidence inside the bird {inside.compute():.2f}"


def fit(priors, epochs=6):
    """Trains a small network with some priors."""
    torch.manual_seed(0)
    classifier = Classifier(num_classes=2, backbone="tiny")
    attach_priors(priors, classifier, aux_num_classes=[9])
    parameters = [*classifier.parameters(), *(p for prior in priors for p in prior.parameters())]
    optimizer = torch.optim.AdamW(parameters, lr=5e-3)
    for epoch in range(epochs):
        for batch in DataLoader(train, batch_size=32, shuffle=True):
            step = training_step(classifier, priors, batch, epoch)
            optimizer.zero_grad()
            step.loss.backward()
            optimizer.step()
    terms = step.terms or {"primary": step.loss}
    terms = {name: round(value.item(), 2) for name, value in terms.items()}
    return classifier.eval(), terms


for name, priors in {
    "no prior": [],
    "restriction": [Restriction(weight=3.0)],
    "restriction, species": [Restriction(weight=3.0), AuxiliaryTasks(aux_names=["species"])],
}.items():
    classifier, terms = fit(priors)
    print(f"{name:22}{judged(classifier)}\n{'':22}last batch: {terms}")

# %% [markdown]
# The restriction moves the evidence onto the bird, and the accuracy rises with it. The species add
# nothing here, rather the contrary; but one seed and 160 pictures do not tell such differences.
#
# Evaluation needs neither the masks nor the priors: `classifier(image)` gives logits and maps.
#
# ## 2. A LightningModule of your own
#
# The same two calls. Your module keeps its own optimiser, logging and options. Put the priors into
# a `ModuleList`, so that what they learn is trained and saved with the rest.


# %%
class MyClassifier(L.LightningModule):
    """An own module with a prior in it."""

    def __init__(self):
        super().__init__()
        self.classifier = Classifier(num_classes=2, backbone="tiny")
        self.priors = nn.ModuleList([Restriction(weight=3.0)])
        attach_priors(self.priors, self.classifier)

    def training_step(self, batch, batch_idx):
        """Adds the priors' terms to the loss."""
        step = training_step(self.classifier, self.priors, batch, self.current_epoch)
        self.log_dict({f"train/{name}": value for name, value in step.terms.items()}, on_epoch=True)
        return step.loss

    def configure_optimizers(self):
        """Whatever you like."""
        return torch.optim.AdamW(self.parameters(), lr=5e-3)


L.seed_everything(0, verbose=False)
module = MyClassifier()
trainer = L.Trainer(
    max_epochs=6,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(module, DataLoader(train, batch_size=32, shuffle=True))
print(judged(module.classifier.eval()))

# %% [markdown]
# From the same seed that is the same network as in the loop above.
#
# ## 3. A network of your own
#
# Nothing of the above is needed to guide a network: the functions work on tensors. Any network that
# ends in a global average and a linear layer has class activation maps, since the mean and the
# linear layer may change places. So its loss can be guided by a few lines.


# %%
class OwnNetwork(nn.Module):
    """A network that knows nothing of priors."""

    def __init__(self):
        super().__init__()
        layers = []
        for before, after in ((3, 24), (24, 48), (48, 96)):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.linear = nn.Linear(96, 2)

    def forward(self, image):
        """Logits as usual."""
        return self.linear(self.features(image).mean((2, 3)))


def explained(network, image):
    """Logits and maps of such a network."""
    cam = class_activation_map(network.features(image), network.linear.weight)
    return logits_from_cam(cam, network.linear.bias), cam


for weight in (0.0, 3.0):
    torch.manual_seed(0)
    network = OwnNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(6):
        for batch in DataLoader(train, batch_size=32, shuffle=True):
            logits, cam = explained(network, batch["image"])
            evidence = evidence_map(
                cam, batch["label"]
            )  # (B, h, w), positive where it speaks for the label
            mask = resize_to_grid(batch["mask"], cam.shape[2:])
            guidance = GUIDANCE_LOSSES["energy"](evidence, mask).mean()
            optimizer.zero_grad()
            (F.cross_entropy(logits, batch["label"]) + weight * guidance).backward()
            optimizer.step()
    network.eval()
    print(f"weight of the guidance {weight}: {judged(lambda image: explained(network, image))}")

image = batch["image"][:4]
print(
    "the map changes no answer:",
    torch.allclose(explained(network, image)[0], network(image), atol=1e-5),
)

# %% [markdown]
# ## 4. Through the optimiser's step, in two calls
#
# Sometimes one wants to know what a training step does to another loss, and how that depends on the
# labels or on the weights of the images in the step. The usual way keeps the graph of the step and
# runs backward through it, at a high cost. `InnerStep` gives the same derivative by one forward
# pass.
#
# Here it finds wrong labels. A third of the labels of 300 pictures is exchanged; those of 100
# others can be trusted. Every training image has a weight of 1, and the derivative by this weight
# says: if the image counted a little more in the step, would the loss on the trusted pictures rise?
# The first call is before the optimiser's step, the second after it. The derivatives of all steps
# are added up. The pictures are easy ones, in which the place always agrees with the bird.

# %%
birds = Birds("train", bias=1.0)
image, true = (torch.stack([one[key] for one in birds.samples]) for key in ("image", "label"))
torch.manual_seed(0)
wrong = torch.rand(300) < 1 / 3
given = torch.where(wrong, 1 - true[:300], true[:300])
harm = torch.zeros(300)  # how much each image raises the loss on the trusted ones

network = OwnNetwork()
optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
for _ in range(3):
    for rows in torch.randperm(300).split(30):

        def losses(logits, rows=rows):
            """What each image of the step costs (B, 1)."""
            return F.cross_entropy(logits, given[rows], reduction="none")[:, None]

        optimizer.zero_grad()
        losses(network(image[rows])).mean().backward()
        step = InnerStep(network, optimizer)  # the first call
        optimizer.step()
        after = F.cross_entropy(network(image[300:]), true[300:])
        v = named_gradients(after, dict(network.named_parameters()))
        harm[rows] += step.label_gradient((image[rows],), losses, v)[:, 0]  # the second call

print(f"mean derivative, right labels: {harm[~wrong].mean():+.4f}")
print(f"mean derivative, wrong labels: {harm[wrong].mean():+.4f}")
score = auroc(harm, wrong.long(), task="binary")
print(f"wrong labels are ranked above right ones with an AUROC of {score:.2f}")

# %% [markdown]
# An AUROC of 0.5 would be chance, and 1 would be a perfect order.
#
# `label_gradient` has a column for each loss of an image. With one column, as here, it is the
# derivative by the weight of the image. With a column for each class it is the derivative by soft
# labels, which is what MAXL trains its generator with; see [what MAXL
# invents](what_maxl_invents.ipynb). The module imports torch alone.
