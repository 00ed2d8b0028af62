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

from lightning_priors.functional.clustering import hashed_uniform
from lightning_priors.functional.hypergradient import InnerStep
from lightning_priors.functional.random_state import RandomState
from lightning_priors.functional.soft_labels import hierarchy_mask
from lightning_priors.nn.label_learning import InnerBatch, Part
from lightning_priors.techniques import MAXL, Pretrained

SUB_CLASSES, BATCH, BATCHES, LR, WEIGHT_DECAY, ENTROPY = [3, 2], 6, 5, 0.05, 1e-3, 0.3

OPTIMIZERS = {
    "momentum": lambda parameters: torch.optim.SGD(parameters, LR, momentum=0.9, weight_decay=WEIGHT_DECAY),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, LR, weight_decay=WEIGHT_DECAY),
}


class Noise(Dataset[dict[str, Tensor]]):
    """Small images without any structure: all that counts here is the arithmetic."""

    def __init__(self, images: int = BATCH * BATCHES) -> None:
        generator = torch.Generator().manual_seed(0)
        self.image = torch.randn(images, 3, 16, 16, generator=generator)

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        number = torch.tensor(index)
        return {"image": self.image[index], "label": number % 2, "index": number}


def maxl(**options) -> MAXL:
    torch.manual_seed(0)
    options = {"meta_gradient": "raw", "entropy_weight": ENTROPY, "generator_every": 2, "temperature": 0.7,
               "spare_auxiliary": False, "balance": "entropy"} | options  # fmt: skip
    return MAXL(subclasses=SUB_CLASSES, scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 1000), **options)


def fit(module: L.LightningModule, data: Dataset | None = None, **options) -> L.Trainer:
    options = {"max_epochs": 1, "precision": "64-true"} | options
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, num_sanity_val_steps=0, **options,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data or Noise(), BATCH), DataLoader(Noise(), BATCH))
    return trainer


class Definition:
    """MAXL as its paper defines it, one step at a time, on copies of a module's networks."""

    def __init__(self, module: MAXL, optimizer: str) -> None:
        module = copy.deepcopy(module).double()
        self.network, self.generator = module.network, module.generator
        self.optimizer = OPTIMIZERS[optimizer](self.network.parameters())
        self.generator_optimizer = torch.optim.Adam(
            self.generator.parameters(), lr=module.generator_lr, weight_decay=module.generator_weight_decay
        )
        self.mask = hierarchy_mask(SUB_CLASSES)

    def labels(self, batch, features: Tensor) -> Tensor:
        inputs = features.detach() if self.generator.backbone is None else batch["image"]
        if self.generator.backbone is not None:
            inputs = self.generator.backbone(inputs)
        scores = self.generator.head(inputs.mean((2, 3))) / 0.7
        return scores.masked_fill(~self.mask[batch["label"]], -torch.inf).softmax(1)

    def losses(self, parameters, batch, labels=None) -> tuple[Tensor, Tensor, Tensor]:
        """Primary and auxiliary loss at a point, and the labels."""
        logits, auxiliary, features = functional_call(self.network, parameters, (batch["image"],))
        labels = self.labels(batch, features) if labels is None else labels
        log_probability = auxiliary.log_softmax(1)
        focal = -((1 - log_probability.exp()) ** 2) * log_probability
        return F.cross_entropy(logits, batch["label"]), (labels * focal).sum(1).mean(), labels

    def stepped(self, parameters, gradients):
        """The optimiser's step, written out."""
        after = {}
        for (name, p), gradient in zip(parameters.items(), gradients, strict=True):
            state = self.optimizer.state.get(dict(self.network.named_parameters())[name], {})
            if isinstance(self.optimizer, torch.optim.SGD):
                decayed = gradient + WEIGHT_DECAY * p
                after[name] = p - LR * (decayed + 0.9 * state["momentum_buffer"] if state else decayed)
                continue
            count = (state["step"].item() if state else 0) + 1
            first = 0.9 * state.get("exp_avg", 0.0) + 0.1 * gradient
            second = 0.999 * state.get("exp_avg_sq", 0.0) + 0.001 * gradient**2
            # a root has no derivative at zero, where nothing moves
            root = torch.where(second > 0, second, 1.0).sqrt() / math.sqrt(1 - 0.999**count)
            move = torch.where(second > 0, first / (1 - 0.9**count) / (root + 1e-8), 0.0)
            after[name] = p * (1 - LR * WEIGHT_DECAY) - LR * move
        return after

    def meta_gradient(self, train, meta, first=None) -> list[Tensor]:
        """The gradient on the generator of what the primary loss of `meta` is after a step on `train`.

        Where there is a `first` half of the batch, `train` is the second.
        """
        parameters = {name: p.detach().requires_grad_() for name, p in self.network.named_parameters()}
        loss, labels = self.step_loss(parameters, train, first)
        gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        ahead = functional_call(self.network, self.stepped(parameters, gradients), (meta["image"],)).logits
        mean = labels.mean(0)
        loss = F.cross_entropy(ahead, meta["label"]) + ENTROPY * (mean * mean.log()).sum()
        return list(torch.autograd.grad(loss, list(self.generator.parameters())))

    def step_loss(self, parameters, train, first=None) -> tuple[Tensor, Tensor]:
        """What a step lowers, and the labels; images of a `first` half train the primary task alone."""
        primary, auxiliary, labels = self.losses(parameters, train)
        if first is None:
            return primary + auxiliary, labels
        counts = [len(half["label"]) for half in (first, train)]
        before = functional_call(self.network, parameters, (first["image"],)).logits
        alone = F.cross_entropy(before, first["label"])
        return (counts[0] * alone + counts[1] * (primary + auxiliary)) / sum(counts), labels

    def step_generator(self, gradients: list[Tensor]) -> None:
        for parameter, gradient in zip(self.generator.parameters(), gradients, strict=True):
            parameter.grad = gradient
        self.generator_optimizer.step()

    def step_network(self, train, spared: bool = False) -> None:
        self.optimizer.zero_grad()
        primary, auxiliary, _ = self.losses(dict(self.network.named_parameters()), train)
        (primary if spared else primary + auxiliary).backward()
        self.optimizer.step()

    def train_halves(self, images: Noise, every: int) -> None:
        waiting = None
        for number, batch in enumerate(DataLoader(images, BATCH)):
            batch["image"] = batch["image"].double()
            due, parameters = number % every == 0, dict(self.network.named_parameters())
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
                loss = F.cross_entropy(self.network(first["image"]).logits, first["label"])
            waiting = (copy.deepcopy(self), second, first) if due else None
            loss.backward()
            self.optimizer.step()

    def train(self, schedule: str, meta_batch: str, spare: bool = False) -> None:
        waiting = None
        for number, batch in enumerate(DataLoader(Noise(), BATCH)):
            batch["image"] = batch["image"].double()
            train = meta = batch
            if meta_batch == "held_out":
                held_out = hashed_uniform(batch["index"], 0) < 0.3
                train, meta = ({k: v[chosen] for k, v in batch.items()} for chosen in (~held_out, held_out))
            if schedule == "interleaved" and waiting is not None:
                self.step_generator(waiting(batch))
            elif waiting is not None:
                self.step_generator(self.meta_gradient(waiting, batch))
            spared, waiting, due = spare and waiting is not None, None, number % 2 == 0
            if schedule == "interleaved" and due:
                before = copy.deepcopy(self)
                gradient = lambda meta, before=before, train=train: before.meta_gradient(train, meta)  # noqa: E731
                self.step_network(train)
                if meta_batch == "next":
                    waiting = gradient
                else:
                    self.step_generator(gradient(meta))
                continue
            self.step_network(train, spared)
            if due and meta_batch == "next":
                waiting = train
            elif due:
                self.step_generator(self.meta_gradient(train, meta))


