"""The comparison on CIFAR-100 and the published recipe run for two batches, on images of noise."""

import csv
from pathlib import Path

import pytest
from cifar_files import write_random_files
from command_line import REPOSITORY, main

SHORT = (
    "--data.source.download=false",
    "--data.batch_size=20",
    "--data.num_workers=0",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
)


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A tenth of the training images of each class is for validation, so that validation has all classes."""
    write_random_files(tmp_path / "data", train=1000, test=100)
    return f"--data.source.root={tmp_path / 'data'}"


@pytest.mark.slow
def test_the_comparison(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small network in place of VGG; the generators are those of the plan."""
    monkeypatch.chdir(REPOSITORY)
    plan, output = "experiments/maxl/cifar100.yaml", tmp_path / "runs"
    given = ["--seeds", "0", "--output", str(output), "--", root, *SHORT, "--model.backbone=tiny"]
    assert main(["compare", "-c", plan, *given]) == 0
    with (output / "runs.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["none", "human", "published_first_order", "maxl", "maxl_own_halves"]
    assert all(0 <= float(row["val/acc"]) <= 1 for row in rows.values())
    assert float(rows["maxl_own_halves"]["parameters"]) > 14e6 > float(rows["maxl"]["parameters"]), (
        "its generator is VGG"
    )


@pytest.mark.slow
def test_the_published_recipe(root: str, tmp_path: Path) -> None:
    configs = [str(REPOSITORY / "configs" / path) for path in ("techniques/maxl_cifar100.yaml", "data/cifar100.yaml")]
    layers = [word for path in configs for word in ("-c", path)]
    few = "--trainer.limit_val_batches=2"
    assert main(["fit", *layers, root, *SHORT, few, f"--trainer.default_root_dir={tmp_path}"]) == 0
    assert list(tmp_path.rglob("*.ckpt"))
