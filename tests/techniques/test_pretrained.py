"""Fine-tuning: what is trained when, at what rate, and how far from where it started."""

from pathlib import Path

import lightning as L
import pytest
import torch
import torch.nn.functional as F

from lightning_priors.errors import PriorError
from lightning_priors.nn import Classifier
from lightning_priors.priors.starting_point import l2_starting_point
from lightning_priors.techniques import Pretrained


@pytest.fixture
def weights(tmp_path: Path) -> str:
    torch.manual_seed(3)
    torch.save(Classifier(num_classes=4).state_dict(), tmp_path / "weights.pt")
    return str(tmp_path / "weights.pt")


def changed(before: dict[str, torch.Tensor], module: torch.nn.Module) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(before[name], value)}


class Snapshots(L.Callback):
    """The state at the start of every epoch."""

    def __init__(self) -> None:
        self.states: list[dict[str, torch.Tensor]] = []

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self.states.append({name: value.clone() for name, value in pl_module.classifier.state_dict().items()})


def test_step_is_cross_entropy_to_the_bit(batch) -> None:
    module, sample = Pretrained(), batch()
    assert torch.equal(module.step(sample).loss, F.cross_entropy(module(sample["image"]), sample["label"]))


def test_a_probe_changes_the_head_alone(fit, weights: str) -> None:
    snapshots = Snapshots()
    module = Pretrained(weights=weights, tuning="probe")
    fit(module, epochs=2, callbacks=[snapshots])
    assert changed(snapshots.states[0], module.classifier) == {"head.weight", "head.bias"}


def test_a_probe_is_logistic_regression_on_fixed_features(fit, weights: str, squares) -> None:
    """The trained head equals plain gradient descent on the features alone."""
    snapshots = Snapshots()
    module = Pretrained(weights=weights, tuning="probe", optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
                        scheduler=lambda o: torch.optim.lr_scheduler.ConstantLR(o, factor=1.0))  # fmt: skip
    trainer = fit(module, epochs=2, callbacks=[snapshots], shuffle=False)
    head = torch.nn.Linear(128, 2)
    head.load_state_dict({name: snapshots.states[0][f"head.{name}"] for name in ("weight", "bias")})
    module.classifier.backbone.eval()
    for _ in range(2):
        for sample in torch.utils.data.DataLoader(squares(24), batch_size=8):
            with torch.no_grad():
                features = module.classifier.backbone(sample["image"]).mean((2, 3))
            head.zero_grad()
            F.cross_entropy(head(features), sample["label"]).backward()
            with torch.no_grad():
                head.weight -= 0.1 * head.weight.grad
                head.bias -= 0.1 * head.bias.grad
    assert trainer.global_step == 6
    torch.testing.assert_close(module.classifier.head.weight, head.weight, rtol=1e-4, atol=1e-5)


def test_probe_then_tune_frees_everything_after_the_probe(fit, weights: str) -> None:
    snapshots = Snapshots()
    module = Pretrained(weights=weights, tuning="probe_then_tune", probe_epochs=1)
    fit(module, epochs=2, callbacks=[snapshots])
    first, second = snapshots.states
    assert {name for name in first if not torch.equal(first[name], second[name])} == {"head.weight", "head.bias"}
    trained = {name for name, _ in module.classifier.named_parameters()}
    assert trained <= changed(second, module.classifier)


def test_gradual_unfreezing_frees_from_the_head_downwards(fit, weights: str) -> None:
    snapshots = Snapshots()
    module = Pretrained(weights=weights, tuning="gradual", unfreeze_every=1)
    fit(module, epochs=5, callbacks=[snapshots])
    snapshots.on_train_epoch_start(None, module)
    free = []
    for before, after in zip(snapshots.states, snapshots.states[1:], strict=False):
        names = {name for name in before if name.endswith("weight") and not torch.equal(before[name], after[name])}
        free.append(sorted({int(name.split(".")[3]) for name in names if "blocks" in name}))
    assert free == [[], [3], [2, 3], [1, 2, 3], [0, 1, 2, 3]]


def test_layer_decay_scales_the_first_step_of_each_layer(fit, weights: str) -> None:
    """Under SGD a step is the rate times the gradient, so the ratio to a run without decay is the factor."""
    steps = []
    for decay in (1.0, 0.5):
        snapshots = Snapshots()
        torch.manual_seed(0)
        module = Pretrained(weights=weights, layer_decay=decay, optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
                            scheduler=lambda o: torch.optim.lr_scheduler.ConstantLR(o, factor=1.0))  # fmt: skip
        fit(module, callbacks=[snapshots], shuffle=False, limit_train_batches=1)
        before, after = snapshots.states[0], module.classifier.state_dict()
        steps.append({name: after[name] - before[name] for name, _ in module.classifier.named_parameters()})
    for name in steps[0]:
        height = 0 if name.startswith("head") else 4 - int(name.split(".")[3])
        torch.testing.assert_close(steps[1][name], steps[0][name] * 0.5**height, rtol=1e-3, atol=1e-7)


def test_l2_sp_is_zero_with_zero_gradient_at_the_start_and_pulls_back(fit, weights: str, batch) -> None:
    module = Pretrained(weights=weights, l2_sp=0.3)
    trainer = fit(module, epochs=1)
    assert {"train/loss_l2_sp", "train/loss_primary"} <= set(trainer.callback_metrics)
    parameters = [p for layer in module.classifier.backbone.layers() for p in layer]
    start = [p.detach() for layer in Classifier(4, "tiny", weights).backbone.layers() for p in layer]
    penalty = module.step(batch()).terms["l2_sp"]
    by_hand = 0.3 / 2 * sum(((p - s) ** 2).sum() for p, s in zip(parameters, start, strict=True))
    torch.testing.assert_close(penalty, by_hand)
    assert penalty > 0
    gradient = torch.autograd.grad(penalty, parameters)
    for g, p, s in zip(gradient, parameters, start, strict=True):
        torch.testing.assert_close(g, 0.3 * (p - s))


def test_l2_starting_point_gradcheck() -> None:
    start = [torch.randn(3, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)]
    now = [torch.randn_like(tensor, requires_grad=True) for tensor in start]
    assert torch.autograd.gradcheck(lambda *tensors: l2_starting_point(list(tensors), start), now)


def test_a_strong_l2_sp_keeps_the_network_nearer(fit, weights: str) -> None:
    distances = []
    for strength in (1e-6, 1.0):
        module = Pretrained(weights=weights, l2_sp=strength, lr=1e-2)
        fit(module, epochs=2)
        distances.append(module.classifier.backbone)
    start = Classifier(4, "tiny", weights).backbone.layers()
    weak, strong = (
        l2_starting_point([p for layer in backbone.layers() for p in layer], [p for layer in start for p in layer])
        for backbone in distances
    )
    assert strong < weak / 2


def test_l2_sp_needs_weights() -> None:
    with pytest.raises(PriorError, match="needs pretrained weights"):
        Pretrained(l2_sp=0.1)


def test_frozen_statistics(fit, weights: str) -> None:
    snapshots = Snapshots()
    module = Pretrained(weights=weights, freeze_statistics=True)
    fit(module, callbacks=[snapshots])
    moved = changed(snapshots.states[0], module.classifier)
    assert not any("running" in name for name in moved)
    assert "backbone.model.blocks.0.0.weight" in moved


def test_what_was_loaded_is_said(fit, weights: str, caplog) -> None:
    fit(Pretrained(weights=weights))
    assert f"weights from {weights}: 24 entries loaded, 0 missing, 2 (head.weight, head.bias) left out" in caplog.text
