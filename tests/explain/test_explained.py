"""The numbers of classifiers whose answers are known, and the page that shows them."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from known_classifiers import CLASSES, Squares, reader, squares
from scipy.stats import bootstrap, rankdata

from lightning_priors import statistics
from lightning_priors.explain.backgrounds import others, without_target
from lightning_priors.explain.command import Candidate, explained
from lightning_priors.explain.page import found, page
from lightning_priors.explain.report import ranking

SOURCE = Squares()
LABEL = np.array([SOURCE.label(index) for index in range(SOURCE.count)])
PLACE = np.array([SOURCE.place(index) for index in range(SOURCE.count)])


def candidate(part, data):
    return Candidate(f"reads the {part}", f"runs/{part}<i>", reader(part), data.test_dataloader().dataset)


@pytest.fixture(scope="module")
def alone():
    """Numbers and pictures of the classifier that looks at the background."""
    data = squares()
    return explained([candidate("corner", data)], data, "test")


@pytest.fixture(scope="module")
def both():
    """Numbers and pictures of the one that looks at the target, against the other."""
    data = squares()
    return explained([candidate("centre", data), candidate("corner", data)], data, "test")


def test_who_looks_at_the_background_alone_is_as_good_as_the_background(alone):
    run = alone[0]["run"]
    own, drawn = LABEL == PLACE, PLACE[others(len(LABEL))]
    assert run["accuracy"] == pytest.approx(own.mean())
    assert run["worst_group"]["accuracy"] == 0
    assert [row["accuracy"] for row in run["by_group"]] == [1, 0, 0, 1]
    assert run["evidence"]["epg"] == 0
    # where the corner speaks against the class, all other cells share the maximum, and four of these are the target
    assert run["evidence"]["pointing_game"] == pytest.approx((~own).mean() * 4 / 63)
    backgrounds = run["backgrounds"]
    assert backgrounds["original"]["accuracy"] == pytest.approx(own.mean())
    assert backgrounds["exchanged"]["accuracy"] == pytest.approx((drawn == LABEL).mean())
    assert backgrounds["changed"] == pytest.approx((drawn != PLACE).mean())
    assert backgrounds["gap"]["mean"] == pytest.approx(own.mean() - (drawn == LABEL).mean())
    # before the mean colour it says the same of all
    assert backgrounds["alone"] == {"accuracy": pytest.approx((LABEL == 0).mean()), "auroc": pytest.approx(0.5)}


def test_who_looks_at_the_target_alone_loses_nothing(both):
    run = both[0]["run"]
    assert run["accuracy"] == run["worst_group_acc"] == run["auroc"] == 1
    assert run["evidence"]["pointing_game"] == 1
    assert run["evidence"]["covered"] == pytest.approx(16 / 256)
    for kind in ("original", "alone", "exchanged"):
        assert run["backgrounds"][kind] == {"accuracy": 1, "auroc": 1}
    assert run["backgrounds"]["changed"] == 0
    assert run["backgrounds"]["gap"]["low"] is None  # no image differs: no interval


def test_two_classifiers_are_compared_on_the_same_images(both):
    difference = both[0]["difference"]
    wrong = int((LABEL != PLACE).sum())
    assert difference["images"] == {"both": 40 - wrong, "only_first": wrong, "only_second": 0, "neither": 0}
    assert difference["accuracy"]["mean"] == pytest.approx(wrong / 40)
    assert 0 < difference["accuracy"]["low"] < wrong / 40 < difference["accuracy"]["high"]
    assert {image["index"] for image in both[0]["only_first"]} <= set(np.flatnonzero(LABEL != PLACE).tolist())
    assert both[0]["only_second"] == both[0]["mistakes"] == []


def test_mistakes_are_wrong_and_the_most_confident_come_first(alone):
    mistakes = alone[0]["mistakes"]
    assert {image["index"] for image in mistakes} <= set(np.flatnonzero(LABEL != PLACE).tolist())
    confidence = [image["answers"][0]["probability"] for image in mistakes]
    assert confidence == sorted(confidence, reverse=True)
    assert all(image["answers"][0]["label"] != image["label"] for image in mistakes)


def test_without_masks_there_is_nothing_about_evidence_and_backgrounds():
    data = squares(masks=False)
    numbers, pictures = explained([candidate("corner", data)], data, "test")
    assert numbers["run"]["evidence"] is None
    assert numbers["run"]["backgrounds"] is None
    html = page(numbers, pictures)
    assert "Does it need the background?" not in html
    assert "Where does it look?</h2>" not in html


class Reading(HTMLParser):
    """Collects what a page refers to, its elements and its numbers."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.addresses, self.numbers, self.attributes, self.text = [], [], {}, [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.tags.append(tag)
        self.attributes += named
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "poster")]
        if tag == "data":
            self.numbers[named["data-key"]] = named["value"]
        if tag == "img":
            assert named["alt"]

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("kind", ["alone", "both"])
def test_the_page_needs_nothing_else_and_escapes_what_comes_from_the_data(kind, request):
    html = page(*request.getfixturevalue(kind))
    read = Reading(html)
    assert all(address.startswith("data:image/") for address in read.addresses)
    assert len(read.addresses) > 4
    assert not any(word in html for word in ("http:", "https:", "@import", "url("))
    assert not {"script", "link", "iframe", "b>land"} & set(read.tags)
    assert not any(name.startswith("on") for name in read.attributes)
    assert CLASSES[0] in read.text
    assert 'name="viewport"' in html
    assert "prefers-color-scheme: dark" in html
    assert read.tags.count("html") == read.tags.count("body") == 1


