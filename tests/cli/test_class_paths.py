"""What a configuration may name: each attack is refused in one line, wherever it stands, and leaves no trace."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NewType, Protocol, TypedDict

import pytest
import yaml
from command_line import FIT, SMALL, run_cli
from torch import nn
from torch.optim import Optimizer

from lightning_priors.cli.class_paths import check_class_paths
from lightning_priors.cli.main import Parser
from lightning_priors.errors import PriorError

MODULE = '''
"""A module of the user's, with what may be named and what may not. All leave a trace when they are called."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from torch import nn
from torch.optim import SGD, Optimizer
from torchmetrics import Metric

from lightning_priors.techniques import Pretrained


def touch(path: str = "trace") -> None:
    Path(path).touch()


def make_optimizer(params: object = None, path: str = "trace") -> Optimizer:
    touch(path)
    return SGD(params, lr=1)


def make_model(path: str = "trace") -> Pretrained:
    touch(path)
    return Pretrained()


class Marker:
    def __init__(self, path: str = "trace") -> None:
        touch(path)

    @classmethod
    def made(cls, path: str = "trace") -> Pretrained:
        touch(path)
        return Pretrained()


class Halve:
    def __init__(self, to: str = "halved") -> None:
        touch(to)

    def __call__(self, epoch: int) -> float:
        return 0.5


def halve(epoch: int) -> float:
    return 0.5


instance = Halve.__new__(Halve)


class Caller(Callback):
    def __init__(
        self,
        action: Callable | None = None,
        typed: Callable[[int], float] | None = None,
        makes: Callable[[Any], Optimizer] | None = None,
        makes_any: Callable[[], nn.Module] | None = None,
        module: nn.Module | None = None,
        metric: Metric | None = None,
        anything: Any = None,
        untyped=None,
        thing: object = None,
        table: dict[str, Any] | None = None,
        several: list[nn.Module] | None = None,
        plain: dict | None = None,
    ) -> None:
        self.action, self.metric, self.module = action, metric, module
