"""Writes the notebooks from their sources and executes them: `make notebooks`, or with names those alone.

A notebook is `notebooks/NAME.py`, which is edited, and `notebooks/NAME.ipynb`, which this script writes with its
outputs. Nothing in it depends on the machine beside the numbers: no times, no paths, no ids drawn at random.
"""

import argparse
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LIMIT = 600
"""Seconds for one cell."""


def from_source(source: Path) -> nbformat.NotebookNode:
    """Makes a notebook without outputs; its cells are numbered, so that the same source gives the same file."""
    notebook = jupytext.read(source)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number:02}", nbformat.from_dict({})
    return notebook


def execute(notebook: nbformat.NotebookNode) -> None:
    """Runs all cells in an empty folder, and joins what a cell printed in pieces."""
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=LIMIT,
            kernel_name=KERNEL["name"],
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        ).execute()
    notebook.metadata.language_info = nbformat.from_dict({"name": "python"})  # the kernel has added its version


def main() -> None:
    """Writes the notebooks that are named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="such as finer_labels; all if none is named")
    names = parser.parse_args().names or sorted(path.stem for path in FOLDER.glob("*.py"))
    for name in names:
        start = time.monotonic()
        notebook = from_source(FOLDER / f"{name}.py")
        execute(notebook)
        path = FOLDER / f"{name}.ipynb"
        nbformat.write(notebook, path)
        print(f"{name}: {time.monotonic() - start:.0f} s, {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
