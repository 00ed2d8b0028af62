"""MAXL's training against a second one, written from the definition: double backward through steps spelled out here."""

import copy
import math

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call
from torch.utils.data import DataLoader, Dataset

from lightning_priors.functional.cam import evidence_map
from lightning_priors.functional.guidance import energy_loss
from lightning_priors.functional.prior_maps import prior_map
from lightning_priors.hypergradient import InnerStep, RandomState
from lightning_priors.priors import Restriction
from lightning_priors.techniques import MAXL, Pretrained, PublishedMAXL
from lightning_priors.techniques.maxl.label_learner import LabelledPart, PartOfBatch
from lightning_priors.techniques.maxl.soft_labels import hierarchy_mask
from lightning_priors.techniques.maxl.two_networks import TwoNetworks

SUB_CLASSES, BATCH, BATCHES, LR, WEIGHT_DECAY, ENTROPY = [3, 2], 6, 5, 0.05, 1e-3, 0.3
EPS = 1e-5  # AdamW's derivative grows by 1 / EPS where a gradient vanishes, and with its own 1e-8 rounding shows

OPTIMIZERS = {
    "momentum": lambda parameters: torch.optim.SGD(parameters, LR, momentum=0.9, weight_decay=WEIGHT_DECAY),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, LR, weight_decay=WEIGHT_DECAY, eps=EPS),
}


class Noise(Dataset[dict[str, Tensor]]):
    """Small images without any structure, with a mask: all that counts here is the arithmetic."""

    def __init__(self, images: int = BATCH * BATCHES) -> None:
        generator = torch.Generator().manual_seed(0)
        self.image = torch.randn(images, 3, 16, 16, generator=generator)
        self.mask = torch.rand(images, 16, 16, generator=generator)

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": self.image[index], "label": torch.tensor(index) % 2, "mask": self.mask[index]}


def maxl(**options) -> MAXL:
    torch.manual_seed(0)
    options = {"entropy_weight": ENTROPY, "generator_every": 2, "temperature": 0.7, "balance": "entropy"} | options
    module = MAXL(subclasses=SUB_CLASSES, scheduler=constant, **options)
    module.learner.meta_gradient = "raw"
    return module


def published(**options) -> PublishedMAXL:
    torch.manual_seed(0)
    options = {"entropy_weight": ENTROPY, "generator": "features"} | options
    return PublishedMAXL(subclasses=SUB_CLASSES, scheduler=constant, **options)


def constant(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.StepLR(optimizer, 1000)


def fit(module: L.LightningModule, data: Dataset | None = None, **options) -> L.Trainer:
    options = {"max_epochs": 1, "precision": "64-true"} | options
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, num_sanity_val_steps=0, **options,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data or Noise(), BATCH), DataLoader(Noise(), BATCH))
    return trainer


def batches(images: Dataset | None = None) -> list[dict[str, Tensor]]:
    """In the order of the training, in double precision."""
    found = list(DataLoader(images or Noise(), BATCH))
    return [batch | {"image": batch["image"].double(), "mask": batch["mask"].double()} for batch in found]


