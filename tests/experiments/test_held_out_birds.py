"""Folds of species, and a comparison over them on pictures of one colour."""

import csv
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from PIL import Image

from lightning_priors.data.sources import Waterbirds
from lightning_priors.errors import PriorError

REPOSITORY = Path(__file__).parents[2]
SPECIES = {"1.hen": "0", "2.owl": "0", "3.jay": "0", "4.duck": "1", "5.tern": "1", "6.gull": "1", "7.heron": "1"}
UNKNOWN = {"8.crow": "0", "9.loon": "1"}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = REPOSITORY / "experiments" / "held_out_birds.py"
    specification = importlib.util.spec_from_file_location("held_out_birds", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two training images and one for validation of each species, and test images of two others."""
    folder = tmp_path / "birds"
    splits = dict.fromkeys(SPECIES, (0, 0, 1)) | dict.fromkeys(UNKNOWN, (2,))
    lines = [("img_id", "img_filename", "y", "split", "place", "place_filename")]
    for name, codes in splits.items():
        for number, code in enumerate(codes):
            image = f"images/{name}/{number}.png"
            (folder / image).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (10 * len(lines), 80, 90)).save(folder / image)
            lines.append((len(lines), image, (SPECIES | UNKNOWN)[name], code, number % 2, "sea"))
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    return folder


def species(source: Waterbirds, split: str) -> list[str]:
    """Of the images of a split, in order."""
    names = source.aux_classes["species"]
    return [names[source.load(index)["aux_labels"][0]] for index in source.indices(split)]


@pytest.mark.parametrize("seed", range(4))
def test_each_species_is_held_out_once(script: ModuleType, seed: int) -> None:
    """And each fold gets its share of each label."""
    folds = script.deal(SPECIES, 3, seed)
    assert sorted(name for fold in folds for name in fold) == sorted(SPECIES)
    for label in ("0", "1"):
        counts = [sum(SPECIES[name] == label for name in fold) for fold in folds]
        assert max(counts) - min(counts) <= 1
        assert min(counts) >= 1
    assert max(map(len, folds)) - min(map(len, folds)) <= 1
    assert script.deal(dict(reversed(SPECIES.items())), 3, seed) == folds, "the order of the table does not matter"


def test_another_seed_deals_otherwise(script: ModuleType) -> None:
    assert len({str(list(map(sorted, script.deal(SPECIES, 3, seed)))) for seed in range(4)}) > 1


@pytest.mark.parametrize("folds", [1, 4])
def test_a_fold_without_a_label_is_refused(script: ModuleType, folds: int) -> None:
    with pytest.raises(PriorError, match=f"{folds} folds cannot be dealt; at least 2, at most 3"):
        script.deal(SPECIES, folds, 0)


def test_a_fold_tests_the_held_species_alone(script: ModuleType, root: Path, tmp_path: Path) -> None:
    """With all their images; the real test images are gone, and the data itself is as it was."""
    before = (root / "metadata.csv").read_bytes()
    held = {"1.hen", "5.tern"}
    for _ in range(2):  # again over what is there
        script.write_fold(root, held, tmp_path / "fold")
    fold = Waterbirds(str(tmp_path / "fold"))
    fold.setup()
    assert species(fold, "test") == ["1.hen"] * 3 + ["5.tern"] * 3
    for split, count in (("train", 2), ("val", 1)):
        assert species(fold, split) == [name for name in SPECIES if name not in held for _ in range(count)]
    whole = Waterbirds(str(root))
    assert (root / "metadata.csv").read_bytes() == before
    assert [fold.load(i)["group"] for i in fold.indices("val")] == [
        whole.load(i)["group"] for i, name in zip(whole.indices("val"), SPECIES, strict=True) if name not in held
    ]


@pytest.fixture
def plan(tmp_path: Path, root: Path) -> Path:
    """Two configs of one short epoch."""
    source = {"class_path": "Waterbirds", "init_args": {"root": str(root)}}
    data = {"source": source, "batch_size": 4, "image_size": 32, "num_workers": 0}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"data": data, "trainer": {"accelerator": "cpu"}}))
    content = {
        "shared": [str(tmp_path / "data.yaml")],
        "options": ["--trainer.max_epochs=1"],
        "runs": {"plain": {"options": ["--model=Pretrained"]}, "left_out": {"options": ["--model=Pretrained"]}},
        "columns": ["test/acc"],
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "plan.yaml"


@pytest.fixture
def run(
    script: ModuleType, plan: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """The command on the plan and the data, with further arguments."""

    def main(*arguments: str) -> int:
        given = [str(plan), "--root", str(root), "--output", str(tmp_path / "out"), *arguments]
        monkeypatch.setattr("sys.argv", ["held_out_birds.py", *given])
        return script.main()

    return main


@pytest.mark.slow
def test_configs_are_compared_over_folds_and_seeds(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two folds with two seeds are four pairs; a second call finds them done. The other config is left out."""
    arguments = ["--folds", "2", "--seeds", "3,5", "--runs", "plain", "--", "--trainer.log_every_n_steps=1"]
    assert run(*arguments) == 0
    printed = capsys.readouterr().out
    assert "fold 2 of 2, held out: " in printed
    page = (tmp_path / "out" / "held_out_birds.md").read_text()
    assert "| plain | 4 |" in page
    assert "left_out" not in page
    assert run(*arguments) == 0
    assert "".join(capsys.readouterr()).count(", 2 finished before") == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--runs", "plian"], "has no run 'plian'; did you mean 'plain'?"),
        (["--folds", "9"], "9 folds cannot be dealt; at least 2, at most 3"),
        (["--root", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert said in error
    assert error.count("\n") == 1
