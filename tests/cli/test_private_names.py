"""Private names of Lightning and jsonargparse stand in one file, `lightning_priors/cli/lightning.py`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import jsonargparse
import lightning.pytorch as pl
import pytest
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.strategies import Strategy

import lightning_priors

PACKAGE = Path(lightning_priors.__file__).parent
HOME = PACKAGE / "cli" / "lightning.py"
FILES = sorted(set(PACKAGE.rglob("*.py")) - {HOME})

ALLOWED = {
    "_ddp_kwargs": "Lightning's DDPStrategy, in callbacks/unfreezing.py: whether unused parameters are looked for",
    "_trainer": "Lightning's LightningModule: whether it has a trainer; `trainer` raises where it has none",
    "_BatchNorm": "torch's base class of all batch normalisations",
    "_non_persistent_buffers_set": "torch's nn.Module has no public way to ask which buffers are saved",
    "_load_from_state_dict": "torch's nn.Module: what it calls for each submodule of a state dict that is loaded",
    "_save_to_state_dict": "torch's nn.Module: what it calls for each submodule whose state is asked for",
    "_option_string_actions": "Python's argparse has no public list of a parser's options",
    "_to_model": "wandb-workspaces has no public way to write its objects as plain values",
    "_exit": "public: Python's os ends a process with it",
    "_replace": "public: the method of a named tuple",
    "_fields": "public: the attribute of a named tuple",
    "_version": "torch's Tensor: how often it was written to",
}
"""Private names that other objects have, each with the reason."""

OTHERS = (
    LightningCLI, LightningArgumentParser, SaveConfigCallback, LightningOptimizer, pl.LightningModule,
    pl.LightningDataModule, pl.Callback, pl.Trainer, Logger, CSVLogger, WandbLogger, Strategy,
    jsonargparse.ArgumentParser, jsonargparse.ActionConfigFile,
)  # fmt: skip
"""Classes that ours derive from or call."""

INHERITED = {name for owner in OTHERS for name in dir(owner) if name.startswith("_") and not name.startswith("__")}


def private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__")) and name != "_"


def defined(tree: ast.AST) -> set[str]:
    """The private names that a file gives: functions, classes, variables, and attributes of ``self`` and ``cls``."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and own(node.value):
            names.add(node.attr)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".register_buffer"):
            names |= {argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    return names


def own(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def foreign_private_names(tree: ast.AST, ours: set[str]) -> Iterator[tuple[str, int]]:
    """The private names in a file that are another library's, as far as the source tells, each with its line.

    Args:
        tree: The file.
        ours: What the files of this package define.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr):
            if node.attr not in defined(tree) if not own(node.value) else node.attr not in ours:
                yield node.attr, node.lineno
        elif isinstance(node, ast.ClassDef):  # a method of the same name overrides theirs
            methods = [inner for inner in node.body if isinstance(inner, ast.FunctionDef)]
            yield from ((method.name, method.lineno) for method in methods if method.name in INHERITED)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("lightning", "jsonargparse"):
            names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            yield from ((name, node.lineno) for name in names if private(name))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in ("lightning", "jsonargparse"):
                    yield from ((name, node.lineno) for name in alias.name.split(".") if private(name))


OURS = {name for path in FILES for name in defined(ast.parse(path.read_text()))}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_private_names_of_lightning_and_jsonargparse_stand_in_one_file(path):
    found = {
        name: line for name, line in foreign_private_names(ast.parse(path.read_text()), OURS) if name not in ALLOWED
    }
    assert not found, f"move them to cli/lightning.py, or say in ALLOWED whose they are: {found}"


@pytest.mark.parametrize(
    "source",
    [
        "from lightning.pytorch.cli import _InstantiatorFn",
        "from jsonargparse._typehints import ActionTypeHint",
        "import jsonargparse._util",
        "def f(parser): return parser._actions",
        "def f(trainer): trainer.strategy._ddp_params = 1",
        "class A(LightningCLI):\n    def _set_seed(self): pass",
        "class A(LightningCLI):\n    def f(self): return self._get(self.config_init, 'x')",
        "class A(LightningCLI):\n    def f(self): return super()._get(self.config_init, 'x')",
        "def f(): return torch.nn._reduction",
    ],
)
def test_a_foreign_private_name_is_seen(source):
    tree = ast.parse(source)
    assert list(foreign_private_names(tree, set()))


@pytest.mark.parametrize(
    "source",
    [
        "def _f(): pass\n_f()",
        "class A:\n    def f(self): self._x = 1; return self._x",
        "class A:\n    _x = 1\n    def f(self, other): return self._x + other._x",
        "class A(Module):\n    def __init__(self): super().__init__(); self.register_buffer('_scale', 1); self._scale",
        "from lightning_priors.x import _y\n_y()",
        "for _ in range(3): pass",
    ],
)
def test_our_own_private_names_are_left_alone(source):
    tree = ast.parse(source)
    assert not list(foreign_private_names(tree, defined(tree)))


def test_what_is_written_down_is_used():
    """The names at the top of the file are those in it."""
    tree = ast.parse(HOME.read_text())
    text = ast.get_docstring(tree) or ""
    used = {name for name, _ in foreign_private_names(tree, defined(tree))} - {"_typehints", "_common", "_util"}
    assert used
    assert not {name for name in used if name not in text}
