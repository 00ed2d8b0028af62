"""Reading a plan: what each key does, and that every mistake is one line with the nearest right name."""

import subprocess
import sys
from pathlib import Path

import pytest

from lightning_priors.compare.plan import Plan, Variant, read_plan, seed_list
from lightning_priors.errors import PriorError

GOOD = """
shared: [data.yaml]
options: [--trainer.max_epochs=2]
runs:
  plain: {configs: [technique.yaml]}
  other: {configs: [technique.yaml], options: [--model.lr=1, --trainer.max_epochs=3]}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("data.yaml", "technique.yaml"):
        (tmp_path / name).write_text("")
    return tmp_path


def read(text: str) -> Plan:
    Path("plan.yaml").write_text(text)
    return read_plan("plan.yaml")


def test_defaults() -> None:
    plan = read("runs: {plain: {}}")
    assert plan.runs == {"plain": Variant("plain")}
    assert plan.seeds == (0,)
    assert plan.columns[0] == "test/acc"


def test_all_keys_arrive() -> None:
    plan = read(
        GOOD + "seeds: [3, 1]\noutput: here\ncolumns: [test/epg]\n",
    )
    assert (plan.seeds, plan.output) == ((3, 1), "here")
    assert plan.columns == ("test/epg",)
    assert list(plan.runs) == ["plain", "other"]


def test_what_is_shared_is_laid_over_the_run_and_options_over_files() -> None:
    plan = read(GOOD)
    assert plan.arguments(plan.runs["other"], 7) == [
        "--config=technique.yaml",
        "--model.lr=1",
        "--trainer.max_epochs=3",
        "--config=data.yaml",
        "--trainer.max_epochs=2",
        "--seed_everything=7",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("shared", "shard"), "plan.yaml: unknown key 'shard' in the plan; did you mean 'shared'?"),
        (GOOD.replace("{configs", "{config"), "unknown key 'config' in run 'plain'; did you mean 'configs'?"),
        ("runs: {plain: {name: x}}", "unknown key 'name' in run 'plain'; choose from configs, options"),
        (
            GOOD.replace("technique.yaml]}", "techniqe.yaml]}"),
            "there is no file techniqe.yaml; did you mean 'technique.yaml'?",
        ),
        ("runs: {plain: {configs: [none/a.yaml]}}", "there is no file none/a.yaml; `lightning-priors configs` lists"),
        ("seeds: [0]", "'runs' is missing"),
        ("runs: {}", "'runs' must name the configs to compare, not {}"),
        ("runs: [a]", "'runs' must name the configs"),
        ("runs: {plain: [a]}", "run 'plain' must be keys with values, not \\['a'\\]"),
        ("runs: {a/b: {}}", "run 'a/b': a name is made of"),
        ("runs: {..: {}}", "run '..': a name is made of"),
        ("runs: {1: {}}", "run 1: a name is made of"),
        ("- a", "the plan must be keys with values"),
        ("", "the plan must be keys with values, not None"),
        ("runs: {plain: {}}\nseeds: [0, 0]", "'seeds' has a seed twice"),
        ("runs: {plain: {}}\nseeds: 3", "'seeds' must be a list of integers"),
        ("runs: {plain: {}}\nseeds: []", "'seeds' must be a list of integers"),
        ("runs: {plain: {}}\nseeds: [true]", "'seeds' must be a list of integers"),
        ("runs: {plain: {}}\nseeds: [-1]", "none negative"),
        ("runs: {plain: {}}\noutput: 3", "'output' must be a text, not 3"),
        ("runs: {plain: {}}\noptions: --a=b", "'options' must be a list of texts"),
        ("runs: {plain: {options: [3]}}", "'plain.options' must be a list of texts"),
        ("runs: {plain: {options: [a=b]}}", "'plain.options': an option is written --name=value, not 'a=b'"),
        ("runs: {plain: {}, plain: {}}", "plan.yaml, line 1: 'plain' is there twice"),
        ("runs: {plain: {}}\nseeds: [1]\nseeds: [2]", "line 3: 'seeds' is there twice"),
        ("runs: {plain: {}", "plan.yaml, line 1: expected ',' or '}'"),
    ],
)
def test_mistakes_are_one_line(text: str, message: str) -> None:
    with pytest.raises(PriorError, match=message) as error:
        read(text)
    assert "\n" not in str(error.value)
    assert "plan.yaml" in str(error.value)


def test_a_missing_plan_names_the_nearest() -> None:
    read(GOOD)
    with pytest.raises(PriorError, match=r"there is no file plam.yaml; did you mean 'plan.yaml'\?"):
        read_plan("plam.yaml")


def test_a_plan_that_is_no_text(folder: Path) -> None:
    (folder / "plan.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PriorError, match="is not a text file"):
        read_plan("plan.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [("0,x", "'x' is none"), ("", "'' is none"), ("1,1", "'--seeds' has a seed twice"), ("-1", "'-1' is none")],
)
def test_bad_seeds(text: str, message: str) -> None:
    with pytest.raises(PriorError, match=message):
        seed_list(text)


def test_reading_a_plan_imports_no_torch(environment: dict[str, str]) -> None:
    code = "import lightning_priors.compare.plan, sys; print('torch' in sys.modules, 'lightning' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


def test_what_a_plan_names_is_looked_for_beside_it_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("plans", "plans/birds", "elsewhere"):
        (tmp_path / folder).mkdir()
    for file in ("plans/own.yaml", "elsewhere/own.yaml", "elsewhere/here.yaml"):
        (tmp_path / file).write_text("data: {source: Kakapo}\n")
    (tmp_path / "plans" / "plan.yaml").write_text(
        "runs: {plain: {configs: [own.yaml, here.yaml, cam_restriction]}}\nshared: [data/kakapo]\n"
        "options: [--data.source.root=birds, --model.weights=imagenet]\noutput: out\n"
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    plan = read_plan("../plans/plan.yaml")
    own, here, shipped = plan.runs["plain"].configs
    assert (own, here) == ("../plans/own.yaml", "here.yaml")
    assert Path(shipped).is_file()
    assert shipped.endswith("configs/techniques/cam_restriction.yaml")
    assert plan.shared[0].endswith("configs/data/kakapo.yaml")
    assert plan.options == ("--data.source.root=../plans/birds", "--model.weights=imagenet")
    assert plan.output == "out"


def test_a_shipped_plan_is_read_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(read_plan("demo").runs)[:3] == ["plain", "pretrained", "global_local"]


# ---- grids and splits


def test_a_grid_is_a_config_for_each_combination() -> None:
    plan = read(
        "runs: {plain: {}, told: {options: [--a=1], grid: {--model.lr: [0.1, 1e-3], --model.parts: [[a], [b, a]]}}}"
    )
    assert list(plan.runs) == [
        "plain", "told+lr-0.1+parts-a", "told+lr-0.1+parts-b_a",
        "told+lr-1e-3+parts-a", "told+lr-1e-3+parts-b_a",
    ]  # fmt: skip
    last = plan.runs["told+lr-1e-3+parts-b_a"]
    assert last.options == ("--a=1", "--model.lr=1e-3", '--model.parts=["b", "a"]')
    assert last.grid == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs: {told: {grid: {--model.lr: 0.1}}}", "--model.lr takes a list of values, not 0.1"),
        ("runs: {told: {grid: {model.lr: [0.1]}}}", "an option of a grid is written --name, not 'model.lr'"),
        ("runs: {told: {grid: [0.1]}}", "must be options with values, such as --model.lr"),
        ("runs: {told: {grid: {--a.x: [1, '1']}}}", r"two runs would have the name 'told\+x-1'"),
        ("splits: 0\nruns: {plain: {}}", "'splits' must be a whole number from 1, not 0"),
        ("splits: true\nruns: {plain: {}}", "'splits' must be a whole number from 1, not True"),
    ],
)
def test_mistakes_in_grids_and_splits(text: str, message: str) -> None:
    with pytest.raises(PriorError, match=message) as error:
        read(text)
    assert "\n" not in str(error.value)
