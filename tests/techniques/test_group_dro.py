"""GroupDRO against the formulas of its authors, and on two ranks."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from processes import run_on_ranks
from train_group_dro_on_ranks import train

from lightning_priors.errors import PriorError
from lightning_priors.techniques import GroupDRO
from lightning_priors.techniques.group_dro import risen, size_adjustments

COUNTS = [50, 3, 7, 40]


def with_counts(module: GroupDRO, counts: list[int]) -> GroupDRO:
    module.facts = {
        "class_names": ["0", "1"], "image_size": [32, 32], "mean": [], "std": [], "group_counts": counts, "data": ""
    }  # fmt: skip
    return module


def reference_weights(weights, losses, adjustment, counts, step_size):
    """compute_robust_loss of https://github.com/kohpangwei/group_DRO/blob/master/loss.py, without normalize_loss."""
    adjusted = losses + adjustment / torch.sqrt(counts)
    weights = weights * torch.exp(step_size * adjusted)
    weights = weights / weights.sum()
    return weights, (losses + adjustment / torch.sqrt(counts)) @ weights


@pytest.mark.parametrize("adjustment", [0.0, 2.0])
def test_steps_are_those_of_the_authors(batch, adjustment: float) -> None:
    module, sample = with_counts(GroupDRO(step_size=0.3, adjustment=adjustment), COUNTS), batch(count=8)
    weights, counts = torch.full((4,), 0.25), torch.tensor(COUNTS, dtype=torch.float32)
    for _ in range(3):
        step = module.step(sample)
        each = F.cross_entropy(module(sample["image"]), sample["label"], reduction="none")
        losses = torch.stack([each[sample["group"] == group].mean() for group in range(4)])
        weights, loss = reference_weights(weights, losses.detach(), adjustment, counts, 0.3)
        torch.testing.assert_close(module.group_weights, weights)
        # the authors' value has the constants of the groups in it; the gradients are the same
        torch.testing.assert_close(step.loss, loss - adjustment / counts.sqrt() @ weights)
    (gradient,) = torch.autograd.grad(step.loss, module.classifier.head.bias)
    (expected,) = torch.autograd.grad(losses @ weights, module.classifier.head.bias)
    torch.testing.assert_close(gradient, expected)


def test_equal_losses_leave_the_weights_and_a_high_one_takes_all() -> None:
    weights = torch.tensor([0.1, 0.2, 0.7])
    torch.testing.assert_close(risen(weights, torch.full((3,), 5.0), 1.0), weights)
    assert risen(weights, torch.tensor([900.0, 0.0, 0.0]), 1.0).tolist() == [1, 0, 0]


def test_small_groups_get_more_and_empty_ones_nothing() -> None:
    assert size_adjustments(torch.tensor([4, 16, 0]), 8.0).tolist() == [4, 2, 0]


def test_groups_without_training_images_never_get_weight(batch) -> None:
    module = with_counts(GroupDRO(step_size=1.0, adjustment=1.0), [4, 0, 0, 4])
    sample = batch(count=8)
    keep = (sample["group"] == 0) | (sample["group"] == 3)
    module.step({key: value[keep] for key, value in sample.items()})
    assert module.group_weights[[1, 2]].tolist() == [0, 0]
    torch.testing.assert_close(module.group_weights.sum(), torch.tensor(1.0))


def test_a_group_that_is_learned_worse_gains_weight_and_a_resumed_run_keeps_it(batch) -> None:
    module, sample = with_counts(GroupDRO(step_size=0.5), COUNTS), batch(count=8)
    sample["label"] = torch.where(sample["group"] == 2, 1 - sample["label"], sample["label"])  # never learned
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    for _ in range(20):
        optimizer.zero_grad()
        module.step(sample).loss.backward()
        optimizer.step()
    assert module.group_weights.argmax() in (0, 2)  # group 0 looks like group 2, with the other label
    checkpoint = {"group_weights": module.group_weights}
    again = GroupDRO()
    again.on_load_checkpoint(checkpoint)
    assert torch.equal(again.group_weights, module.group_weights)


def test_counts_that_are_not_known(fit) -> None:
    with pytest.raises(PriorError, match=r"GroupDRO needs a data module whose group_counts\(\)"):
        fit(GroupDRO())


@pytest.mark.slow
@pytest.mark.filterwarnings(r"ignore:Found 4 module\(s\) in eval mode:UserWarning")
def test_two_ranks_train_what_one_trains(tmp_path: Path) -> None:
    train(tmp_path, 1)
    script = Path(__file__).parent / "train_group_dro_on_ranks.py"
    run_on_ranks(2, script, str(tmp_path), "2")
    one, *two = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1"))
    assert one["weights"].max() > 0.27, "they have moved"
    for other in two:
        for name, value in one["state"].items():
            torch.testing.assert_close(other["state"][name], value, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(other["weights"], one["weights"])
