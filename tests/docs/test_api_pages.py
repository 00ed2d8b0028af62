"""The pages of the API reference name every public name, and nothing that is not there."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import lightning_priors

PAGES = sorted((Path(__file__).parents[2] / "docs" / "api").glob("*.md"))
NO_API = ("lightning_priors.cli", "lightning_priors.dashboard", "lightning_priors.export", "lightning_priors.__main__")
"""Packages that are used by their commands."""


def named(page: Path) -> list[str]:
    """The dotted names that a page has autodoc describe."""
    return re.findall(r"^\.\. auto\w+:: (\S+)$", page.read_text(), re.M)


def found(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def public_names() -> Iterator[str]:
    for package in pkgutil.walk_packages(lightning_priors.__path__, "lightning_priors."):
        if package.ispkg and not package.name.startswith(NO_API):
            module = importlib.import_module(package.name)
            yield from (f"{package.name}.{name}" for name in getattr(module, "__all__", ()))
    yield from (f"lightning_priors.{name}" for name in lightning_priors._HOMES)


def test_every_public_name_is_described():
    described = [found(name) for page in PAGES for name in named(page)]
    missing = [name for name in public_names() if not any(found(name) is each for each in described)]
    assert not missing


def test_every_page_describes_something_and_nothing_twice():
    names = [name for page in PAGES for name in named(page)]
    assert all(named(page) for page in PAGES)
    assert len(set(names)) == len(names)


def test_every_page_is_in_the_table_of_contents():
    index = (PAGES[0].parents[1] / "index.md").read_text()
    assert [page.stem for page in PAGES if f"api/{page.stem}\n" not in index] == []
