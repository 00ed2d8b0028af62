"""The command init: what it finds in data of one's own, and that what it writes and says can be run."""

import csv
import json
import shlex
from pathlib import Path

import pytest
import yaml
from command_line import REPOSITORY, run_cli
from torchvision.transforms.functional import to_pil_image

from lightning_priors.compare.plan import read_plan
from lightning_priors.compare.resolve import resolve
from lightning_priors.data import sources
from lightning_priors.data.own_data import recognise
from lightning_priors.data.sources import Kakapo
from lightning_priors.errors import PriorError

BIRDS = Kakapo(train_size=24, val_size=4, test_size=4, size=32)
QUICK = ("--model.backbone=tiny", "--model.weights=none", "--data.image_size=32", "--trainer.accelerator=cpu",
         "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")  # fmt: skip


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def save(path: Path, index: int) -> str:
    """Saves a drawn bird; gives the name of its class."""
    sample = BIRDS.load(index)
    path.parent.mkdir(parents=True, exist_ok=True)
    to_pil_image(sample["image"]).save(path)
    return BIRDS.classes[sample["label"]]


def class_folders(root: Path) -> None:
    for index in BIRDS.indices("train"):
        save(root / BIRDS.classes[BIRDS.label(index)] / f"{index}.png", index)


def split_folders(root: Path) -> None:
    for split in ("train", "val", "test"):
        for index in BIRDS.indices(split):
            place = Path(split, BIRDS.classes[BIRDS.label(index)], f"{index}.png")
            save(root / place, index)
            if index % 2:
                (root / "masks" / place).parent.mkdir(parents=True, exist_ok=True)
                to_pil_image(BIRDS.load(index)["mask"]).save(root / "masks" / place)


def table(root: Path) -> None:
    rows = [("file_name", "class", "subset", "species", "photographer")]
    for split in ("train", "val", "test"):
        for number, index in enumerate(BIRDS.indices(split)):
            name = save(root / "images" / f"{index}.png", index)
            species = "kakapo" if name == "kakapo" else ("kea", "kaka")[number % 4 // 2]
            rows.append((f"images/{index}.png", name, split, species, f"photographer {index}"))
    with (root / "birds.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


KINDS = {"class folders": class_folders, "split folders with masks": split_folders, "table with finer labels": table}
EXPECTED = {"class folders": "Pretrained", "split folders with masks": "CAMRestriction",
            "table with finer labels": "Auxiliary"}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_and_said_can_be_run(kind, capsys, monkeypatch):
    KINDS[kind](Path("data"))
    assert run_cli("init", "mine", "--data", "data") == 0
    said = capsys.readouterr().out
    assert f"technique: {EXPECTED[kind]}, because" in said
    tried, trained, compared = (
        shlex.split(line) for line in said.splitlines() if line.startswith("  lightning-priors")
    )
    assert (tried[1], trained[1], compared[1]) == ("fit", "fit", "compare")
    assert run_cli(*tried[1:], *QUICK) == 0
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")  # its paths hold from everywhere
    plan = read_plan("../mine/compare.yaml")
    assert len({task.digest for task in resolve(plan)}) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_is_found(kind, capsys):
    KINDS[kind](Path("data"))
    assert run_cli("init", "mine", "--data", "data") == 0
    chosen = yaml.safe_load(Path("mine/data.yaml").read_text())["data"]["source"]
    source = getattr(sources, chosen["class_path"])(**chosen["init_args"])
    source.setup()
    assert source.classes == ["kakapo", "other bird"]
    counts = {split: len(source.indices(split)) for split in ("train", "val", "test")}
    drawn = kind == "class folders"  # a fifth of each class is for the test
    assert counts == ({"train": 19, "val": 0, "test": 5} if drawn else {"train": 24, "val": 4, "test": 4})
    found = {Path(source.file(index)).stem: source.label(index) for split in counts for index in source.indices(split)}
    assert found == {
        str(i): BIRDS.label(i) for split in counts for i in BIRDS.indices(split) if not drawn or split == "train"
    }
    assert source.aux_classes == ({"species": ["kaka", "kakapo", "kea"]} if "finer" in kind else {})
    comment = [line for line in Path("mine/data.yaml").read_text().splitlines() if line.startswith("#")]
    assert f"{counts['train']} train" in comment[0]
    assert ("mask in 12 of 24" in "\n".join(comment)) == ("masks" in kind)


def test_nothing_is_overwritten(capsys):
    class_folders(Path("data"))
    Path("mine").mkdir()
    Path("mine/compare.yaml").write_text("mine")
    assert run_cli("init", "mine", "--data", "data") == 2
    assert capsys.readouterr().err.startswith("error: mine/compare.yaml is there already")
    assert [path.name for path in Path("mine").iterdir()] == ["compare.yaml"]
    assert Path("mine/compare.yaml").read_text() == "mine"


def test_what_is_wrong_with_the_data_is_one_line_and_writes_nothing(capsys):
    table(Path("data"))
    Path("data/birds.csv").write_text("file_name,class,subset\na.png,kea,trian\n")
    assert run_cli("init", "mine", "--data", "data") == 2
    shown = capsys.readouterr().err
    assert "trian" in shown
    assert "did you mean 'train'?" in shown
    assert shown.count("\n") == 1
    assert not Path("mine").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "error: init: the following arguments are required: FOLDER\n"),
        (["mine", "--dat", "x"], "error: init has no option --dat; did you mean '--data'?\n"),
        (["nowhere"], "error: there is no file or folder nowhere; give your data with --data PATH\n"),
        (["."], " is neither a folder of class folders, nor a table (CSV)"),
    ],
)
def test_a_mistake_is_one_line(arguments, line, capsys):
    assert run_cli("init", *arguments) == 2
    shown = capsys.readouterr().err
    assert line in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize("place", ["result.json", "annotations/instances_default.json", "train/_annotations.coco.json"])
