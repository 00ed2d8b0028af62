"""The summary: which seeds pair up, what the tables say, and that nothing missing is passed over."""

import csv
import math

import pytest

from lightning_priors.compare.report import (
    HOW_TO_READ,
    RELATIVE,
    difference_grid,
    in_words,
    markdown,
    summarise,
    summary_csv,
    text,
    unknown_columns,
    value_grid,
)
from lightning_priors.compare.rows import Row
from lightning_priors.statistics import paired_difference, spread

ROWS = [
    Row("plain", 0, {"test/acc": 0.70, "seconds_per_step": 0.010}),
    Row("told", 0, {"test/acc": 0.75, "seconds_per_step": 0.015}),
    Row("told", 2, {"test/acc": 0.90, "seconds_per_step": 0.060}),
    Row("plain", 1, {"test/acc": 0.60, "seconds_per_step": 0.020}),
    Row("told", 1, {"test/acc": 0.80, "seconds_per_step": 0.030}),
    Row("plain", 2, {"test/acc": 0.65, "seconds_per_step": 0.030}),
    Row("left over", 0, {"test/acc": 0.0}),
]
RUNS = ["plain", "told"]


def test_pairs_are_made_by_seed_and_not_by_the_order_of_the_rows() -> None:
    entries = {(entry.run, entry.column): entry for entry in summarise(ROWS, RUNS)}
    told = entries["told", "test/acc"]
    assert told.spread == spread([0.75, 0.80, 0.90])
    assert told.difference == paired_difference([0.75, 0.80, 0.90], [0.70, 0.60, 0.65])
    assert "left over" not in {run for run, _ in entries}


def test_relative_seconds_are_taken_within_each_seed() -> None:
    entries = {(entry.run, entry.column): entry for entry in summarise(ROWS, RUNS)}
    assert entries["plain", RELATIVE].spread == (3, 1.0, 0.0)
    assert entries["told", RELATIVE].spread.mean == pytest.approx((1.5 + 1.5 + 2.0) / 3)


def test_a_missing_run_leaves_its_seed_out_of_the_pairs_only() -> None:
    entries = {(entry.run, entry.column): entry for entry in summarise([row for row in ROWS if row != ROWS[0]], RUNS)}
    told = entries["told", "test/acc"]
    assert (told.spread.runs, told.difference.pairs) == (3, 2)
    assert entries["plain", "test/acc"].spread.runs == 2
    assert entries["told", RELATIVE].spread.runs == 2


def test_only_the_reference_failed() -> None:
    entries = summarise([row for row in ROWS if row.run == "told"], RUNS)
    assert value_grid(entries, ["test/acc"]) == [
        ["run", "runs", "test/acc"],
        ["plain", "0", "-"],
        ["told", "3", "0.817 ± 0.076"],
    ]
    grid, notes = difference_grid(entries, ["test/acc"])
    assert grid[1] == ["told", "- *"]
    assert notes == ["* 0 pairs: no interval"]


def test_the_tables() -> None:
    entries = summarise(ROWS, RUNS)
    assert value_grid(entries, ["seconds_per_step", "test/acc", "none"]) == [
        ["run", "runs", "seconds_per_step", "test/acc"],
        ["plain", "3", "0.0200 ± 0.0100", "0.650 ± 0.050"],
        ["told", "3", "0.0350 ± 0.0229", "0.817 ± 0.076"],
    ]
    grid, notes = difference_grid(entries, ["test/acc"])
    assert grid == [["minus plain", "test/acc"], ["told", "+0.167 [-0.147, +0.391]"]]
    assert notes == []


def test_each_reason_for_a_missing_interval_has_its_own_mark() -> None:
    rows = [Row(run, seed, {"a/x": 1.0 + (run == "b"), "a/y": math.nan}) for run in "ab" for seed in range(3)]
    grid, notes = difference_grid(summarise(rows, ["a", "b"]), ["a/x", "a/y"])
    assert grid[1] == ["b", "+1.000 *", "- **"]
    assert notes == ["* the same in all 3 pairs: no interval", "** 0 pairs: no interval"]


