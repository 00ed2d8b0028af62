"""The summary: which seeds pair up, what the tables say, and that nothing missing is passed over."""

import csv
import math

import numpy as np
import pytest

from lightning_priors.compare.report import (
    HOW_TO_READ,
    RELATIVE,
    difference_grid,
    markdown,
    summarise,
    summary_csv,
    text,
    unknown_columns,
    value_grid,
)
from lightning_priors.compare.rows import Row
from lightning_priors.compare.statistics import paired_difference, spread

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
    assert (told.spread.seeds, told.difference.pairs) == (3, 2)
    assert entries["plain", "test/acc"].spread.seeds == 2
    assert entries["told", RELATIVE].spread.seeds == 2


def test_only_the_reference_failed() -> None:
    entries = summarise([row for row in ROWS if row.run == "told"], RUNS)
    assert value_grid(entries, ["test/acc"]) == [
        ["run", "seeds", "test/acc"],
        ["plain", "0", "-"],
        ["told", "3", "0.817 ± 0.076"],
    ]
    grid, notes = difference_grid(entries, ["test/acc"])
    assert grid[1] == ["told", "- *"]
    assert notes == ["* 0 pairs: no interval"]


def test_the_tables() -> None:
    entries = summarise(ROWS, RUNS)
    assert value_grid(entries, ["seconds_per_step", "test/acc", "none"]) == [
        ["run", "seeds", "seconds_per_step", "test/acc"],
        ["plain", "3", "0.0200 ± 0.0100", "0.650 ± 0.050"],
        ["told", "3", "0.0350 ± 0.0229", "0.817 ± 0.076"],
    ]
    grid, notes = difference_grid(entries, ["test/acc"])
    assert grid == [["minus plain", "test/acc"], ["told", "+0.167 [+0.050, +0.250]"]]
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
    assert "75% for three seeds" in " ".join(page.split())


def test_one_config_has_no_differences() -> None:
    entries = summarise(ROWS, ["plain"])
    assert "minus" not in text(entries, ["test/acc"])
    assert "Differences" not in markdown("birds", entries, ["test/acc"])


def test_unknown_columns_come_with_the_nearest() -> None:
    entries = summarise([Row("plain", 0, {"test/epg": 0.5})], ["plain"])
    assert unknown_columns(entries, ["test/epg", "test/egp"]) == ["no run has 'test/egp'; did you mean 'test/epg'?"]


@pytest.mark.parametrize(("seeds", "stated"), [(3, "75% for three"), (5, "94% for five")])
def test_the_page_states_how_often_the_range_covers_the_median(seeds: int, stated: str) -> None:
    errors = np.random.default_rng(0).normal(size=(20000, seeds))
    covered = ((errors.min(axis=1) <= 0) & (errors.max(axis=1) >= 0)).mean()
    assert stated.startswith(f"{covered:.0%}")
    assert stated in HOW_TO_READ
