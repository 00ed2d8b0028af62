"""A checkpoint or weights file of somebody else's: it imports nothing, runs nothing, and is refused in one line."""

import json
import os
import pickle
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

import lightning_priors
from lightning_priors.__main__ import main
from lightning_priors.errors import PriorError
from lightning_priors.nn import Classifier
from lightning_priors.priors import Restriction
from lightning_priors.techniques import CAMRestriction, Combined, GlobalLocal, Pretrained, PriorModule

FACTS = {
    "class_names": ["kakapo", "kea"], "image_size": [32, 32], "mean": [0.5] * 3, "std": [0.5] * 3,
    "group_counts": [], "data": "Squares",
}  # fmt: skip

HOSTILE = '''
"""A module that leaves a trace when it is imported, and one when it is called."""
from pathlib import Path

from lightning_priors.priors import Prior
from lightning_priors.techniques import Pretrained

Path("imported").touch()


def loss(saliency, prior):
    Path("called").touch()
    return (saliency * prior).sum((1, 2))


def call(*args, **kwargs):
    Path("called").touch()


class OwnPrior(Prior):
    def __init__(self):
        call()


class Own(Pretrained):
    def __init__(self, **kwargs):
        call()
        super().__init__(**kwargs)
'''
SYSTEM = {"class_path": "os.system", "init_args": {"command": "touch called"}}
MINE = {"class_path": "hostile.call", "init_args": {"path": "called"}}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("hostile.py").write_text(HOSTILE)
    monkeypatch.delitem(sys.modules, "hostile", raising=False)


def untouched() -> bool:
    return not Path("imported").exists() and not Path("called").exists()


def saved(module: PriorModule, path: str = "hostile.ckpt", **changes: Any) -> Path:
    """A checkpoint with other hyper-parameters, or other entries where a name begins with ``top_``."""
    options = {name: value for name, value in changes.items() if not name.startswith("top_")}
    content = {
        "state_dict": module.state_dict(),
        "hyper_parameters": {**module.hparams, **options},
        "technique": type(module).__name__,
        "pytorch-lightning_version": L.__version__,
        "facts": FACTS,
    }
    content |= {name.removeprefix("top_"): value for name, value in changes.items() if name.startswith("top_")}
    torch.save(content, path)
    return Path(path)


def said(action: Callable[[], object]) -> str:
    """The one line of a refusal; empty if there is none."""
    line = ""
    try:
        action()
    except PriorError as error:
        line = str(error)
    assert len(line.splitlines()) <= 1
    return line