def test_a_coco_export_is_recognised(place):
    Path("export", place).parent.mkdir(parents=True, exist_ok=True)
    Path("export", place).write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    found = recognise(Path("export"))
    assert (found.source, found.options) == (
        "Coco",
        {"root": str(Path("export").resolve()), "on_several_classes": "largest"},
    )
    alone = recognise(Path("export", place))
    assert alone.options == {"root": str(Path("export", place).resolve().parent), "annotations": Path(place).name}


def test_a_coco_export_is_written_and_can_be_run(capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "tests" / "data"))
    from coco_export import export_coco

    export_coco(BIRDS, Path("data"))
    assert run_cli("init", "mine", "--data", "data") == 0
    said = capsys.readouterr().out
    assert said.startswith("Coco: pictures: ")
    assert "technique: CAMRestriction, because there are masks or boxes" in said
    assert run_cli("fit", "-c", "mine/technique.yaml", "-c", "mine/data.yaml", *QUICK, "--trainer.fast_dev_run=1") == 0


def test_a_format_that_nothing_reads_is_named_with_its_cure(capsys):
    Path("data").mkdir()
    Path("data/birds.tfrecord").write_text("")
    assert run_cli("init", "mine", "--data", "data") == 2
    assert "has TFRecord files (birds.tfrecord), which are not read: export" in capsys.readouterr().err


def test_a_column_that_only_repeats_the_class_is_no_finer_label():
    Path("a.csv").write_text(
        "path,label,colour,age\n" + "".join(f"{i}.png,{'ab'[i % 2]},{'rg'[i % 2]},{i % 3}\n" for i in range(12))
    )
    assert "aux" not in recognise(Path("a.csv")).options


def test_other_json_is_not_taken_for_coco():
    Path("a.json").write_text("[1, 2]")
    with pytest.raises(PriorError, match="is neither a folder"):
        recognise(Path("a.json"))