class Definition:
    """MAXL as its paper defines it, one step at a time, on copies of a module's networks."""

    def __init__(self, module: TwoNetworks, optimizer: str, temperature: float = 0.7, restriction: float = 0.0) -> None:
        module = copy.deepcopy(module).double()
        self.network, self.generator = module.network, module.generator
        self.temperature, self.restriction = temperature, restriction
        self.optimizer = OPTIMIZERS[optimizer](self.network.parameters())
        self.generator_optimizer = torch.optim.Adam(
            self.generator.parameters(), lr=module.generator_lr, weight_decay=module.generator_weight_decay
        )
        self.mask = hierarchy_mask(SUB_CLASSES)

    def labels(self, batch, features: Tensor) -> Tensor:
        inputs = features.detach() if self.generator.backbone is None else self.generator.backbone(batch["image"])
        scores = self.generator.head(inputs.mean((2, 3))) / self.temperature
        return scores.masked_fill(~self.mask[batch["label"]], -torch.inf).softmax(1)

    def look(self, parameters, batch) -> tuple[Tensor, Tensor, Tensor]:
        """The primary loss at a point, the logits of the auxiliary task and the features, by the network's parts."""
        named = {name.removeprefix("classifier.backbone."): p for name, p in parameters.items() if "backbone" in name}
        features = functional_call(self.network.classifier.backbone, named, (batch["image"],))
        head = parameters["classifier.head.weight"], parameters["classifier.head.bias"]
        cam = torch.einsum("bchw,kc->bkhw", features, head[0])
        primary = F.cross_entropy(cam.mean((2, 3)) + head[1], batch["label"])
        if self.restriction:
            prior, _ = prior_map(batch, cam.shape[2:])
            primary = primary + self.restriction * energy_loss(evidence_map(cam, batch["label"]), prior).mean()
        auxiliary = F.linear(features.mean((2, 3)), parameters["auxiliary.weight"], parameters["auxiliary.bias"])
        return primary, auxiliary, features

    def losses(self, parameters, batch) -> tuple[Tensor, Tensor, Tensor]:
        """Primary and auxiliary loss at a point, and the labels."""
        primary, auxiliary, features = self.look(parameters, batch)
        labels = self.labels(batch, features)
        log_probability = auxiliary.log_softmax(1)
        focal = -((1 - log_probability.exp()) ** 2) * log_probability
        return primary, (labels * focal).sum(1).mean(), labels

    @property
    def parameters(self) -> dict[str, Tensor]:
        return dict(self.network.named_parameters())

    def stepped(self, parameters, gradients):
        """The optimiser's step, written out."""
        after = {}
        for (name, p), gradient in zip(parameters.items(), gradients, strict=True):
            state = self.optimizer.state.get(self.parameters[name], {})
            if isinstance(self.optimizer, torch.optim.SGD):
                decayed = gradient + WEIGHT_DECAY * p
                after[name] = p - LR * (decayed + 0.9 * state["momentum_buffer"] if state else decayed)
                continue
            count = (state["step"].item() if state else 0) + 1
            first = 0.9 * state.get("exp_avg", 0.0) + 0.1 * gradient
            second = 0.999 * state.get("exp_avg_sq", 0.0) + 0.001 * gradient**2
            # a root has no derivative at zero, where nothing moves
            root = torch.where(second > 0, second, 1.0).sqrt() / math.sqrt(1 - 0.999**count)
            move = torch.where(second > 0, first / (1 - 0.9**count) / (root + EPS), 0.0)
            after[name] = p * (1 - LR * WEIGHT_DECAY) - LR * move
        return after

    def meta_gradient(self, train, meta, first=None) -> list[Tensor]:
        """The gradient on the generator of what the primary loss of `meta` is after a step on `train`.

        Where there is a `first` half of the batch, `train` is the second.
        """
        parameters = {name: p.detach().requires_grad_() for name, p in self.parameters.items()}
        loss, labels = self.step_loss(parameters, train, first)
        gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        ahead, *_ = self.look(self.stepped(parameters, gradients), meta)
        mean = labels.mean(0)
        loss = ahead + ENTROPY * (mean * mean.log()).sum()
        return list(torch.autograd.grad(loss, list(self.generator.parameters())))

    def step_loss(self, parameters, train, first=None) -> tuple[Tensor, Tensor]:
        """What a step lowers, and the labels; images of a `first` half train the primary task alone."""
        primary, auxiliary, labels = self.losses(parameters, train)
        if first is None:
            return primary + auxiliary, labels
        counts = [len(half["label"]) for half in (first, train)]
        alone, *_ = self.look(parameters, first)
        return (counts[0] * alone + counts[1] * (primary + auxiliary)) / sum(counts), labels

    def step_generator(self, gradients: list[Tensor]) -> None:
        for parameter, gradient in zip(self.generator.parameters(), gradients, strict=True):
            parameter.grad = gradient
        self.generator_optimizer.step()

    def step_network(self, train, alone: bool = False) -> None:
        self.optimizer.zero_grad()
        primary, auxiliary, _ = self.losses(self.parameters, train)
        (primary if alone else primary + auxiliary).backward()
        self.optimizer.step()

    def train_halves(self, images: Noise, every: int) -> None:
        waiting = None
        for number, batch in enumerate(batches(images)):
            due, parameters = number % every == 0, self.parameters
            count = math.ceil(len(batch["label"]) / 2)
            first, second = ({k: v[part] for k, v in batch.items()} for part in (slice(count), slice(count, None)))
            self.optimizer.zero_grad(set_to_none=False)  # a head that sees no image goes on by its momentum
            if waiting is not None:
                self.step_generator(waiting[0].meta_gradient(waiting[1], first, waiting[2]))
            if waiting is None and not due:
                loss = self.step_loss(parameters, batch)[0]
            elif len(second["label"]):
                loss = self.step_loss(parameters, second, first)[0]
            else:
                loss, *_ = self.look(parameters, first)
            waiting = (copy.deepcopy(self), second, first) if due else None
            loss.backward()
            self.optimizer.step()

    def train(self, images: Noise | None = None, every: int = 2) -> None:
        """The generator learns from every second step, whose labels the next batch judges."""
        waiting = None
        for number, batch in enumerate(batches(images)):
            judging, due = waiting is not None, number % every == 0
            if waiting is not None:
                self.step_generator(waiting[0].meta_gradient(waiting[1], batch))
            waiting = (copy.deepcopy(self), batch) if due else None
            self.step_network(batch, alone=judging and not due)

    def train_as_published(self) -> None:
        """After each step the generator looks ahead at the next one on the same batch."""
        for batch in batches():
            self.step_network(batch)
            self.step_generator(self.meta_gradient(batch, batch))