def greatest_difference(module: torch.nn.Module, reference: torch.nn.Module) -> float:
    other = dict(reference.named_parameters())
    return max((p - other[name]).abs().max().item() for name, p in module.named_parameters())


@pytest.mark.parametrize("meta_batch", ["next", "same", "held_out"])
@pytest.mark.parametrize("schedule", ["interleaved", "alternating"])
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_an_epoch_is_that_of_the_definition(optimizer: str, schedule: str, meta_batch: str) -> None:
    module = maxl(
        schedule=schedule, meta_batch=meta_batch, held_out_fraction=0.3, optimizer=OPTIMIZERS[optimizer], lr=LR
    )
    definition, start = Definition(module, optimizer), copy.deepcopy(module).double()
    definition.train(schedule, meta_batch)
    fit(module)
    assert greatest_difference(module.generator, start.generator) > 1e-4
    assert greatest_difference(module.generator, definition.generator) < 1e-10
    assert greatest_difference(module.network, definition.network) < 1e-10


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("momentum", {}),
        ("momentum", {"generator_every": 1, "generator": "tiny", "lookahead_every": 1}),
        ("adamw", {"generator_every": 1}),
    ],
)
def test_halved_batches_are_those_of_the_definition(optimizer: str, options: dict[str, object]) -> None:
    """With batches of 6, 6, 6, 6 and 1 images, of which the last one has no second half."""
    module = maxl(meta_batch="half", optimizer=OPTIMIZERS[optimizer], lr=LR, **options)
    definition, start = Definition(module, optimizer), copy.deepcopy(module).double()
    definition.train_halves(Noise(25), module.generator_every)
    fit(module, data=Noise(25))
    assert greatest_difference(module.generator, start.generator) > 1e-4
    assert greatest_difference(module.generator, definition.generator) < 1e-10
    assert greatest_difference(module.network, definition.network) < 1e-10


