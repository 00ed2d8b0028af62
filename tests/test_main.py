"""The light front: what it answers itself, what it hands over, and what it does not import."""

import doctest
import importlib.util
import signal
import subprocess
import sys
import time
import tomllib
import weakref
from pathlib import Path

import pytest
from command_line import REPOSITORY, finish, run_cli, start_new

import lightning_priors
from lightning_priors import cli
from lightning_priors.__main__ import COMMANDS, last_line
from lightning_priors.errors import PriorError


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"]])
def test_help_names_every_command(arguments, capsys):
    assert run_cli(*arguments) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in COMMANDS)


def test_version_is_that_of_the_distribution(capsys):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert run_cli("--version") == 0
    assert capsys.readouterr().out == f"lightning-priors {project['version']}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["ftt"], "error: there is no command 'ftt'; did you mean 'fit'?\n"),
        ([], f"error: a command is missing; choose from {', '.join(COMMANDS)}\n"),
        (["--trainer.max_epochs=3", "fit"], "error: there is no command '--trainer.max_epochs=3'; choose from "),
    ],
)
def test_a_wrong_command_is_one_line(arguments, line, capsys):
    assert run_cli(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(line)
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_ctrl_c_is_130_without_a_traceback(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "main", interrupted)
    assert run_cli("fit") == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.fixture
def hears_ctrl_c():
    """A shell starts its background jobs deaf to Ctrl-C, and the suite may be one."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_the_examples_of_the_front_run():
    """Pytest passes over the examples in a module of this name."""
    found = doctest.testmod(importlib.import_module("lightning_priors.__main__"))
    assert found.attempted > 5
    assert found.failed == 0


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_in_a_callback_whose_errors_python_ignores_is_130(monkeypatch, capsys):
    def interrupted_while_a_reference_dies(arguments):
        thing = {1}
        gone = weakref.ref(thing, lambda reference: signal.raise_signal(signal.SIGINT))  # noqa: F841
        del thing
        time.sleep(60)

    monkeypatch.setattr(cli, "main", interrupted_while_a_reference_dies)
    hook = sys.unraisablehook
    assert run_cli("fit") == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert sys.unraisablehook is hook


def test_another_error_in_such_a_callback_is_told_as_before(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    def fails_while_a_reference_dies(arguments):
        thing = {1}
        gone = weakref.ref(thing, lambda reference: 1 / 0)  # noqa: F841
        del thing
        return 0

    monkeypatch.setattr(cli, "main", fails_while_a_reference_dies)
    assert run_cli("fit") == 0
    assert [dropped.exc_type for dropped in told] == [ZeroDivisionError]


def test_a_command_gets_its_arguments_and_gives_the_exit_code(monkeypatch):
    monkeypatch.setattr(cli, "main", lambda arguments: 7 if arguments == ["test", "--x", "1"] else 0)
    assert run_cli("test", "--x", "1") == 7


def test_compare_gets_the_arguments_after_its_name(monkeypatch):
    from lightning_priors import compare

    monkeypatch.setattr(compare, "main", lambda arguments: 5 if arguments == ["-c", "plan.yaml"] else 0)
    assert run_cli("compare", "-c", "plan.yaml") == 5


@pytest.mark.parametrize("name", COMMANDS)
def test_the_module_of_every_command_is_there(name):
    spec = importlib.util.find_spec(COMMANDS[name][1])
    assert spec is not None
    assert "main" in Path(spec.origin).read_text()


def _imported_by(code: str) -> set[str]:
    command = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout
    return set(shown.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import lightning_priors",
        "from lightning_priors.__main__ import main; main(['--help'])",
        "from lightning_priors.__main__ import main; main(['ftt'])",
        "from lightning_priors.__main__ import main; main(['compare', '--help'])",
    ],
)
def test_what_must_answer_at_once_imports_nothing_heavy(code):
    assert not _imported_by(code) & {
        "torch",
        "lightning",
        "torchvision",
        "numpy",
        "wandb",
        "matplotlib",
        "jsonargparse",
    }


@pytest.mark.slow
def test_the_command_line_imports_no_tracker_and_no_model_zoo_and_asks_for_no_gpu():
    """Jobs of a comparison are forked by a process that has imported this, which one that knows a GPU cannot do."""
    code = "import torch\ntorch.cuda.is_available = torch.cuda.device_count = torch.cuda.init = None\n"
    found = _imported_by(f"{code}import lightning_priors.cli, lightning_priors.compare.run")
    assert not found & {"wandb", "timm", "pandas"}


def test_public_names_load_on_first_use():
    from lightning_priors import techniques

    names = {*lightning_priors._HOMES, *techniques.__all__}
    assert (
        {"Pretrained", "CAMRestriction", "PriorDataModule", "Classifier", "PriorError"}
        <= names
        <= set(dir(lightning_priors))
    )
    for name in names:
        value = getattr(lightning_priors, name)
        assert value.__name__ == name
        assert value.__module__.startswith("lightning_priors.")


@pytest.mark.parametrize("name", ["Pretraind", "annotations", "_private", "__wrapped__"])
def test_an_unknown_name_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
        getattr(lightning_priors, name)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a.png is broken", "a.png is broken"),
        (
            "Caught PriorError in worker 1.\nOriginal Traceback:\n  x\na.b.PriorError: a.png is broken\n",
            "a.png is broken",
        ),
        ("", "PriorError"),
    ],
)
def test_the_line_of_an_error(text, line):
    assert last_line(PriorError(text)) == line


def test_the_console_script_and_the_module_are_the_same():
    scripts = tomllib.loads(Path(REPOSITORY, "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"lightning-priors": "lightning_priors.__main__:main"}
    process = start_new("--version")
    out, err = finish(process)
    assert (process.returncode, out, err) == (0, f"lightning-priors {lightning_priors.__version__}\n", "")


def _shell(line: str) -> "subprocess.CompletedProcess[str]":
    command = f"{sys.executable} -m lightning_priors"
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line.replace('lightning-priors', command)}"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )


@pytest.mark.parametrize("command", ["--help", "configs"])
def test_a_reader_that_goes_away_is_no_failure(command):
    shown = _shell(f"lightning-priors {command} | true")
    assert shown.returncode in (0, 141)
    assert shown.stderr == ""


@pytest.mark.slow
def test_a_reader_that_goes_away_during_a_long_command_is_no_failure():
    shown = _shell("lightning-priors fit --help-all | head -1")
    assert shown.returncode in (0, 141)
    assert shown.stderr == ""
    assert shown.stdout.startswith("usage: lightning-priors")


def test_a_full_disk_is_one_line():
    shown = _shell("lightning-priors configs > /dev/full")
    assert shown.returncode == 1
    assert shown.stderr == "error: No space left on device\n"