def greatest_difference(module: torch.nn.Module, reference: torch.nn.Module) -> float:
    other = dict(reference.named_parameters())
    return max((p - other[name]).abs().max().item() for name, p in module.named_parameters())


def assert_same(module: TwoNetworks, definition: Definition, start: TwoNetworks) -> None:
    assert greatest_difference(module.generator, start.generator) > 1e-4
    assert greatest_difference(module.generator, definition.generator) < 1e-10
    assert greatest_difference(module.network, definition.network) < 1e-10


@pytest.mark.parametrize("options", [{}, {"generator": "tiny"}, {"generator_every": 1}])
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_an_epoch_is_that_of_the_definition(optimizer: str, options: dict[str, object]) -> None:
    """With a last batch of two images."""
    module = maxl(optimizer=OPTIMIZERS[optimizer], lr=LR, **options)
    definition, start = Definition(module, optimizer), copy.deepcopy(module).double()
    definition.train(Noise(BATCH * BATCHES + 2), module.generator_every)
    fit(module, data=Noise(BATCH * BATCHES + 2))
    assert_same(module, definition, start)


@pytest.mark.parametrize("meta_batch", ["next", "half"])
def test_the_primary_loss_is_the_restricted_one_where_it_is_restricted(meta_batch: str) -> None:
    module = maxl(
        optimizer=OPTIMIZERS["momentum"], lr=LR, meta_batch=meta_batch, priors=[Restriction(loss="energy", weight=0.6)]
    )
    definition, start = Definition(module, "momentum", restriction=0.6), copy.deepcopy(module).double()
    if meta_batch == "half":
        definition.train_halves(Noise(), module.generator_every)
    else:
        definition.train()
    fit(module)
    assert_same(module, definition, start)


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("momentum", {}),
        ("momentum", {"generator_every": 1, "generator": "tiny"}),
        ("adamw", {"generator_every": 1}),
    ],
)
def test_halved_batches_are_those_of_the_definition(optimizer: str, options: dict[str, object]) -> None:
    """With batches of 6, 6, 6, 6 and 1 images, of which the last one has no second half."""
    module = maxl(meta_batch="half", optimizer=OPTIMIZERS[optimizer], lr=LR, **options)
    definition, start = Definition(module, optimizer), copy.deepcopy(module).double()
    definition.train_halves(Noise(25), module.generator_every)
    fit(module, data=Noise(25))
    assert_same(module, definition, start)


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("generator", ["features", "tiny"])
def test_the_published_form_by_double_backward_is_that_of_the_definition(optimizer: str, generator: str) -> None:
    module = published(optimizer=OPTIMIZERS[optimizer], generator=generator)
    definition, start = Definition(module, optimizer, temperature=1.0), copy.deepcopy(module).double()
    definition.train_as_published()
    fit(module)
    assert_same(module, definition, start)


def test_the_published_first_order_is_near_the_definition() -> None:
    """Kinks of ReLU, not rounding, set its error: two forward passes on either side of them."""
    module = published(optimizer=OPTIMIZERS["momentum"], method="first_order")
    definition, start = Definition(module, "momentum", temperature=1.0), copy.deepcopy(module).double()
    definition.train_as_published()
    fit(module)
    assert greatest_difference(module.generator, start.generator) > 1e-4
    assert greatest_difference(module.generator, definition.generator) < 1e-5


