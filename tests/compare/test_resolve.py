"""What makes two runs the same run, and which runs may be compared."""

from pathlib import Path
from typing import Any

import pytest

from lightning_priors.compare.plan import Plan, Variant
from lightning_priors.compare.resolve import ParsedFit, digest, on_split, resolve
from lightning_priors.errors import PriorError

MODEL = "--model=Pretrained"


def plan(first: tuple[str, ...] = (), second: tuple[str, ...] = (), **rest: Any) -> Plan:
    runs = {name: Variant(name, options=(MODEL, *options)) for name, options in (("plain", first), ("told", second))}
    return Plan(runs, **rest)


def digests(*options: str, **rest: Any) -> list[str]:
    return [task.digest for task in resolve(plan(options, options, **rest))]


def test_all_configs_of_a_seed_come_before_the_next_seed() -> None:
    tasks = resolve(plan(second=("--model.lr=1",), seeds=(4, 2)))
    assert [(task.run, task.seed) for task in tasks] == [("plain", 4), ("told", 4), ("plain", 2), ("told", 2)]
    assert [task.arguments[-1] for task in tasks] == [f"--seed_everything={seed}" for seed in (4, 4, 2, 2)]
    assert len({task.digest for task in tasks}) == 4


def test_the_digest_follows_the_resolved_values_and_not_where_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lr.yaml").write_text("model: {init_args: {lr: 0.5}}")
    (default, _), (same, _) = digests(), digests("--model.lr=0.001")
    (option, _), (file, _) = digests("--model.lr=0.5"), digests("--config=lr.yaml")
    assert default == same
    assert option == file != default
    Path("lr.yaml").write_text("model: {init_args: {lr: 0.25}}")
    assert digests("--config=lr.yaml")[0] not in (option, default)


def test_the_digest_of_a_seed_does_not_depend_on_the_others() -> None:
    assert digests(seeds=(1,)) == digests(seeds=(0, 1))[2:]


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--data.image_size=32", "run 'told' has data.image_size 32, but 'plain' has 128"),
        ("--data.seed=1", "data.seed 1"),
        ("--data.batch_size=8", "data.batch_size 8"),
        ("--data.source.bias=0.5", r"data.source.bias 0.5, but 'plain' has 0.95"),
        (
            "--data.source=FashionMNIST --data.source.root=here",
            "data.source 'lightning_priors.data.sources.FashionMNIST'",
        ),
        ("--trainer.max_epochs=3", "trainer.max_epochs 3"),
        ("--trainer.limit_train_batches=3", "trainer.limit_train_batches 3"),
        ("--checkpoint.monitor=val/loss", "checkpoint.monitor 'val/loss', but 'plain' has 'val/acc'"),
    ],
)
def test_what_the_runs_must_share(option: str, named: str) -> None:
    with pytest.raises(PriorError, match=named) as error:
        resolve(plan(second=tuple(option.split())))
    assert "\n" not in str(error.value)
    assert len(resolve(plan(options=tuple(option.split())))) == 2  # for all of them it is no difference


def test_what_a_plan_may_compare() -> None:
    options = ("--data.augmentation=flip", "--data.images_per_class=4", "--data.annotated_fraction=0.5", "--model.lr=1")
    assert len(resolve(plan(second=(*options, "--trainer.precision=bf16-mixed", "--data.num_workers=1")))) == 2
    assert len(resolve(plan(second=("--data.train_fraction=0.5", "--model=CAMRestriction")))) == 2


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--model.bakbone=tiny", "run 'told': Pretrained has no option 'bakbone'.*did you mean 'backbone'"),
        ("--trainer.max_epoch=3", "run 'told': there is no option --trainer.max_epoch; did you mean"),
        ("--trainer.fast_dev_run=true", "run 'told': trainer.fast_dev_run writes no checkpoint"),
        ("--checkpoint.monitor=null", "run 'told': checkpoint.monitor must name"),
    ],
)
def test_a_mistake_is_told_with_the_run_before_anything_runs(option: str, message: str) -> None:
    with pytest.raises(PriorError, match=message) as error:
        resolve(plan(second=(option,)))
    assert "\n" not in str(error.value)


# ---- splits


def test_a_source_is_wrapped_where_it_draws_no_split() -> None:
    tasks = resolve(plan(second=("--model.lr=1",), seeds=(0, 1), splits=2, split_by="species"))
    assert [(task.split, task.seed, task.run) for task in tasks] == [
        (split, seed, run) for split in (0, 1) for seed in (0, 1) for run in ("plain", "told")
    ]
    assert len({task.digest for task in tasks}) == 8
    sources = [task.config["data"]["source"] for task in tasks[::4]]
    assert [source["class_path"].rpartition(".")[2] for source in sources] == ["DrawnSplit"] * 2
    assert [source["init_args"]["split"] for source in sources] == [0, 1]
    assert sources[0]["init_args"]["by"] == "species"
    assert sources[0]["init_args"]["source"]["class_path"].endswith("Kakapo")
    again = ParsedFit(tasks[-1].arguments).resolved()
    assert digest(again) != digest(ParsedFit(tasks[0].arguments).resolved())
    assert again["data"]["source"]["init_args"]["split"] == 1, "the command line says the same"


def test_one_split_leaves_the_source_as_it_is() -> None:
    assert resolve(plan())[0].config["data"]["source"]["class_path"].endswith("Kakapo")


def test_a_split_that_the_data_draws_is_numbered_where_it_stands() -> None:
    source = {
        "class_path": "a.RareGroups",
        "init_args": {"share": 0, "source": {"class_path": "a.DrawnSplit", "init_args": {"by": "species", "split": 0}}},
    }
    assert on_split(source, 4, None) == {
        "class_path": "a.RareGroups",
        "init_args": {"share": 0, "source": {"class_path": "a.DrawnSplit", "init_args": {"by": "species", "split": 4}}},
    }
    assert source["init_args"]["source"]["init_args"]["split"] == 0  # type: ignore[index]


def test_options_that_are_not_at_their_defaults_are_noted() -> None:
    (first, _) = resolve(plan(("--model.lr=0.5",), options=("--data.source.bias=0.9",)))
    assert {"model.lr", "data.source.bias", "model"} <= {*first.given}
    assert not {"model.weight_decay", "data.image_size", "data.source.size"} & {*first.given}
