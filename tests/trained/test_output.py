"""The table of predictions on the disk while it is written."""

import json

import pytest
import torch

from lightning_priors.errors import PriorError
from lightning_priors.trained import Prediction
from lightning_priors.trained.output import carried_names, open_output

CLASSES = ["kakapo", 'other, "bird"']
SAID = Prediction(
    "a b.jpg", "kakapo", dict(zip(CLASSES, (0.75, 0.25), strict=True)), torch.zeros(1, 1).numpy(), torch.zeros(2),
    torch.zeros(2, 1, 1),
)  # fmt: skip


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_each_line_is_on_the_disk_when_it_is_written(suffix, tmp_path):
    path = tmp_path / "new" / f"said.{suffix}"
    with open_output(path, CLASSES, ["place"]) as write:
        for number in range(1, 4):
            write(SAID, {"place": "on\nland"})
            text = path.read_text()
            assert text.endswith("\n")
            assert text.count("a b.jpg") == number


def test_every_cell_comes_back(tmp_path):
    with open_output(tmp_path / "said.jsonl", CLASSES, ["label", "given_label"]) as write:
        write(SAID, {"label": "x", "given_label": "y"})
    assert json.loads((tmp_path / "said.jsonl").read_text()) == {
        "path": "a b.jpg",
        "label": "kakapo",
        "probability": 0.75,
        "probabilities": {"kakapo": 0.75, 'other, "bird"': 0.25},
        "given_label": "x",
        "given_given_label": "y",
    }


def test_no_two_columns_have_one_name():
    names = carried_names(["label", "given_label", "p(kakapo)", "path"], CLASSES)
    assert len(set(names.values())) == 4
    assert not {"label", "path", "p(kakapo)"} & set(names.values())


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(PriorError, match=r"give a file that ends with \.csv or \.jsonl"), open_output("x.txt", [], []):
        pass
