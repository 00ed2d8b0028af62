"""The commands that load a run take a technique of the user's own by its dotted name, and import nothing unasked."""

import csv
import json
import sys
from pathlib import Path

import pytest
from command_line import SMALL, TOY, run_cli

OWN = TOY.replace("class Toy", "class OwnToy")
RUN = "runs/OwnToy/version_0"


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory):
    """A folder with a technique of the user's own and a run of it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_toy.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_cli("fit", "--model=own_toy.OwnToy", *SMALL, "--trainer.max_epochs=1") == 0
        sys.modules.pop("own_toy")
    return folder


@pytest.fixture(autouse=True)
def _in_its_folder(toy_run, monkeypatch):
    monkeypatch.chdir(toy_run)
    yield
    sys.modules.pop("own_toy", None)


def error(capsys):
    return capsys.readouterr().err.splitlines()[-1]


def test_predict_finds_it(tmp_path):
    picture = next(Path(RUN).glob("panels/*.png"))
    assert run_cli("predict", RUN, str(picture), "--out", str(tmp_path / "said.csv"), "--own", "own_toy.OwnToy") == 0
    with (tmp_path / "said.csv").open(newline="") as file:
        assert [row["label"] in ("kakapo", "other bird") for row in csv.DictReader(file)] == [True]


@pytest.mark.parametrize("own", [("--own", "own_toy.OwnToy"), ("--own=own_toy.OwnToy",)])
def test_explain_finds_it(own, tmp_path):
    assert run_cli("explain", RUN, "--out", str(tmp_path), *own) == 0
    assert json.loads((tmp_path / "test.json").read_text())


def test_export_finds_it(tmp_path):
    path = tmp_path / "toy.safetensors"
    assert run_cli("export", RUN, "--format=safetensors", f"--out={path}", "--own=own_toy.OwnToy") == 0
    assert path.is_file()


def test_without_the_option_its_module_is_not_imported(capsys):
    assert run_cli("predict", RUN, "no.png") == 2
    assert "names the technique 'OwnToy'; give its class as technique (--own)" in error(capsys)
    assert "own_toy" not in sys.modules


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("own_toy.OwnToi", "error: --own: there is no class 'own_toy.OwnToi'; did you mean 'own_toy.OwnToy'?"),
        ("own_tou.OwnToy", "error: --own: there is no module 'own_tou'; did you mean 'own_toy'?"),
        ("Toy", "error: --own takes a dotted name such as my_techniques.LabelSmoothing, not 'Toy'"),
        (
            "../own_toy.OwnToy",
            "error: --own takes a dotted name such as my_techniques.LabelSmoothing, not '../own_toy.OwnToy'",
        ),
    ],
)
def test_a_wrong_name_is_one_line(name, line, capsys):
    assert run_cli("predict", RUN, "no.png", "--own", name) == 2
    assert error(capsys) == line


def test_a_module_that_fails_is_named(capsys):
    Path("own_broken.py").write_text("import math\nmath.sqrt(-1)\n")
    assert run_cli("predict", RUN, "no.png", "--own", "own_broken.OwnToy") == 2
    assert "own_broken.py, line 2: ValueError" in error(capsys)


def test_a_name_of_two_techniques_is_refused(capsys):
    Path("own_second.py").write_text(OWN)
    assert run_cli("predict", RUN, "no.png", "--own", "own_toy.OwnToy", "--own", "own_second.OwnToy") == 2
    sys.modules.pop("own_second").OwnToy.__name__ = "Another"  # the other tests come before or after
    assert "names the technique 'OwnToy', which several modules have: own_toy, own_second" in error(capsys)
