"""The short help: what it begins with, how short it is, and that the options of a class are those that it has."""

import inspect

import pytest
from command_line import console, run_cli

from lightning_priors import priors, techniques
from lightning_priors.cli.main import CLASS_OPTIONS
from lightning_priors.cli.short_help import TRAINER, help_text
from lightning_priors.data import PriorDataModule, sources
from lightning_priors.techniques import Tuning


@pytest.fixture(autouse=True)
def _width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_the_overview_is_short_and_begins_with_what_is_ours(command):
    """In a process of its own, where no other test has added a class that it would list."""
    shown = console(command, "--help")
    assert shown.returncode == 0
    lines = shown.stdout.splitlines()
    assert len(lines) < 90
    assert all(len(line) <= 120 for line in lines)
    names = [line.split()[0] for line in lines if line[:2] == "  " != line[1:3]]
    assert names[0] == "AFR"
    assert {"CAMRestriction", "Restriction", "Waterbirds", "--data.image_size"} <= set(names)
    assert [name for name in names if name.startswith("--trainer.")] == [f"--trainer.{name}" for name in TRAINER]
    assert names.index("MAXL") < names.index("Restriction") < names.index("Table") < names.index("--data.seed")
    assert names[-1] == "--help-all"


@pytest.mark.parametrize(
    ("arguments", "owner"),
    [
        (["--model", "CAMRestriction", "--help"], techniques.CAMRestriction),
        (["--model=MAXL", "-h"], techniques.MAXL),
        (["--model.help", "CAMRestriction"], techniques.CAMRestriction),
        (["--model.help=lightning_priors.techniques.Auxiliary"], techniques.Auxiliary),
        (["--data.source", "Waterbirds", "--model", "MAXL", "--help"], sources.Waterbirds),
        (["--model", "Combined", "--model.priors+", "Restriction", "--help"], priors.Restriction),
    ],
)
def test_the_options_of_a_class_are_all_there_with_what_they_are(arguments, owner):
    text = help_text(["fit", *arguments], CLASS_OPTIONS)
    assert text.startswith(f"{owner.__name__}: ")
    expected = {name for name in inspect.signature(owner).parameters if name not in ("extra_metrics", "source")}
    if "tuning" in expected and owner is not techniques.Pretrained:
        expected = expected - {"tuning"} | {f"tuning.{name}" for name in inspect.signature(Tuning).parameters}
    lines = [line for line in text.splitlines() if line.startswith("  --")]
    option = lines[0].split()[0].removeprefix("--").rpartition(".")[0].removesuffix(".tuning")
    assert {line.split()[0].removeprefix(f"--{option}.") for line in lines} == expected
    told = text.replace("\n" + " " * 34, " ").splitlines()
    assert all(len(line.split(maxsplit=2)) > 2 for line in told if line.startswith("  --"))


def test_every_option_of_the_data_is_told():
    text = help_text(["fit", "--help"], CLASS_OPTIONS)
    assert all(f"--data.{name}" in text for name in inspect.signature(PriorDataModule).parameters)


def test_every_source_is_told():
    text = help_text(["fit", "--help"], CLASS_OPTIONS)
    told = set(text.replace(",", " ").split())
    kinds = [kind for kind in vars(sources).values() if inspect.isclass(kind) and issubclass(kind, sources.Source)]
    assert {kind.__name__ for kind in kinds if not inspect.isabstract(kind)} <= told


def test_a_class_that_is_not_there_is_one_line(capsys):
    for option in ("--model.help=Pretraind", "--model.help=no_module.Pretrained"):
        assert run_cli("fit", option) == 2
    assert "did you mean 'Pretrained'?" in capsys.readouterr().err


@pytest.mark.slow
def test_all_options_stay_within_reach(capsys):
    with pytest.raises(SystemExit) as stop:
        run_cli("fit", "--help-all")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "--trainer.detect_anomaly" in shown
    assert "--checkpoint.every_n_train_steps" in shown
