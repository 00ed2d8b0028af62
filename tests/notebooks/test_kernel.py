"""A notebook runs whole in the program that its readers use; `make notebooks` runs all of them so."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
SECONDS_OF_A_CELL = 1200  # generous: the machine may be busy


@pytest.mark.slow
@pytest.mark.timeout(0)  # each cell has a limit of its own
def test_the_first_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    notebook = nbformat.read(ROOT / "notebooks" / "own_photographs.ipynb", as_version=4)
    NotebookClient(
        notebook,
        timeout=SECONDS_OF_A_CELL,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    printed = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert printed
    assert not [output.text for output in printed if output.get("name") == "stderr"]