@pytest.mark.parametrize("kind", ["alone", "both"])
def test_every_number_on_the_page_stands_in_the_json(kind, request):
    numbers, pictures = request.getfixturevalue(kind)
    written = json.loads(json.dumps(numbers, allow_nan=False))
    shown = Reading(page(numbers, pictures)).numbers
    assert {"run.accuracy", "run.worst_class.accuracy", "run.backgrounds.exchanged.accuracy"} <= shown.keys()
    assert {key: json.loads(value) for key, value in shown.items()} == {key: found(written, key) for key in shown}


def test_a_removed_target_leaves_no_trace_of_its_colour():
    background = torch.linspace(-1, 1, 33).expand(1, 3, 21, 33).clone()
    target = torch.zeros(1, 21, 33)
    target[:, 5:15, 10:20] = 1
    with_target = torch.where(target[:, None] > 0, 9.0, background)
    filled = without_target(with_target, target)
    torch.testing.assert_close(filled[..., :8], background[..., :8])
    assert (filled - background).abs().max() < 0.5
    torch.testing.assert_close(
        without_target(torch.full_like(with_target, 0.3), target), torch.full_like(background, 0.3)
    )


def test_ranking_of_two_classes_is_the_rank_sum():
    generator = torch.Generator().manual_seed(0)
    logits, label = torch.randn(60, 2, generator=generator), torch.randint(2, (60,), generator=generator)
    ranks = rankdata((logits[:, 1] - logits[:, 0]).numpy())
    ones = int(label.sum())
    area = (ranks[label.numpy() == 1].sum() - ones * (ones + 1) / 2) / (ones * (60 - ones))
    assert ranking(logits, label)["auroc"] == pytest.approx(area, abs=1e-6)
    assert ranking(logits, torch.zeros(60, dtype=torch.int64)) == {"auroc": None, "average_precision": None}


def test_a_bootstrap_in_parts_is_the_bootstrap(monkeypatch):
    numbers = np.random.default_rng(0).random((2, 50))
    whole = bootstrap((numbers[0] - numbers[1],), np.mean, method="percentile",
                      rng=np.random.default_rng(0)).confidence_interval  # fmt: skip
    monkeypatch.setattr(statistics, "NUMBERS_AT_ONCE", 5000)
    parts = statistics.paired_difference(*numbers.tolist())
    assert parts.low == pytest.approx(whole.low, abs=0.01)
    assert parts.high == pytest.approx(whole.high, abs=0.01)