@pytest.mark.parametrize("options", [{"generator": "tiny"}, {"method": "unrolled", "schedule": "alternating"}])
def test_the_definition_with_other_options(options: dict[str, str]) -> None:
    module = maxl(optimizer=OPTIMIZERS["momentum"], **options)
    definition = Definition(module, "momentum")
    definition.train(options.get("schedule", "interleaved"), "next")
    fit(module)
    assert greatest_difference(module.generator, definition.generator) < 1e-10


@pytest.mark.parametrize("lookahead_every", [0, 2])
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_a_spared_batch_trains_the_primary_task_alone_whatever_is_logged(optimizer: str, lookahead_every: int) -> None:
    module = maxl(spare_auxiliary=True, lookahead_every=lookahead_every, optimizer=OPTIMIZERS[optimizer], lr=LR)
    definition, every = Definition(module, optimizer), Definition(module, optimizer)
    definition.train("interleaved", "next", spare=True)
    every.train("interleaved", "next")
    fit(module)
    assert greatest_difference(definition.network, every.network) > 1e-4
    assert greatest_difference(module.generator, definition.generator) < 1e-10
    assert greatest_difference(module.network, definition.network) < 1e-10


def test_whole_epochs_in_turn() -> None:
    """The first epoch trains the network, the second the generator; then every network is as the definition has it."""
    module = maxl(schedule="alternating_epochs", meta_batch="same", optimizer=OPTIMIZERS["adamw"])
    definition, start = Definition(module, "adamw"), copy.deepcopy(module).double()
    batches = [batch | {"image": batch["image"].double()} for batch in DataLoader(Noise(), BATCH)]
    for batch in batches:
        definition.step_network(batch)
    snapshots = Snapshots()
    trainer = fit(module, max_epochs=2, callbacks=[snapshots])
    first = snapshots.states[0]
    assert all(torch.equal(first[f"generator.{n}"], p) for n, p in start.generator.named_parameters())
    for batch in batches:
        definition.step_generator(definition.meta_gradient(batch, batch))
    assert trainer.global_step == 2 * BATCHES
    assert greatest_difference(module.generator, definition.generator) < 1e-10
    assert greatest_difference(module.network, definition.network) < 1e-10


class Snapshots(L.Callback):
    """The weights at the end of each epoch."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.states.append(copy.deepcopy(pl_module.state_dict()))


@pytest.mark.parametrize("optimizer", [None, *OPTIMIZERS])
def test_without_labels_it_is_plain_training_to_the_bit(optimizer: str | None) -> None:
    options = {} if optimizer is None else {"optimizer": OPTIMIZERS[optimizer]}
    torch.manual_seed(0)
    plain, after = Pretrained(**options), torch.rand(3)
    module = maxl(labels="none", **options)
    module.scheduler = None
    assert torch.equal(torch.rand(3), after)
    for trained in (plain, module):
        trained.warmup_epochs = 0.4
        fit(trained, max_epochs=2, precision="32-true")
    other = plain.state_dict()
    assert module.state_dict().keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in module.state_dict().items())


def test_with_labels_it_starts_like_plain_training() -> None:
    torch.manual_seed(0)
    plain, after = Pretrained(), torch.rand(3)
    module = maxl(generator="tiny")
    assert torch.equal(torch.rand(3), after)
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in plain.state_dict().items())


def test_accumulation_and_clipping_are_those_of_plain_training() -> None:
    torch.manual_seed(0)
    plain, module = Pretrained(), maxl(labels="none", accumulate_batches=2, gradient_clip_norm=0.01)
    module.scheduler = None
    first = fit(plain, accumulate_grad_batches=2, gradient_clip_val=0.01)
    second = fit(module)
    assert first.global_step == second.global_step == 3
    assert greatest_difference(module.classifier, plain.classifier) < 1e-12


@pytest.mark.parametrize("meta_gradient", ["normalised", "clipped", "raw"])
def test_without_entropy_and_with_v_zero_the_generator_learns_nothing(meta_gradient: str) -> None:
    module = maxl(entropy_weight=0.0, meta_gradient=meta_gradient)
    gradients = generator_gradient(module, v=0.0)
    assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients.values())
    assert any(g.norm() > 0 for g in generator_gradient(module, v=1.0).values())


def generator_gradient(module: MAXL, v: float, images: int = 6) -> dict[str, Tensor]:
    module.trainer = L.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    batch = next(iter(DataLoader(Noise(images), images)))
    learner, network = module.learner, module.network
    outputs = network(batch["image"])
    logits, labels = learner.generated(batch, outputs.features)
    optimizer = torch.optim.SGD(network.parameters(), LR)
    F.cross_entropy(outputs.logits, batch["label"]).backward()
    step = InnerStep(network, optimizer)
    inner = InnerBatch(Part(batch, 1.0), RandomState(torch.device("cpu")), logits, labels)
    direction = {name: torch.full_like(p, v) for name, p in network.named_parameters()}
    return learner.look_back([inner], step, direction).gradients


def test_a_normalised_meta_gradient_does_not_depend_on_its_length() -> None:
    module = maxl(entropy_weight=0.0, meta_gradient="normalised")
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
