"""The tables of the results are those that the values beside them give."""

import re
import runpy

import pytest
from command_line import REPOSITORY

WRITER = runpy.run_path(str(REPOSITORY / "docs" / "tables.py"))
PAGES = sorted((REPOSITORY / "docs" / "results").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_table_is_stale(page):
    text = page.read_text(encoding="utf-8")
    assert WRITER["filled"](text) == text


def test_every_table_is_on_a_page():
    named = re.findall(r"<!-- table: (\w+) -->", "".join(page.read_text(encoding="utf-8") for page in PAGES))
    assert sorted(named) == sorted(WRITER["TABLES"])


def test_a_wrong_figure_is_replaced():
    text = "<!-- table: target -->\n\n| none | 0.999 |\n\n<!-- end of table -->\nby hand"
    assert "0.999" not in WRITER["filled"](text)
    assert WRITER["filled"](text).endswith("<!-- end of table -->\nby hand")
