"""Two processes write what one process writes."""

import csv
from pathlib import Path

import pytest
from processes import run_on_ranks

SCRIPT = Path(__file__).parent / "evaluate_in_processes.py"


@pytest.fixture
def folders(tmp_path):
    """The run folders of one and of two processes."""
    for processes in (1, 2):
        run_on_ranks(processes, SCRIPT, str(tmp_path / str(processes)), str(processes))
    return [tmp_path / str(processes) / "runs" / "version_0" for processes in (1, 2)]


def logged(folder):
    """What was logged of the generated labels."""
    with (folder / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    return {name: float(value) for name, value in row.items() if "label" in name}


@pytest.mark.slow
def test_tables_are_the_same_and_one_process_draws(folders):
    one, two = folders
    assert (one / "confusion_val.csv").read_text() == (two / "confusion_val.csv").read_text()
    assert (one / "predictions.csv").read_text() == (two / "predictions.csv").read_text()
    assert len((two / "predictions.csv").read_text().splitlines()) == 1 + 23
    assert (one / "generated_labels.csv").read_text() == (two / "generated_labels.csv").read_text()
    assert logged(one) == pytest.approx(logged(two), abs=1e-6)
    assert "val/label_ami_within_0" in logged(two)
    assert sorted(path.name for path in two.glob("panels/*val.png")) == [
        "confusion_val.png",
        "labels_val.png",
        "val.png",
    ]
    asked = [int((two.parents[1] / f"asked_{rank}").read_text()) for rank in range(2)]
    assert asked[0] > asked[1] == 2  # two batches each; for the panel only the first process asks again