CHANGES: dict[str, dict[str, Any]] = {
    **{
        f"{name} is {kind}": {name: value}
        for name in ("optimizer", "scheduler", "extra_metrics", "tuning", "callbacks")
        for kind, value in (("os.system", SYSTEM), ("a function", MINE), ("a name", "hostile.call"))
    },
    "a metric": {"extra_metrics": {"mine": SYSTEM}},
    "an instantiator": {"_instantiator": "os.system"},
    "an instantiator of the user's": {"_instantiator": "hostile.call"},
    "Lightning's instantiator": {
        "_instantiator": "lightning.pytorch.cli.instantiate_module", "_class_path": "hostile.Own", "optimizer": SYSTEM
    },
    "a class path": {"_class_path": "hostile.Own"},
    "a loss": {"loss": "hostile.loss"},
    "a loss of Python's own": {"loss": "shutil.rmtree"},
    "a loss that is no function": {"loss": "os.system"},
    "a backbone of a hub": {"backbone": "hf-hub:hostile/network"},
    "a backbone of a folder": {"backbone": "local-dir:."},
    "weights": {"weights": "hostile.pt"},
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("how", ["load", "load_from_checkpoint"])
def test_options_of_a_checkpoint_run_nothing(how, change):
    path = saved(CAMRestriction(), **CHANGES[change])
    load = lightning_priors.load if how == "load" else CAMRestriction.load_from_checkpoint
    said(lambda: load(path))  # refused in one line, or loaded without it
    assert untouched()
    assert "hostile" not in sys.modules


@pytest.mark.parametrize(
    "prior",
    [
        SYSTEM,
        MINE,
        {"class_path": "hostile.OwnPrior"},
        {"class_path": "lightning_priors.priors.Restriction", "init_args": {"loss": "hostile.loss"}},
        {"class_path": "lightning_priors.nn.Classifier", "init_args": {}},
        {"init_args": {}},
        "hostile.OwnPrior",
        3,
    ],
)
@pytest.mark.parametrize("kind", [Combined, GlobalLocal])
def test_priors_of_a_checkpoint_run_nothing(kind, prior):
    path = saved(kind(), priors=[prior])
    for load in (lightning_priors.load, kind.load_from_checkpoint):
        line = said(lambda load=load: load(path))
        assert line or "Restriction" in str(prior)
    assert untouched()


def test_a_technique_is_never_imported_for_its_name():
    path = saved(Pretrained(), top_technique="hostile.Own")
    assert "names the technique 'Own'" in said(lambda: lightning_priors.load(path))
    assert untouched()


def test_a_loss_that_is_not_imported_is_not_needed_to_classify_and_refused_in_training():
    path = saved(CAMRestriction(), loss="hostile.loss")
    classifier = lightning_priors.load(path)
    picture = torch.zeros(3, 32, 32, dtype=torch.uint8)
    assert len(next(iter(classifier.predict([picture]))).probabilities) == 2
    module = CAMRestriction.load_from_checkpoint(path)
    batch = {
        "image": torch.zeros(2, 3, 32, 32), "label": torch.zeros(2, dtype=torch.int64), "mask": torch.ones(2, 32, 32),
        "mask_valid": torch.ones(2, dtype=torch.bool),
    }  # fmt: skip
    assert said(lambda: module.step(batch)) == (
        "guidance loss hostile.loss: a checkpoint names it and imports nothing; import hostile before loading"
    )
    assert untouched()
    assert module.hparams["loss"] == "hostile.loss", "it is kept for the next checkpoint"


def test_a_loss_of_an_imported_module_is_used():
    import hostile  # type: ignore[import-not-found]

    path = saved(CAMRestriction(), loss="hostile.loss")
    (prior,) = CAMRestriction.load_from_checkpoint(path).priors
    assert isinstance(prior, Restriction)
    assert prior.guidance is hostile.loss


class Runs:
    """What pickle would call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def pickled(place: str) -> Path:
    """A file that leaves a trace where it is unpickled."""
    path, runs = Path("hostile.ckpt"), Runs(os.system, "touch called")
    if place == "a plain pickle":
        path.write_bytes(pickle.dumps(runs))
    elif place == "a tensor":
        torch.save({"state_dict": {"weight": runs}, "hyper_parameters": {}}, path)
    elif place == "an option":
        saved(Pretrained(), str(path), lr=runs)
    else:
        torch.save({"state_dict": {}, "more": runs}, path, _use_new_zipfile_serialization=False)
    return path


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("place", ["a plain pickle", "a tensor", "an option", "an old file"])
def test_a_pickle_is_refused_wherever_a_file_is_read(place, capsys):
    path = pickled(place)
    assert "is not a checkpoint of a training run" in said(lambda: lightning_priors.load(path))
    assert "holds more than plain values and tensors" in said(lambda: Pretrained.load_from_checkpoint(path))
    assert "weights_only=True" in said(lambda: Classifier(2, "tiny", str(path))(torch.zeros(1, 3, 32, 32)))
    assert said(lambda: GlobalLocal(global_checkpoint=str(path))(torch.zeros(1, 3, 32, 32)))
    for command in (
        ["predict", str(path), "."],
        ["explain", str(path)],
        ["export", str(path)],
        ["test", "--model=Pretrained", f"--ckpt_path={path}"],
        ["fit", "--model=Pretrained", f"--ckpt_path={path}"],
    ):
        assert main(command) == 2, command
        shown = capsys.readouterr()
        (line,) = shown.err.splitlines()
        assert line.startswith("error: ")
    assert untouched()


def test_a_description_runs_nothing(tmp_path):
    run = lightning_priors.load(saved(CAMRestriction()))
    run.save_pretrained(tmp_path / "kept")
    config = tmp_path / "kept" / "config.json"
    content = json.loads(config.read_text())
    for change in ({"loss": "hostile.loss"}, {"weights": "hostile.pt"}, {"optimizer": SYSTEM}, {"priors": [MINE]}):
        options = content["lightning_priors"]["options"] | change
        other = {"lightning_priors": content["lightning_priors"] | {"options": options}}
        config.write_text(json.dumps(other))
        assert said(lambda: lightning_priors.load(tmp_path / "kept")), change
        assert untouched()


ODD: dict[str, Any] = {
    "a list": [1, "x"],
    "a number": 3,
    "none": None,
    "a text": "x\x1b[2J",
    "a nested table": {"a": {"b": {}}},
    "a tensor": torch.zeros(3),
    "a huge number": 10**400,
}


@pytest.mark.parametrize("entry", ["state_dict", "hyper_parameters", "facts", "technique", "metrics", "chosen"])
@pytest.mark.parametrize("value", ODD)
def test_an_odd_entry_is_one_line(entry, value, capsys):
    path = saved(Pretrained(), **{f"top_{entry}": ODD[value]})
    for command in (["predict", str(path), "hostile.py"], ["test", "--model=Pretrained", f"--ckpt_path={path}"]):
        code = main(
            [*command, *(["--trainer.fast_dev_run=true", "--trainer.accelerator=cpu"] * (command[0] == "test"))]
        )
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        if code:
            assert code == 2
            assert "\x1b" not in shown.err
            assert shown.err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("entry", ["class_names", "image_size", "mean", "std"])
@pytest.mark.parametrize("value", ODD)
def test_an_odd_fact_is_one_line(entry, value):
    path = saved(Pretrained(), top_facts=FACTS | {entry: ODD[value]})
    assert said(lambda: lightning_priors.load(path))


@pytest.mark.parametrize("seed", range(30))
def test_spoilt_bytes_are_one_line_or_the_same_classifier(seed):
    path, draw = saved(Pretrained()), random.Random(seed)
    content = bytearray(path.read_bytes())
    if seed % 2:
        del content[draw.randrange(len(content)) :]
    else:
        for _ in range(20):
            content[draw.randrange(len(content))] = draw.randrange(256)
    path.write_bytes(content)
    said(lambda: lightning_priors.load(path))
    assert untouched()
