"""``explain`` as a user calls it: its numbers are those of ``test``, and a mistake is one line."""

import json
from pathlib import Path

import pytest
import timm
import torch
from command_line import SMALL, run_cli

DATA = tuple(option for option in SMALL if option.startswith("--data"))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of the command line."""
    folder = tmp_path_factory.mktemp("explain")
    root = f"--trainer.default_root_dir={folder}"
    assert run_cli("fit", "--model=Pretrained", *SMALL, root, "--trainer.max_epochs=1") == 0
    return folder / "Pretrained" / "version_0"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    """A file of timm's."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("timm") / "resnet18.pth"
    torch.save(timm.create_model("resnet18", num_classes=2).state_dict(), path)
    return str(path)


def numbers_of(folder: Path, name: str) -> dict:
    assert (folder / f"{name}.html").stat().st_size < 8e6
    return json.loads((folder / f"{name}.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("split", "command"), [("val", "validate"), ("test", "test")])
def test_the_numbers_are_those_of_the_command(run, split, command, tmp_path):
    assert run_cli("explain", str(run), f"--split={split}", f"--out={tmp_path}") == 0
    said = numbers_of(tmp_path, split)["run"]
    root = f"--trainer.default_root_dir={tmp_path}"
    checkpoint = f"--ckpt_path={run}/checkpoints/best.ckpt"
    assert run_cli(command, "-c", f"{run}/config.yaml", checkpoint, root) == 0
    header, row = next(tmp_path.glob("Pretrained/*/metrics.csv")).read_text().splitlines()
    logged = dict(zip(header.split(","), row.split(","), strict=True))
    pairs = {"accuracy": "acc", "f1_macro": "f1_macro", "ece": "ece", "worst_group_acc": "worst_group_acc"}
    for ours, theirs in pairs.items():
        assert said[ours] == pytest.approx(float(logged[f"{split}/{theirs}"]), abs=1e-6), ours
    for name in ("epg", "pointing_game"):
        assert said["evidence"][name] == pytest.approx(float(logged[f"{split}/{name}"]), abs=1e-5), name


def test_a_run_against_itself_does_not_differ(run, capsys):
    assert run_cli("explain", str(run), f"--against={run}/checkpoints/last.ckpt", "--device=cpu") == 0
    numbers = numbers_of(run / "explain", "test_against")
    assert numbers["difference"]["accuracy"]["mean"] == 0
    assert (numbers["run"]["name"], numbers["against"]["name"]) == ("Pretrained 1", "Pretrained 2")
    shown = capsys.readouterr().out
    assert shown.endswith(f"{run}/explain/test_against.html\n{run}/explain/test_against.json\n")


def test_a_classifier_of_timm(weights, tmp_path):
    arguments = ("--timm=resnet18", f"--weights={weights}", "--data.source=Kakapo", *DATA, f"--out={tmp_path}")
    assert run_cli("explain", *arguments) == 0
    assert numbers_of(tmp_path, "test")["run"]["checkpoint"] == f"resnet18 with {weights}"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nowhere"], "there is no run or checkpoint nowhere"),
        ([], "without RUN nothing says which data to look at; give it by -c CONFIG or --data.source CLASS"),
        (["RUN", "--splt=val"], "there is no option --splt; did you mean '--split'?"),
        (["RUN", "--split=train"], "--split cannot be 'train'; choose from test, val"),
        (["RUN", "--against=nowhere"], "there is no run or checkpoint nowhere"),
        (["RUN", "--timm=resnet18"], "explain needs RUN, as its first argument, or --timm NAME --weights FILE"),
        (["--timm=resnet18", "--data.source=Kakapo"], "--timm NAME and --weights FILE belong together"),
        (["RUN", "--data.source=CIFAR100", "--data.source.root=nowhere"], "no folder nowhere: "),
    ],
)
def test_a_mistake_is_one_line(run, arguments, line, capsys):
    given = [str(run) if argument == "RUN" else argument for argument in arguments]
    assert run_cli("explain", *given) == 2
    told = capsys.readouterr()
    assert told.err.splitlines()[-1].startswith(f"error: {line}")
    assert "Traceback" not in told.err
    assert told.out == ""


def test_another_number_of_classes_and_an_empty_split_are_one_line(run, weights, tmp_path, capsys):
    from PIL import Image

    for name in ("train/a/1.png", "train/b/2.png", "train/c/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    data = ("--data.source=ImageFolderSource", f"--data.source.root={tmp_path}")
    assert run_cli("explain", str(run), *data) == 2
    assert "has 2 classes (kakapo, other bird), the data 3 (a, b, c)" in capsys.readouterr().err
    assert run_cli("explain", "--timm=resnet18", f"--weights={weights}", *data) == 2
    assert capsys.readouterr().err.endswith("has 2 classes, the data 3: a, b, c\n")
    (tmp_path / "train" / "c" / "3.png").unlink()
    (tmp_path / "train" / "c").rmdir()
    assert run_cli("explain", str(run), *data) == 2
    assert "the test split of ImageFolderSource is empty: give the data a test split" in capsys.readouterr().err


def test_help_is_that_of_the_command(capsys):
    with pytest.raises(SystemExit):
        run_cli("explain", "--help")
    shown = capsys.readouterr().out
    assert "--against" in shown
    assert "--data.source" in shown
