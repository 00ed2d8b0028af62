"""The page of a comparison: it says what the JSON says, needs nothing else, and its charts are to scale."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lightning_priors.compare.details import write_details
from lightning_priors.compare.page.charts import Interval, Point, curves, dots, forest, scatter
from lightning_priors.compare.page.numbers import numbers, verdict
from lightning_priors.compare.page.page import needs_in_words, page
from lightning_priors.compare.page.pictures import Answer, Compared
from lightning_priors.compare.plan import Plan, Variant
from lightning_priors.compare.report import summarise
from lightning_priors.compare.resolve import Task
from lightning_priors.compare.rows import Row

MARKUP = "<script>alert(1)</script>"
ACCURACY = {"plain": [0.50, 0.52, 0.54], "told": [0.80, 0.85, 0.78], "worse": [0.30, 0.31, 0.33]}


def details(accuracy: float, needed: list[str]) -> dict[str, object]:
    by_group = [{"name": "on land", "accuracy": accuracy}, {"name": MARKUP, "accuracy": accuracy / 2}]
    kinds = {"original": accuracy, "alone": accuracy - 0.1, "exchanged": accuracy - 0.2}
    return {
        "needs": needed,
        "annotated_fraction": 0.1,
        "data": "Kakapo",
        "classes": ["kakapo", MARKUP],
        "groups": ["on land", MARKUP],
        "test": {
            "images": 12,
            "by_group": by_group,
            "by_class": [],
            "backgrounds": {kind: {"accuracy": value} for kind, value in kinds.items()},
        },
        "confusion": [{"class": "kakapo", "group": "on land", "answers": [3, 1]}],
    }


@pytest.fixture
def found(tmp_path: Path) -> dict:
    """The numbers of three configs with three seeds."""
    plan = Plan(
        {name: Variant(name, (), (f"--model.note={name}",)) for name in ACCURACY},
        seeds=(0, 1, 2),
        columns=("test/acc", "test/epg", "relative_seconds_per_step", "test/none"),
    )
    rows, tasks = [], []
    for name, values in ACCURACY.items():
        for seed, accuracy in enumerate(values):
            folder = tmp_path / f"{name}-{seed}"
            folder.mkdir()
            write_details(folder, details(accuracy, ["masks"] if name == "told" else []))
            (folder / "metrics.csv").write_text(f"epoch,val/acc\n0,0.5\n1,{accuracy}\n")
            measured = {"test/acc": accuracy, "test/epg": accuracy / 2, "seconds_per_step": 1.0 + (name == "told")}
            rows.append(Row(name, seed, {**measured, "test/acc@val/acc": accuracy}, str(folder), digest=name))
            tasks.append(Task(name, seed, [], name, {"checkpoint": {"monitor": "val/acc"}, "note": MARKUP}))
    entries = summarise(rows, list(plan.runs))
    return numbers(plan, "birds", "lightning-priors compare -c birds", tasks, rows, entries)


class Reader(HTMLParser):
    """Collects the numbers with their places, the tags, and the addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.numbers: list[tuple[str, float]] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attributes)
        if tag == "data":
            self.numbers.append((str(given["data-key"]), float(str(given["value"]))))
        self.addresses += [str(given[name]) for name in ("src", "href", "xlink:href") if name in given]


def at(tree: object, key: str) -> object:
    for step in key.split("."):
        tree = tree[int(step)] if isinstance(tree, list) else tree[step]  # type: ignore[index]
    return tree


def test_every_number_on_the_page_stands_in_the_json(found: dict) -> None:
    kept = json.loads(json.dumps(found))
    read = Reader(page(found))
    assert len(read.numbers) > 20
    for key, value in read.numbers:
        assert value == at(kept, key), key
    for rank, name in enumerate(["told", "plain", "worse"]):
        assert dict(read.numbers)[f"configs.{rank}.values.test/acc.mean"] == pytest.approx(sum(ACCURACY[name]) / 3)


