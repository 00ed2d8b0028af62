"""Imports go downward only: read from the source, so that an import inside of a function counts too."""

import ast
import sys
from pathlib import Path

import pytest

import lightning_priors

PACKAGE = Path(lightning_priors.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

BELOW = {
    "errors": set(),
    "import_path": {"errors"},
    "yaml_file": {"errors"},
    "shipped": {"errors"},
    "names": {"errors"},
    "whole_files": {"errors"},
    "ranges": {"errors"},
    "statistics": set(),
    "parser": {"errors"},
    "batch": {"errors"},
    "hypergradient": set(),
    "functional": {"batch", "errors"},
    "metrics": {"functional", "batch", "errors"},
    "nn": {"functional", "batch", "errors"},
    "callbacks": {"nn", "metrics", "functional", "whole_files", "batch", "errors"},
    "data": {"functional", "names", "yaml_file", "batch", "errors"},
    "priors": {"nn", "metrics", "hypergradient", "functional", "import_path", "ranges", "batch", "errors"},
    "techniques": {
        "priors",
        "callbacks",
        "nn",
        "metrics",
        "hypergradient",
        "functional",
        "import_path",
        "ranges",
        "batch",
        "errors",
    },
    "trained": {
        "techniques",
        "callbacks",
        "data",
        "nn",
        "functional",
        "import_path",
        "names",
        "batch",
        "errors",
        "",
    },
    "explain": {
        "cli",
        "whole_files",
        "statistics",
        "trained",
        "techniques",
        "data",
        "callbacks",
        "nn",
        "metrics",
        "functional",
        "batch",
        "errors",
        "parser",
        "",
    },
    "cli": {
        "parser",
        "whole_files",
        "trained",
        "techniques",
        "priors",
        "data",
        "callbacks",
        "import_path",
        "yaml_file",
        "shipped",
        "batch",
        "errors",
    },
    "compare": {
        "parser",
        "whole_files",
        "names",
        "explain",
        "statistics",
        "cli",
        "yaml_file",
        "trained",
        "techniques",
        "data",
        "callbacks",
        "nn",
        "metrics",
        "functional",
        "shipped",
        "batch",
        "errors",
    },
    "annotation": {
        "cli",
        "trained",
        "techniques",
        "data",
        "nn",
        "metrics",
        "functional",
        "import_path",
        "errors",
    },
    "dashboard": {"cli", "parser", "errors"},
    "export": {"parser", "cli", "trained", "data", "errors"},
    "__main__": {"errors", ""},
    "__init__": {"trained", "techniques", "priors", "data", "nn", "batch", "errors"},
}
"""For each part of the package what it may import of the others; ``""`` is the package itself."""

BASES = {"base", "evaluation", "facts", "finite", "optimisation", "retrained_head", "with_priors"}
"""The files of the techniques that are none themselves."""


def imported(path: Path) -> set[str]:
    """The dotted names that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def parts_of(names: set[str]) -> set[str]:
    """The parts of this package among the imported names."""
    own = [name.split(".") for name in names if name.split(".")[0] == "lightning_priors"]
    return {name[1] if len(name) > 1 and name[1] in BELOW else "" for name in own}


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_every_part_of_the_package_has_its_place():
    assert {part(path) for path in FILES} == set(BELOW)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward_only(path):
    above = parts_of(imported(path)) - BELOW[part(path)] - {part(path)}
    assert not above, f"{part(path)} may not import {above}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_stay_where_they_belong(path):
    roots = {name.partition(".")[0] for name in imported(path)}
    leaves = ("batch", "errors", "import_path", "names", "ranges", "shipped", "whole_files")
    if part(path) in ("functional", "hypergradient", "nn", "priors", *leaves):
        assert not roots & {"lightning", "pytorch_lightning", "wandb", "jsonargparse"}
    if path != PACKAGE / "nn" / "backbone.py":
        assert "timm" not in roots
    if part(path) in ("functional", "hypergradient"):
        assert roots <= {"torch", "lightning_priors", *sys.stdlib_module_names}


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("techniques/*/*.py")) + sorted(PACKAGE.glob("techniques/*.py")),
                         ids=lambda path: str(path.relative_to(PACKAGE)))  # fmt: skip
def test_no_technique_knows_another_one(path):
    technique = path.relative_to(PACKAGE / "techniques").with_suffix("").parts[0]
    if technique == "__init__":
        return
    for name in imported(path):
        if name.startswith("lightning_priors.techniques"):
            assert name.split(".")[2] in BASES | {technique}, f"{technique} imports {name}"


def test_the_reading_of_imports_sees_all_forms(tmp_path):
    path = tmp_path / "example.py"
    path.write_text("import timm\ndef f():\n    from lightning_priors.data import PriorDataModule\n")
    assert imported(path) == {"timm", "lightning_priors.data.PriorDataModule"}
    assert parts_of(imported(path)) == {"data"}
