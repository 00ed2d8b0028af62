"""Names from data and files: what cannot be shown is refused, and Markdown shows the rest as it is."""

import pytest
from markdown_it import MarkdownIt

from lightning_priors.errors import PriorError
from lightning_priors.names import check_names, in_markdown

HOSTILE = [
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![x](https://example.org/pixel.png)",
    "*a* `b` _c_ **d**",
    "[x][y]",
    "[x]: https://example.org",
    "a | b",
    "a\\",
    "<b>",
    "<https://example.org>",
    "plain",
]


@pytest.mark.parametrize("name", ["\x1b[2J", "kea\r", "\x00", "kea\u202e", "kea\x07", "\x9b2J", "a\nb", "a\tb"])
def test_a_name_that_does_things_is_refused(name):
    with pytest.raises(PriorError, match="the name of a class has characters that cannot be shown") as raised:
        check_names(["kakapo", name], "class")
    assert len(str(raised.value).splitlines()) == 1
    assert "\x1b" not in str(raised.value)


@pytest.mark.parametrize("name", ["kākāpō", "鸚鵡", "می‌خواهم", "👩‍🔬", "kea & co", "<kea>", "", "a b"])
def test_names_of_all_languages_are_left_alone(name):
    check_names([name], "class")


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_a_text_as_it_is(text):
    """Read by another library: a cell of a table, a heading and a line of a list hold the text and nothing else."""
    markdown = MarkdownIt("commonmark").enable("table")
    for page in (f"# {in_markdown(text)}", f"- {in_markdown(text)}", f"| {in_markdown(text)} | x |\n|---|---|\n"):
        tokens = [inner for token in markdown.parse(page) for inner in token.children or ()]
        assert {token.type for token in tokens} <= {"text", "text_special", "em_open", "em_close"}
        shown = "".join(token.content for token in tokens)
        assert text.replace("_", "") in shown.replace("_", "")
