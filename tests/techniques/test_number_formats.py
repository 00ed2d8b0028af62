"""Every technique in every number format: it trains and evaluates as in float32, or is refused in a line."""

import warnings

import lightning as L
import pytest
import torch
from squares import Squares
from test_protocol import EVERY, build
from torch.utils.data import DataLoader

from lightning_priors.errors import PriorError

KEYS = ("mask", "part_boxes", "aux_labels", "group", "keypoints")


def trained(name: str, accelerator: str = "cpu", **options) -> tuple[L.LightningModule, dict[str, float]]:
    """A technique after two steps, and what was measured; the technique's own random draws are the same each time."""
    L.seed_everything(0, verbose=False)
    # in float64 these would draw other numbers
    steady = {"jitter": 0.0, "exchange_background": False} if name.startswith("GlobalLocal") else {}
    module = build(name, **steady)
    quiet = dict.fromkeys(["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False)
    trainer = L.Trainer(max_epochs=1, accelerator=accelerator, devices=1, **quiet, **options)
    data = DataLoader(Squares(16, keys=KEYS), batch_size=8)
    trainer.fit(module, data, data)
    found = {key: float(value) for key, value in trainer.callback_metrics.items()}
    return module, found | trainer.test(module, data, verbose=False)[0]


@EVERY
@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed", "bf16-true", "64-true"])
def test_trains_as_in_single_precision(name, precision):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*GradScaler.*|.*CUDA is not available.*|.*bf16.*")
        module, found = trained(name, precision=precision)
    _, expected = trained(name)
    dtype = {"bf16-true": torch.bfloat16, "64-true": torch.float64}.get(precision, torch.float32)
    assert {value.dtype for key, value in module.named_parameters()} == {dtype}
    assert found.keys() == expected.keys()
    assert found["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-4 if precision == "64-true" else 0.2)
    assert found["test/loss"] == pytest.approx(expected["test/loss"], rel=1e-4 if precision == "64-true" else 0.2)


@EVERY
def test_half_precision_alone_is_refused(name):
    with pytest.raises(PriorError, match=r"^precision 16-true trains nothing: .* use 16-mixed$"):
        trained(name, precision="16-true")


@EVERY
def test_trains_deterministically(name):
    """Two runs are equal to the bit, and no operation is used that could not be."""
    try:
        (first, found), (second, again) = (trained(name, deterministic=True) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert found == again
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@EVERY
@pytest.mark.parametrize(("precision", "tolerance"), [("32-true", 0.02), ("16-mixed", 0.2), ("bf16-mixed", 0.2)])
def test_trains_on_a_gpu_as_on_the_cpu(name, precision, tolerance):
    module, found = trained(name, accelerator="gpu", precision=precision)
    _, expected = trained(name)
    assert all(torch.isfinite(value).all() for value in module.parameters())
    assert found.keys() == expected.keys()
    assert found["train/loss"] == pytest.approx(expected["train/loss"], rel=tolerance)
    assert found["test/loss"] == pytest.approx(expected["test/loss"], rel=tolerance)
