"""What the documents name is there: files, links, headings; and the README stays short."""

import re
from pathlib import Path

import pytest
from command_line import REPOSITORY
from markdown_it import MarkdownIt

TOP = ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY", "CODE_OF_CONDUCT")
PAGES = [*(REPOSITORY / f"{name}.md" for name in TOP), *sorted((REPOSITORY / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts and page.parent.name != "notebooks"]
AS_IT_WAS = {"docs/results/retired_options.md"}
"""Pages that name files of an earlier commit, and say which."""
NAMED = re.compile(r"(?<![\w/])(?:configs|experiments|benchmarks)/[\w/]+\.(?:yaml|py)")


def label(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def links(page: Path) -> list[str]:
    """The targets of a page's links and pictures that are no addresses of other sites."""
    tokens = MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))
    inline = [child for token in tokens for child in token.children or ()]
    found = [token.attrGet("href") or token.attrGet("src") for token in inline]
    return [str(target) for target in found if target and not str(target).startswith(("http://", "https://"))]


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub and Sphinx name them in addresses."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_every_link_leads_somewhere(page):
    broken = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and found.suffix == ".md" and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize(
    "page", [page for page in [*PAGES, REPOSITORY / "Makefile"] if label(page) not in AS_IT_WAS], ids=label
)
def test_every_file_that_is_named_exists(page):
    named = NAMED.findall(page.read_text(encoding="utf-8"))
    assert [path for path in named if not (REPOSITORY / path).is_file()] == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A heading, here\n[a](no.md) ![b](no.png) [c](#a-heading-here) [d](https://example.org)\n")
    assert links(page) == ["no.md", "no.png", "#a-heading-here"]
    assert anchors(page) == {"a-heading-here"}


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").split()) <= 1000