def test_the_csv_has_every_number_in_full() -> None:
    entries = summarise(ROWS, RUNS)
    lines = list(csv.DictReader(summary_csv(entries).splitlines()))
    assert [(line["run"], line["column"]) for line in lines] == [(entry.run, entry.column) for entry in entries]
    told = next(line for line in lines if (line["run"], line["column"]) == ("told", "test/acc"))
    difference = paired_difference([0.75, 0.80, 0.90], [0.70, 0.60, 0.65])
    assert float(told["mean"]) == spread([0.75, 0.80, 0.90]).mean
    assert (float(told["low"]), float(told["high"])) == (difference.low, difference.high)
    plain = next(line for line in lines if (line["run"], line["column"]) == ("plain", "test/acc"))
    assert plain["low"] == ""
    assert plain["note"] == "the same in all 3 pairs: no interval"


def test_text_is_aligned_and_markdown_has_equal_rows() -> None:
    entries = summarise(ROWS, RUNS)
    shown = text(entries, ["test/acc", "test/egp"])
    first, second, third = shown.splitlines()[:3]
    assert first.index("test/acc") == second.index("0.650") == third.index("0.817")
    assert shown.endswith("\n\nno run has 'test/egp'; did you mean 'test/acc'?")
    page = markdown("birds", entries, ["test/acc", RELATIVE])
    assert page.startswith("# birds\n\n| run |")
    for table in (block for block in page.split("\n\n") if block.startswith("|")):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert "0.25 for three" in page
    assert "- told: test/acc shows no difference, +0.167 [-0.147, +0.391], p = 0.25" in page


def test_one_config_has_no_differences() -> None:
    entries = summarise(ROWS, ["plain"])
    assert "minus" not in text(entries, ["test/acc"])
    assert "Differences" not in markdown("birds", entries, ["test/acc"])


def test_unknown_columns_come_with_the_nearest() -> None:
    entries = summarise([Row("plain", 0, {"test/epg": 0.5})], ["plain"])
    assert unknown_columns(entries, ["test/epg", "test/egp"]) == ["no run has 'test/egp'; did you mean 'test/epg'?"]


@pytest.mark.parametrize(("units", "stated"), [(3, "0.25 for three"), (5, "0.062 for five"), (6, "0.031 for six")])
def test_the_page_states_the_least_p(units: int, stated: str) -> None:
    difference = paired_difference(list(range(1, units + 1)), [0] * units)
    assert difference.p == difference.least_p
    assert stated.startswith(f"{difference.p:.2g} ")
    assert stated in HOW_TO_READ


def repeated(difference: float, spread_: float, splits: int = 6) -> list[Row]:
    """Two configs on some splits with two seeds each."""
    rows = []
    for split in range(splits):
        for seed in range(2):
            wobble = spread_ * (-1) ** split * (1 + seed / 10)
            rows.append(Row("plain", seed, {"test/acc": 0.5, "time": 1.0}, split=split))
            rows.append(Row("told", seed, {"test/acc": 0.5 + difference + wobble, "time": 2.0}, split=split))
    return rows


def test_pairs_are_made_by_split_and_seed() -> None:
    entry = next(entry for entry in summarise(repeated(0.1, 0.01), RUNS) if entry[:2] == ("told", "test/acc"))
    assert (entry.spread.runs, entry.difference.pairs, entry.difference.units) == (12, 12, 6)
    assert entry.difference.mean == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("rows", "beginning"),
    [
        (repeated(0.1, 0.01), "told: test/acc is higher, +0.100 ["),
        (repeated(-0.1, 0.01), "told: test/acc is lower, -0.100 ["),
        (repeated(0.01, 0.1), "told: test/acc shows no difference, +0.010 ["),
        (repeated(0.1, 0.01, splits=3), "told: test/acc looks higher, "),
        (repeated(0.1, 0.01, splits=2), "told: test/acc differs by +0.100: 2 splits: no interval, nothing is shown"),
        (repeated(0.1, 0.01)[::2], "told: test/acc is not known"),
    ],
)
def test_the_verdict_in_words(rows: list[Row], beginning: str) -> None:
    (line,) = in_words(summarise(rows, RUNS), ["test/acc", "time"])
    assert line.startswith(beginning)
    if "looks" in line:
        assert line.endswith("but 3 units show no difference: so few units can give no p below 0.25")


def test_more_configs_need_more_evidence() -> None:
    """p = 1/32 of one config among three is no difference any more."""
    rows = repeated(0.1, 0.01)
    for name in ("other", "third"):
        rows += [Row(name, row.seed, row.values, split=row.split) for row in repeated(0.0, 0.1) if row.run == "told"]
    lines = in_words(summarise(rows, ["plain", "told", "other", "third"]), ["test/acc"])
    assert lines[0].startswith("told: test/acc shows no difference, +0.100 [")
    assert lines[0].endswith("p = 0.094")