def test_the_page_needs_nothing_else_and_escapes_what_comes_from_the_data(found: dict) -> None:
    image = Compared("data:image/webp;base64,AA", MARKUP, MARKUP, [Answer("told", "data:,", MARKUP, True, 0.9, None)])
    text = page(found, [image])
    read = Reader(text)
    assert not read.tags & {"script", "link", "iframe", "object"}
    assert all(address.startswith(("data:", "#")) for address in read.addresses)
    assert "url(http" not in text
    assert "@import" not in text
    assert text.count("&lt;script&gt;") > 8
    identifiers = re.findall(r'\bid="([^"]*)"', text)
    assert len(identifiers) == len(set(identifiers))


def test_configs_are_ranked_by_the_first_metric_and_the_verdict_is_in_words(found: dict) -> None:
    assert [config["name"] for config in found["configs"]] == ["told", "plain", "worse"]
    assert found["verdict"] == [
        "In test/acc plain has 0.520.",
        "They look higher, but so few splits or seeds can show no difference: told (+0.290).",
        "They look lower, but so few splits or seeds can show no difference: worse (-0.207).",
    ]
    assert found["columns"] == ["test/acc", "test/epg", "relative_seconds_per_step"]
    assert found["monitors"][1] == ["val/acc", "0.548"]
    assert needs_in_words(found["configs"][0]) == "masks, of 10 % of the images"
    assert needs_in_words(found["configs"][1]) == "nothing"


def test_a_comparison_whose_reference_is_not_finished_says_so() -> None:
    entries = summarise([Row("told", 0, {"test/acc": 0.5})], ["plain", "told"])
    assert verdict(entries, "test/acc", "plain") == ["plain is not finished."]
    assert verdict(entries, "", "plain") == ["plain is not finished."]


def test_details_are_means_and_sums_over_the_runs(found: dict) -> None:
    told = found["configs"][0]
    mean = sum(ACCURACY["told"]) / 3
    assert told["by_group"] == {"on land": pytest.approx(mean), MARKUP: pytest.approx(mean / 2)}
    assert told["backgrounds"]["exchanged"] == pytest.approx(mean - 0.2)
    assert told["confusion"] == [{"class": "kakapo", "group": "on land", "answers": [9, 3]}]
    assert told["curve"] == [(0, 0.5), (1, pytest.approx(mean))]


def circles(svg: str) -> list[float]:
    """The places of round marks, from left to right as they were drawn."""
    return [float(x) for x in re.findall(r'<use [^>]*x="([\d.]+)"[^>]*y="', svg)]


def test_differences_are_drawn_to_scale() -> None:
    lines = [Interval(name, mean, None, None, False) for name, mean in (("a", 0.0), ("b", 0.1), ("c", 0.3))]
    zero, one, three = circles(forest(lines, "test/acc", "plain"))
    assert (three - zero) / (one - zero) == pytest.approx(3, rel=1e-3)
    drawn = circles(dots({"a": [(0, 0.0), (1, 0.1)], "b": [(0, 0.3)]}, "test/acc"))
    assert (drawn[2] - drawn[0]) / (drawn[1] - drawn[0]) == pytest.approx(3, rel=1e-3)
    places = circles(
        scatter([Point(1, 0.0, 1.0, True), Point(2, 1.0, 2.0, False), Point(3, 3.0, 4.0, False)], "x", "y")
    )
    assert (places[2] - places[0]) / (places[1] - places[0]) == pytest.approx(3, rel=1e-3)


def test_charts_take_the_colours_and_letters_of_the_page_and_name_all_configs() -> None:
    rising = {f"config {number}": [(0, 0.5), (1, 0.6)] for number in range(5)}
    for chart in (curves(rising, "val/acc"), dots({name: [(0, 0.5)] for name in rising}, "test/acc")):
        assert all(f">{name}<" in chart for name in rising)
        assert "var(--" in chart
        assert "DejaVu" not in chart
        assert "#0" not in chart
