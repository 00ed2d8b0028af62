"""What holds exactly of priors that are put together."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_priors.batch import PriorBatch, PriorSample
from lightning_priors.nn import Classifier
from lightning_priors.priors import AuxiliaryTasks, GuidedAttention, Prior, Restriction, StartingPoint
from lightning_priors.techniques import Auxiliary, CAMRestriction, Combined, Pretrained, PriorAttention, PriorModule

SIZES = [4, 3]


class Noise(Dataset[PriorSample]):
    """Images of noise with every kind of annotation, of which some images lack each kind."""

    def __init__(self, images: int = 20, size: int = 32) -> None:
        self.images, self.size = images, size

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> PriorSample:
        generator = torch.Generator().manual_seed(index)
        corner = torch.randint(0, self.size // 2, (2,), generator=generator)
        mask = torch.zeros(self.size, self.size)
        mask[corner[0] : corner[0] + self.size // 2, corner[1] : corner[1] + self.size // 2] = 1
        labels = [int(torch.randint(-1, size, (), generator=generator)) for size in SIZES]
        return {
            "image": torch.randn(3, self.size, self.size, generator=generator),
            "label": torch.tensor(index) % 2,
            "mask": mask,
            "mask_valid": torch.tensor(index % 3 > 0),
            "part_boxes": torch.tensor([[corner[1], corner[0], corner[1] + 8, corner[0] + 8]]).float(),
            "part_valid": torch.tensor([index % 4 > 0]),
            "aux_labels": torch.tensor(labels),
        }


@pytest.fixture
def weights(tmp_path: Path) -> str:
    torch.manual_seed(3)
    torch.save(Classifier(num_classes=4).state_dict(), tmp_path / "weights.pt")
    return str(tmp_path / "weights.pt")


def train(build: Callable[[], PriorModule], epochs: int = 1, precision: str = "32-true") -> tuple[PriorModule, dict]:
    """Trains a module from the same first weights on the same images; gives it and what was logged."""
    L.seed_everything(0, verbose=False)
    module = build()
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, precision=precision,
    )  # fmt: skip
    trainer.fit(module, DataLoader(Noise(), 8, shuffle=True), DataLoader(Noise(8), 8))
    return module, {name: value.item() for name, value in trainer.callback_metrics.items()}


def batch(images: int = 6) -> PriorBatch:
    return next(iter(DataLoader(Noise(images), images)))


TECHNIQUES = {
    "restriction": (
        partial(CAMRestriction, weight=0.7, weight_warmup_epochs=0.5),
        lambda: Restriction(weight=0.7, weight_warmup_epochs=0.5),
    ),
    "restriction of everything": (
        partial(CAMRestriction, hard_mask=True, found_regions=True, exchange_background=True, prior="part_boxes"),
        lambda: Restriction(hard_mask=True, found_regions=True, exchange_background=True, prior="part_boxes"),
    ),
    "attention": (partial(PriorAttention, residual=False), lambda: GuidedAttention(residual=False)),
    "attention of tokens": (
        partial(PriorAttention, attention="tokens", backbone="test_vit"),
        lambda: GuidedAttention(attention="tokens"),
    ),
    "auxiliary": (partial(Auxiliary, exclude_target=True), lambda: AuxiliaryTasks(exclude_target=True)),
    "multitask": (
        partial(Auxiliary, mode="multitask", weighting="uncertainty", aux_weight=0.5),
        lambda: AuxiliaryTasks(mode="multitask", weighting="uncertainty", weight=0.5),
    ),
    "looking ahead": (partial(Auxiliary, weighting="lookahead"), lambda: AuxiliaryTasks(weighting="lookahead")),
    "starting point": (partial(Pretrained, l2_sp=0.1), lambda: StartingPoint(0.1)),
}


@pytest.mark.parametrize("name", list(TECHNIQUES))
def test_combined_of_one_prior_is_its_technique_to_the_bit(name: str, weights: str) -> None:
    """All weights, and whatever is logged, over two epochs with a short last batch."""
    technique, prior = TECHNIQUES[name]
    options = {"backbone": technique.keywords.get("backbone", "tiny")}
    options |= {"weights": weights} if name == "starting point" else {}
    given = {"aux_num_classes": SIZES} if technique.func is Auxiliary else {}
    alone, logged = train(lambda: technique(**{**options, **given}), epochs=2)
    combined, also = train(lambda: Combined([prior()], aux_num_classes=SIZES, **options), epochs=2)
    assert logged == also
    state = alone.state_dict()
    assert state.keys() == combined.state_dict().keys()
    assert all(torch.equal(value, state[key]) for key, value in combined.state_dict().items())


def test_combined_of_none_is_plain_training_to_the_bit() -> None:
    plain, logged = train(Pretrained)
    combined, also = train(Combined)
    assert logged == also
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in combined.state_dict().items())


def switched_off() -> list[Prior]:
    return [
        Restriction(weight=0.0, found_regions=True),
        GuidedAttention(weight=0.0),
        AuxiliaryTasks(weight=0.0, mode="multitask", weighting="uncertainty"),
        StartingPoint(weight=0.0),
    ]


@pytest.mark.parametrize("others", [lambda: [], lambda: [Restriction(found_regions=True)], lambda: [AuxiliaryTasks()]])
def test_priors_of_weight_zero_change_nothing_to_the_bit(others: Callable[[], list[Prior]]) -> None:
    alone, logged = train(lambda: Combined(others(), aux_num_classes=SIZES))
    beside, also = train(lambda: Combined([*switched_off(), *others()], aux_num_classes=SIZES))
    assert logged == also
    for first, second in zip(alone.parameters(), beside.parameters(), strict=True):
        assert torch.equal(first, second)


def several() -> dict[str, Prior]:
    return {
        "restriction": Restriction(weight=0.7, found_regions=True, exchange_background=True),
        "attention": GuidedAttention(weight=0.5, prior="part_boxes"),
        "auxiliary": AuxiliaryTasks(weighting="gradient_similarity"),
        "starting point": StartingPoint(0.1),
    }


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["tiny", "resnet18"])
def test_the_order_of_the_priors_changes_nothing_but_rounding(backbone: str, tmp_path: Path) -> None:
    """Not even what is drawn: first weights of the priors' parts, and the order in which backgrounds are exchanged."""
    torch.manual_seed(3)
    torch.save(Classifier(num_classes=4, backbone=backbone).state_dict(), tmp_path / "weights.pt")
    names = list(several())
    turned = [names[start:] + names[:start] for start in range(len(names))]
    orders = [*turned, *(order[::-1] for order in turned)]  # each prior in each place, each pair in both orders
    if backbone != "tiny":
        orders = [names, names[::-1]]
    options = {"backbone": backbone, "weights": str(tmp_path / "weights.pt"), "aux_num_classes": SIZES}
    found = []
    for order in orders:
        module, logged = train(
            lambda order=order: Combined([several()[name] for name in order], **options), precision="64-true"
        )
        by_name = dict(zip(order, module.priors, strict=True))
        states = [by_name[name].state_dict() for name in several()]
        found.append((module.classifier.state_dict(), states, logged))
    for classifier, states, logged in found[1:]:
        torch.testing.assert_close(classifier, found[0][0], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(states, found[0][1], rtol=1e-9, atol=1e-11)
        assert logged == pytest.approx(found[0][2], rel=1e-6)


ABSENT = {
    "restriction": ("mask_valid", {"restriction", "finder"}),
    "attention": ("part_valid", {"attention"}),
    "auxiliary": ("aux_labels", {"aux0", "aux1"}),
}


@pytest.mark.parametrize("name", list(ABSENT))
def test_absent_annotation_of_one_prior_leaves_the_terms_of_the_others(name: str) -> None:
    """And their gradients; what the absent one adds is zero, with a gradient of zero."""
    torch.manual_seed(0)
    priors = several()
    del priors["starting point"]
    priors["restriction"] = Restriction(weight=0.7, found_regions=True)
    priors["auxiliary"] = AuxiliaryTasks()
    module, sample = Combined(list(priors.values()), aux_num_classes=SIZES).double().eval(), batch()
    sample["image"] = sample["image"].double()
    key, own = ABSENT[name]
    absent = {**sample, key: torch.full_like(sample[key], -1 if key == "aux_labels" else 0)}
    whole, left = module.step(sample).terms, module.step(absent).terms
    parameters = [p for p in module.parameters() if p.requires_grad]
    assert whole.keys() == left.keys()
    for term in whole.keys() - own:
        assert torch.equal(whole[term], left[term])
        for first, second in zip(gradients(whole[term], parameters), gradients(left[term], parameters), strict=True):
            assert torch.equal(first, second)
    for term in own - ({"restriction"} if name == "restriction" else set()):  # what is found restricts all the same
        assert left[term] == 0 < whole[term]
        assert not any(gradient.any() for gradient in gradients(left[term], parameters))


def gradients(term: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]


def test_replacing_comes_before_weighing_in_the_same_map() -> None:
    """In a network of one resolution both happen to the last map: attention looks at what was exchanged."""
    torch.manual_seed(0)
    attention = GuidedAttention()
    module = Combined([attention, Restriction(exchange_background=True)]).eval()
    seen: list[Tensor] = []
    attention.branch.register_forward_pre_hook(lambda branch, inputs: seen.append(inputs[0]))
    sample = batch()
    sample["mask_valid"][:] = True
    module.step(sample)
    assert not torch.equal(seen[0], module.classifier.backbone(sample["image"]))


def test_the_weights_of_cells_are_multiplied() -> None:
    """Two hard masks leave the cells that both allow; where they have none in common, all cells count."""
    torch.manual_seed(0)
    hard = {"weight": 0.0, "hard_mask": True}
    module = Combined([Restriction(**hard), Restriction(prior="part_boxes", **hard)]).eval()
    sample = batch(3)
    sample["mask"], sample["mask_valid"] = torch.zeros(3, 32, 32), torch.ones(3, dtype=torch.bool)
    sample["mask"][:, :16] = 1
    sample["part_boxes"] = torch.tensor([[[0.0, 0, 16, 32]], [[0.0, 16, 32, 32]], [[0.0, 0, 32, 32]]])
    sample["part_valid"] = torch.tensor([[True], [True], [False]])
    _, cam = module.explain(sample["image"])
    bias = module.classifier.head.bias
    expected = [cam[0, :, :2, :2], cam[1], cam[2, :, :2]]
    for logits, cells in zip(module.step(sample).logits, expected, strict=True):
        torch.testing.assert_close(logits, cells.flatten(1).mean(1) + bias)