def test_with_labels_it_starts_like_plain_training() -> None:
    torch.manual_seed(0)
    plain, after = Pretrained(), torch.rand(3)
    module = maxl(generator="tiny")
    assert torch.equal(torch.rand(3), after)
    state = module.classifier.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in plain.classifier.state_dict().items())


@pytest.mark.parametrize("optimizer", [None, *OPTIMIZERS])
def test_with_an_auxiliary_weight_of_zero_it_is_plain_training_to_the_bit(optimizer: str | None) -> None:
    options = {} if optimizer is None else {"optimizer": OPTIMIZERS[optimizer]}
    torch.manual_seed(0)
    plain = Pretrained(**options)
    module = maxl(aux_weight=0.0, **options)
    module.scheduler = None
    for trained in (plain, module):
        trained.warmup_epochs = 0.4
        fit(trained, max_epochs=2, precision="32-true")
    other = plain.classifier.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in module.classifier.state_dict().items())


def test_accumulation_and_clipping_are_those_of_plain_training() -> None:
    torch.manual_seed(0)
    plain, module = Pretrained(), maxl(aux_weight=0.0, accumulate_batches=2, gradient_clip_norm=0.01)
    module.scheduler = None
    first = fit(plain, accumulate_grad_batches=2, gradient_clip_val=0.01)
    second = fit(module)
    assert first.global_step == second.global_step == 3
    assert greatest_difference(module.classifier, plain.classifier) < 1e-12


@pytest.mark.parametrize("meta_gradient", ["normalised", "raw"])
def test_without_entropy_and_with_v_zero_the_generator_learns_nothing(meta_gradient: str) -> None:
    module = maxl(entropy_weight=0.0)
    module.learner.meta_gradient = meta_gradient
    gradients = generator_gradient(module, v=0.0)
    assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients.values())
    assert any(g.norm() > 0 for g in generator_gradient(module, v=1.0).values())


def generator_gradient(module: MAXL, v: float, images: int = 6) -> dict[str, Tensor]:
    batch = next(iter(DataLoader(Noise(images), images)))
    learner, network = module.learner, module.network
    outputs = network(batch)
    logits, labels = learner.generated(batch, outputs.seen.features)
    optimizer = torch.optim.SGD(network.parameters(), LR)
    F.cross_entropy(outputs.seen.logits, batch["label"]).backward()
    step = InnerStep(network, optimizer)
    labelled = LabelledPart(PartOfBatch(batch), RandomState(torch.device("cpu")), logits, labels)
    direction = {name: torch.full_like(p, v) for name, p in network.named_parameters()}
    return learner.look_back([labelled], step, direction).gradients


def test_a_normalised_meta_gradient_does_not_depend_on_its_length() -> None:
    module = maxl(entropy_weight=0.0)
    module.learner.meta_gradient = "normalised"
    short, long = (generator_gradient(module, v) for v in (1e-3, 1e3))
    for name, gradient in short.items():
        torch.testing.assert_close(gradient, long[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("generator", ["features", "tiny"])
@pytest.mark.parametrize("balance", ["entropy", "sinkhorn"])
def test_labels_keep_to_the_sub_classes_of_their_class(balance: str, generator: str) -> None:
    module = maxl(balance=balance, generator=generator)
    fit(module, precision="32-true")
    batch = next(iter(DataLoader(Noise(), 12)))
    labels = module.auxiliary_labels(batch)
    torch.testing.assert_close(labels.sum(1), torch.ones(12))
    assert (labels > 0).equal(hierarchy_mask(SUB_CLASSES)[batch["label"]])


def test_the_entropy_alone_spreads_collapsed_labels() -> None:
    module = maxl(aux_weight=0.0, generator_lr=2e-3, generator_every=1)
    with torch.no_grad():
        module.generator.head[-1].bias[:] = torch.tensor([4.0, 0, 0, 4, 0])
    batch = next(iter(DataLoader(Noise(), 12)))
    before = module.auxiliary_labels(batch).mean(0)
    fit(module, max_epochs=6, precision="32-true")
    after = module.auxiliary_labels(batch).mean(0)
    assert before[[0, 3]].min() > 0.4
    assert after[[0, 3]].max() < 0.35
