"""The notebooks are what their sources say, are small and tidy, and run."""

import logging
import re
import warnings
from pathlib import Path

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
MOST_KILOBYTES = 400
PLACES = re.compile(r"(?<![\w.)\]}])/(?:home|root|tmp|usr|var|work|Users|opt|mnt)/|[A-Z]:\\|site-packages")

pytestmark = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def executed(source: Path) -> nbformat.NotebookNode:
    """The committed notebook of a source."""
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """All outputs, in their order."""
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def text_of(output: nbformat.NotebookNode) -> str:
    """What an output says, without its pictures."""
    if output.output_type == "stream":
        return output.text
    return "\n".join(str(value) for kind, value in output.get("data", {}).items() if kind.startswith("text/"))


def test_the_notebook_has_the_cells_of_its_source(source: Path) -> None:
    wanted = [(cell.cell_type, cell.source) for cell in jupytext.read(source).cells]
    assert [(cell.cell_type, cell.source) for cell in executed(source).cells] == wanted


def test_every_cell_was_executed_in_order_and_without_a_word_of_warning(source: Path) -> None:
    notebook = executed(source)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert not [output.text for output in outputs(notebook) if output.get("name") == "stderr"]
    assert not [text for text in map(text_of, outputs(notebook)) if "Warning" in text]


def test_it_shows_something_and_stays_small(source: Path) -> None:
    notebook = executed(source)
    assert any(text_of(output).strip() for output in outputs(notebook))
    assert source.with_suffix(".ipynb").stat().st_size < 1000 * MOST_KILOBYTES


def test_nothing_of_the_machine_is_in_it(source: Path) -> None:
    notebook = executed(source)
    assert not [text for text in map(text_of, outputs(notebook)) if PLACES.search(text)]
    assert not PLACES.search(source.read_text(encoding="utf-8"))
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert not any(cell.metadata for cell in notebook.cells)


@pytest.mark.slow
@pytest.mark.usefixtures("brief_training")
def test_its_cells_run(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """With two batches of training, as the commands in the documents."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    logger = logging.getLogger("lightning.pytorch")
    monkeypatch.setattr(logger, "level", logger.level)
    with warnings.catch_warnings():
        exec(compile(source.read_text(encoding="utf-8"), source, "exec"), {"__name__": "__main__"})
    assert not capsys.readouterr().err