'''

LINEAR = {"class_path": "torch.nn.Linear", "init_args": {"in_features": 2, "out_features": 3}}

ATTACKS = {
    "os.system": {"class_path": "os.system", "init_args": {"command": "touch trace"}},
    "posix.system": {"class_path": "posix.system", "init_args": {"command": "touch trace"}},
    "Popen": {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "trace"]}},
    "eval": {"class_path": "builtins.eval", "dict_kwargs": {"source": "open('trace', 'w')"}},
    "partial": {"class_path": "functools.partial", "init_args": {"func": "os.system"}},
    "a module that a module imports": {"class_path": "attacked.os.system", "init_args": {"command": "touch trace"}},
    "a function": {"class_path": "attacked.touch", "init_args": {"path": "trace"}},
    "a function without arguments": {"class_path": "attacked.touch"},
    "a function that makes an optimizer": {"class_path": "attacked.make_optimizer"},
    "a function that makes a model": {"class_path": "attacked.make_model", "init_args": {"path": "trace"}},
    "a class method that makes a model": {"class_path": "attacked.Marker.made"},
    "another class": {"class_path": "attacked.Marker"},
}


def callback(argument: str, value: object) -> list[str]:
    spec = [{"class_path": "attacked.Caller", "init_args": {argument: value}}]
    return [*FIT, f"--trainer.callbacks={json.dumps(spec)}"]


def in_a_file(config: dict[str, Any]) -> list[str]:
    Path("config.yaml").write_text(yaml.safe_dump(config))
    return [*FIT, "--config=config.yaml"]


def in_a_file_of_its_own(attack: dict[str, Any]) -> list[str]:
    Path("optimizer.yaml").write_text(yaml.safe_dump(attack))
    return [*FIT, "--model.optimizer=optimizer.yaml"]


def in_a_plan(attack: dict[str, Any]) -> list[str]:
    model = {"class_path": "Pretrained", "init_args": {"optimizer": attack}}
    Path("config.yaml").write_text(yaml.safe_dump({"model": model}))
    runs = {"plain": {"configs": ["config.yaml"]}}
    Path("plan.yaml").write_text(yaml.safe_dump({"runs": runs, "options": list(SMALL), "output": "out"}))
    return ["compare", "-c", "plan.yaml"]


PLACES: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "model": lambda attack: ["fit", f"--model={json.dumps(attack)}", *SMALL],
    "source": lambda attack: [*FIT, f"--data.source={json.dumps(attack)}"],
    "priors": lambda attack: ["fit", "--model=Combined", f"--model.priors={json.dumps([attack])}", *SMALL],
    "metrics": lambda attack: [*FIT, f"--model.extra_metrics={json.dumps({'mine': attack})}"],
    "logger": lambda attack: [*FIT, f"--trainer.logger={json.dumps(attack)}"],
    "callbacks": lambda attack: [*FIT, f"--trainer.callbacks={json.dumps([attack])}"],
    "optimizer": lambda attack: [*FIT, f"--model.optimizer={json.dumps(attack)}"],
    "scheduler": lambda attack: [*FIT, f"--model.scheduler={json.dumps(attack)}"],
    "optimizer in a file": lambda attack: in_a_file({"model": {"init_args": {"optimizer": attack}}}),
    "optimizer in a file of its own": in_a_file_of_its_own,
    "callbacks in a file": lambda attack: in_a_file({"trainer": {"callbacks": [attack]}}),
    "argument in a file": lambda attack: in_a_file(
        {"trainer": {"callbacks": [{"class_path": "attacked.Caller", "init_args": {"action": attack}}]}}
    ),
    "plan": in_a_plan,
    "argument beside another one": lambda attack: [
        *callback("module", LINEAR),
        f"--trainer.callbacks.action={json.dumps(attack)}",
    ],
    **{
        f"argument {name} of a callback": lambda attack, name=name: callback(name, attack)
        for name in ("action", "typed", "makes", "makes_any", "metric", "anything", "untyped", "thing")
    },
    "list of a callback": lambda attack: callback("several", [attack]),
    "table of a callback": lambda attack: callback("table", {"key": attack}),
    "list in a table of a callback": lambda attack: callback("table", {"key": [attack]}),
}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("attacked.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, "attacked", raising=False)


def refused(capsys, arguments: list[str]) -> str:
    """The one line of a refusal, with nothing called and nothing begun."""
    assert run_cli(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("error: ")
    assert not Path("trace").exists()
    assert not Path("runs").exists()
    return line.removeprefix("error: ")


SOME_ATTACKS = ("os.system", "a function", "another class")
ALL_ATTACKS = ("model", "callbacks", "optimizer in a file", "plan", "argument action of a callback",
               "argument untyped of a callback")  # fmt: skip
"""Places that see all attacks; the others see some of them."""


@pytest.mark.parametrize(
    ("place", "attack"),
    [(place, attack) for place in PLACES for attack in (ATTACKS if place in ALL_ATTACKS else SOME_ATTACKS)],
)
def test_an_attack_is_refused_and_leaves_no_trace(place, attack, capsys):
    line = refused(capsys, PLACES[place](ATTACKS[attack]))
    assert len(line) < 600


@pytest.mark.parametrize("name", ["os.system", "subprocess.Popen", "builtins.eval", "functools.partial"])
@pytest.mark.parametrize("option", ["model", "data.source", "model.optimizer", "trainer.callbacks", "trainer.logger"])
def test_a_name_alone_is_refused(option, name, capsys):
    fit = [word for word in FIT if not word.startswith(f"--{option}=")]
    line = refused(capsys, [*fit, f"--{option}={name}"])
    assert line == f"--{option}: {name} may not be named here: it could run commands, load code or change files"


@pytest.mark.parametrize("name", ["make_optimizer", "touch", "make_model", "Marker.made"])
@pytest.mark.parametrize("option", ["model.optimizer", "model"])
def test_a_users_function_by_its_name_alone_is_refused_where_a_class_is_wanted(option, name, capsys):
    fit = [word for word in FIT if not word.startswith(f"--{option}=")]
    line = refused(capsys, [*fit, f"--{option}=attacked.{name}"])
    assert line.startswith((f"--{option}: attacked.{name} is a function, not a class", "--model takes a PriorModule; "))


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--model.help=os.system", "--model.help: os.system may not be named here: "),
        ("--model.help=attacked.make_model", '--model.help: "attacked.make_model" is not a subclass of PriorModule'),
        (
            "--model.optimizer=attacked.instance",
            "--model.optimizer: attacked.instance is an object of Halve, ",
        ),
        ("--trainer.callbacks=attacked.instance", "--trainer.callbacks takes a Callback; choose from "),
        ('--trainer={"callbacks": "attacked.touch"}', "--trainer.callbacks takes a Callback; choose from "),
        ('--data={"source": {"class_path": "attacked.touch"}}', "--data.source takes a Source; choose from "),
        ("--model.optimizer.class_path=os.system", "--model.optimizer: os.system may not be named here: "),
    ],
)
def test_other_ways_to_name_one(option, said, capsys):
    assert refused(capsys, [*FIT, option]).startswith(said)


def test_the_lines_say_what_is_wanted(capsys):
    spec = json.dumps(ATTACKS["another class"])
    line = refused(capsys, [*FIT, f"--model.optimizer={spec}"])
    assert line == "--model.optimizer takes a subclass of Optimizer, and attacked.Marker is none"
    line = refused(capsys, [*FIT, f"--model.scheduler={spec}"])
    assert line == "--model.scheduler takes a subclass of LRScheduler or ReduceLROnPlateau, and attacked.Marker is none"
    line = refused(capsys, callback("action", ATTACKS["another class"]))
    assert line == (
        "--trainer.callbacks.action takes a function or a class with __call__, and attacked.Marker is neither"
    )
    line = refused(capsys, callback("action", ATTACKS["a function"]))
    assert line == "--trainer.callbacks.action: attacked.touch is a function, not a class"
    line = refused(capsys, callback("untyped", ATTACKS["another class"]))
    assert line == (
        "--trainer.callbacks.untyped takes no class, because its argument has no type hint that names one: "
        "attacked.Marker"
    )
    line = refused(capsys, in_a_plan(ATTACKS["a function"]))
    assert line == "run 'plain': config.yaml: --model.optimizer: attacked.touch is a function, not a class"


@pytest.mark.parametrize("name", ["antigravity.fly", "this.s", "idlelib.idle.x", "turtledemo.clock.main"])
@pytest.mark.parametrize("place", ["model", "optimizer", "callbacks", "plan", "argument action of a callback", "loss"])
def test_no_module_of_pythons_own_is_imported_for_its_name(place, name, capsys):
    """To import some of them opens a window or a browser, or prints a poem."""
    before = set(sys.modules)
    if place == "loss":
        line = refused(capsys, ["fit", "--model=CAMRestriction", f"--model.loss={name}", *SMALL])
    else:
        line = refused(capsys, PLACES[place]({"class_path": name}))
    assert f"{name} may not be named here: it could run commands, load code or change files" in line
    assert not {module for module in set(sys.modules) - before if module.startswith(name.partition(".")[0])}


TAGGED = "!!python/object/apply:os.system ['touch trace']"


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "config.yaml"],
        ["--model=model.yaml"],
        ["--model", TAGGED],
        ["--model=Pretrained", "--model.lr", TAGGED],
        ["--model=Pretrained", "--trainer.callbacks", TAGGED],
        ["--model=Pretrained", "--model.optimizer", TAGGED],
    ],
)
def test_a_tag_that_would_call_python_is_refused(arguments, capsys):
    Path("config.yaml").write_text(f"model: {TAGGED}\n")
    Path("model.yaml").write_text(f"class_path: {TAGGED}\n")
    refused(capsys, ["fit", *arguments, *SMALL])


def test_a_tag_in_a_plan_is_refused(capsys):
    Path("plan.yaml").write_text(f"runs: {TAGGED}\n")
    assert "plan.yaml, line 1: could not determine a constructor" in refused(capsys, ["compare", "-c", "plan.yaml"])


def test_functions_and_callable_classes_stand_where_a_function_is_wanted():
    """They are handed over, and called by the code that asks for them."""
    quick = "--trainer.fast_dev_run=true"
    schedule = ("--model.scheduler=LambdaLR", "--model.scheduler.lr_lambda=attacked.halve")
    assert run_cli(*callback("typed", "attacked.halve"), *schedule, quick) == 0
    assert not Path("halved").exists()
    assert run_cli(*callback("typed", {"class_path": "attacked.Halve", "init_args": {"to": "halved"}}), quick) == 0
    assert Path("halved").exists()


def test_data_may_look_like_a_class_path():
    """Nothing is built from a bare ``dict``."""
    assert run_cli(*callback("plain", ATTACKS["another class"]), "--trainer.fast_dev_run=true") == 0
    assert not Path("trace").exists()


def test_nested_classes_of_the_right_kind_are_built():
    metric = {"class_path": "torchmetrics.SumMetric"}
    layers = [{"class_path": "torch.nn.Linear", "init_args": {"in_features": 2, "out_features": 3}}]
    for argument, value in (("metric", metric), ("module", layers[0]), ("several", layers)):
        assert run_cli(*callback(argument, value), "--trainer.fast_dev_run=true") == 0


class Row(TypedDict):
    layer: nn.Module
    size: int


class Pair(NamedTuple):
    layer: nn.Module
    size: int


@dataclass
class Options:
    layer: nn.Module | None = None
    sizes: list[int] = field(default_factory=list)


class MakesOptimizer(Protocol):
    def __call__(self, params: Iterable[Any]) -> Optimizer: ...


Layer = NewType("Layer", nn.Module)
ADAM = {"class_path": "torch.optim.Adam", "init_args": {"lr": 1}}


def check(hint: Any, value: object) -> None:
    parser = Parser(exit_on_error=False)
    parser.add_argument("--option", type=hint)
    given = value if isinstance(value, str) else json.dumps(value)
    check_class_paths(parser, parser.parse_args([f"--option={given}"]))


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (nn.Module, LINEAR),
        (Layer, LINEAR),
        (nn.Module | int | None, LINEAR),
        (list[nn.Module], [LINEAR, LINEAR]),
        (Sequence[nn.Module] | None, [LINEAR]),
        (tuple[int, nn.Module], [3, LINEAR]),
        (tuple[nn.Module, ...], [LINEAR]),
        (dict[str, nn.Module], {"a": LINEAR}),
        (Mapping[str, list[nn.Module]], {"a": [LINEAR]}),
        (Row, {"layer": LINEAR, "size": 3}),
        (list[Row], [{"layer": LINEAR, "size": 3}]),
        (Pair, {"layer": LINEAR, "size": 3}),
        (Options, {"layer": LINEAR, "sizes": [1]}),
        (Options | None, {"layer": LINEAR, "sizes": [1]}),
        (Callable[[Iterable[Any]], Optimizer], ADAM),
        (Callable[[Iterable[Any]], Optimizer] | None, ADAM),
        (list[Callable[[Iterable[Any]], Optimizer]], [ADAM]),
        (MakesOptimizer, ADAM),
        (Callable, LINEAR),  # a module can be called
        (Callable[[int], float], "math.sqrt"),
        (type[nn.Module], "torch.nn.Linear"),
        (Any, {"class": "torch.nn.Linear"}),
        (dict[str, Any], {"class_path": "torch.nn.Linear"}),  # a table with such a key, of texts
        (dict, {"class_path": "torch.nn.Linear"}),
        (str, "torch.nn.Linear"),
    ],
    ids=str,
)
def test_what_fits_a_type_hint_is_left_alone(hint, value):
    check(hint, value)


@pytest.mark.parametrize(
    ("hint", "value", "said"),
    [
        (Any, LINEAR, "takes no class"),
        (object, LINEAR, "takes no class"),
        (list[Any], [LINEAR], "takes no class"),
        (dict[str, Any], {"a": LINEAR}, "takes no class"),
        (dict[str, Any], {"a": [{"b": LINEAR}]}, "takes no class"),
        (list[nn.Module | Any], [ADAM], "takes a subclass of Module, and torch.optim.Adam is none"),
    ],
    ids=str,
)
def test_what_jsonargparse_would_build_anyway_is_refused(hint, value, said):
    with pytest.raises(PriorError, match=said):
        check(hint, value)


def test_a_function_that_is_the_default_in_the_code_is_left_alone():
    parser = Parser(exit_on_error=False)
    parser.add_argument("--option", type=Callable[[Iterable[Any]], Optimizer], default=make_adam)
    check_class_paths(parser, parser.parse_args([]))


def make_adam(params: Iterable[Any]) -> Optimizer:
    raise AssertionError("called")
