"""The table of predictions is complete, in order, and the same however many processes made it."""

import csv

import pytest
import torch

from lightning_priors.callbacks import PredictionWriter
from lightning_priors.callbacks.predictions import Prediction, prediction_rows
from lightning_priors.errors import PriorError


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_image_has_its_row_with_what_the_network_said(looker, data, make_trainer, run_dir):
    module = looker().eval()
    predicted = make_trainer(PredictionWriter()).predict(module, datamodule=data())
    rows = read(run_dir / "predictions.csv")
    assert [int(row["index"]) for row in rows] == list(range(100, 118))
    assert [row["label"] for row in rows] == ["kakapo"] * 12 + ["other bird"] * 6
    said = torch.cat([batch["probabilities"] for batch in predicted])
    for row, probabilities in zip(rows, said.tolist(), strict=True):
        assert float(row["p(kakapo)"]) == pytest.approx(probabilities[0], rel=1e-5)
        assert float(row["p(other bird)"]) == pytest.approx(probabilities[1], rel=1e-5)
        assert row["predicted"] == ("kakapo" if probabilities[0] > probabilities[1] else "other bird")


def test_a_second_call_starts_anew(looker, data, make_trainer, run_dir):
    trainer, module = make_trainer(PredictionWriter()), looker()
    for _ in range(2):
        trainer.predict(module, datamodule=data())
    assert len(read(run_dir / "predictions.csv")) == 18


def test_without_a_logger_the_table_is_in_the_root(looker, data, make_trainer, tmp_path):
    make_trainer(PredictionWriter(), logger=False).predict(looker(), data().val_dataloader())
    assert "p(0)" in read(tmp_path / "predictions.csv")[0]


def test_a_source_that_knows_its_files_has_them_in_the_table(looker, data, make_trainer, run_dir):
    class Files:
        def file(self, index):
            return f"birds/{index}.png"

    datamodule = data()
    datamodule.source = Files()
    make_trainer(PredictionWriter()).predict(looker(), datamodule=datamodule)
    assert [row["file"] for row in read(run_dir / "predictions.csv")][:2] == ["birds/100.png", "birds/101.png"]


def test_a_source_of_drawn_images_has_no_column_of_files(looker, data, make_trainer, run_dir):
    class Drawn:
        def file(self, index):
            return ""

    datamodule = data()
    datamodule.source = Drawn()
    make_trainer(PredictionWriter()).predict(looker(), datamodule=datamodule)
    assert "file" not in read(run_dir / "predictions.csv")[0]


def test_fast_dev_run_writes_nothing(looker, data, make_trainer, tmp_path):
    make_trainer(PredictionWriter(), fast_dev_run=True).predict(looker(), datamodule=data())
    assert not list(tmp_path.rglob("*.csv"))


def test_a_step_that_gives_anything_else_is_named(looker, data, make_trainer):
    class Other(looker):
        def predict_step(self, batch, batch_idx):
            return batch["label"]

    with pytest.raises(PriorError, match="needs predict_step of Other to give index and probabilities"):
        make_trainer(PredictionWriter()).predict(Other(), datamodule=data())


def test_rows_are_sorted_and_equal_indices_are_all_kept():
    predictions = [Prediction(5, -1, [0.0, 1.0]), Prediction(2, 1, [1.0, 0.0]), Prediction(5, -1, [0.5, 0.5])]
    _, rows = prediction_rows(predictions, ["a", "b"], {})
    assert rows == [["2", "b", "a", "1", "0"], ["5", "", "b", "0", "1"], ["5", "", "a", "0.5", "0.5"]]
