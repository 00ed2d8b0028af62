"""The derivative by MixFlow-MG, which the table of costs compares: that of double backward, and that of `MAXL`."""

import importlib
from functools import partial
from pathlib import Path
from types import ModuleType

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_priors.hypergradient import InnerStep, named_gradients, unrolled_label_gradient
from lightning_priors.techniques import MAXL, PublishedMAXL

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CLASS = torch.tensor([0, 1, 0, 1, 1, 0])


@pytest.fixture
def mixflow(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("mixflow")


def convolutions() -> nn.Module:
    """Two primary and three auxiliary outputs for images (B, 3, 12, 12)."""
    first = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)
    return nn.Sequential(*first, nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(36, 5))


def inner_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """The labels in the auxiliary loss alone, linearly."""
    auxiliary = -(labels * F.log_softmax(outputs[:, 2:], 1)).sum(1).mean()
    return F.cross_entropy(outputs[:, :2], CLASS) + auxiliary


def primary_loss(outputs: Tensor) -> Tensor:
    return F.cross_entropy(outputs[:, :2], CLASS)


@pytest.mark.parametrize(
    "optimizer_of",
    [
        partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        partial(torch.optim.AdamW, lr=0.01),
    ],
)
def test_it_is_the_derivative_of_double_backward(mixflow: ModuleType, optimizer_of) -> None:
    torch.manual_seed(0)
    network = convolutions().double()
    optimizer = optimizer_of(network.parameters())
    image, later, labels = torch.randn(6, 3, 12, 12), torch.randn(6, 3, 12, 12), torch.rand(6, 3)
    image, later, labels = image.double(), later.double(), labels.double()
    for _ in range(3):  # the optimiser has a state
        optimizer.zero_grad()
        inner_loss(network(torch.randn(6, 3, 12, 12).double()), labels).backward()
        optimizer.step()
    wanted = unrolled_label_gradient(network, optimizer, (image,), labels, inner_loss, (later,), primary_loss)
    optimizer.zero_grad()
    inner_loss(network(image), labels).backward()
    step = InnerStep(network, optimizer)
    optimizer.step()
    v = named_gradients(primary_loss(network(later)), dict(network.named_parameters()))
    found = mixflow.mixed_derivative(network, step.parameters, (image,), labels, inner_loss, step.direction(v))
    assert wanted.norm() > 1e-6
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-14)


def trained(module: L.LightningModule) -> dict[str, Tensor]:
    """The generator's parameters after a few steps in double precision."""
    generator = torch.Generator().manual_seed(0)
    batches = [
        {
            "image": torch.randn(6, 3, 32, 32, generator=generator, dtype=torch.float64),
            "label": CLASS,
            "index": torch.arange(6),
        }
        for _ in range(4)
    ]
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", precision="64-true", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(batches, batch_size=None))
    return {name: parameter.detach() for name, parameter in module.generator.named_parameters()}


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:You defined a `validation_step`")
@pytest.mark.parametrize("published", [False, True])
def test_a_generator_learns_the_same(mixflow: ModuleType, published: bool) -> None:
    """In the published schedule as double backward trains it, in that of `MAXL` as one forward-mode pass does."""
    ours, theirs = (PublishedMAXL, mixflow.MixFlowPublishedMAXL) if published else (MAXL, mixflow.MixFlowMAXL)
    options = {"subclasses": 3, "generator": "tiny", **({} if published else {"generator_every": 1})}
    first_order = {"method": "first_order"} if published else {}
    networks = []
    for kind, further in ((ours, {}), (theirs, first_order)):
        torch.manual_seed(0)
        networks.append(kind(num_classes=2, optimizer=partial(torch.optim.SGD, lr=0.1), **options, **further))
    start = {name: parameter.detach().double() for name, parameter in networks[0].generator.named_parameters()}
    wanted, found = map(trained, networks)
    assert any((wanted[name] - start[name]).norm() > 1e-4 for name in start)
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-9)
