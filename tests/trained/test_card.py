"""The model card tells what was measured, as the Hub reads it, and nothing about the machine."""

import getpass
import json

import pytest

import lightning_priors
from lightning_priors.trained.card import model_card, results_of


def test_the_metrics_of_validation_are_those_of_the_checkpoint(runs):
    loaded = lightning_priors.load(runs("Combined")[1], device="cpu")
    card = loaded.generate_model_card()
    assert card.data.library_name == "lightning-priors"
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.license is None
    said = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert said["accuracy"] == pytest.approx(loaded.metrics["val/acc"], abs=1e-4)
    assert {result.dataset_name for result in card.data.eval_results} == {"Kakapo"}
    assert f"| val/acc | {loaded.metrics['val/acc']:.4g} | accuracy |" in card.text
    for word in (
        "kakapo, other bird",
        "32 x 32",
        "- The prior `Restriction`: loss = energy",
        '| `backbone` | "tiny" |',
    ):
        assert word in card.text


def test_results_of_a_run_go_in_by_group_and_paths_stay_out(runs, tmp_path):
    secret = str(tmp_path / getpass.getuser())
    results = {"test/acc": 0.75, "groups": {"kakapo on sand": {"acc": 0.5}}, "file": secret, secret: 0.125}
    (tmp_path / "test.json").write_text(json.dumps(results))
    (tmp_path / "other.json").write_text("{")
    assert results_of(tmp_path) == {"test": {"test/acc": 0.75, "groups/kakapo on sand/acc": 0.5}}
    loaded = lightning_priors.load(runs("CAMRestriction")[1], device="cpu")
    text = str(model_card(loaded.description, type(loaded.technique), tmp_path))
    assert "| groups/kakapo on sand/acc | 0.5 | accuracy |" in text
    assert secret not in text


def test_a_classifier_of_which_nothing_was_measured_says_so(runs):
    loaded = lightning_priors.load(runs("CAMRestriction")[1], device="cpu")
    loaded.metrics = {}
    card = loaded.generate_model_card()
    assert "Nothing was measured." in card.text
    assert card.data.eval_results is None
