"""A table is kept in columns: it says what its rows say, and has no object for each of them."""

import csv
import gc
import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import Source, Table
from lightning_priors.data.sources.columns import AT_ONCE, Categories, Texts, read_columns_of
from lightning_priors.data.sources.table_rows import place_in
from lightning_priors.data.sources.wrapper import SourceWrapper
from lightning_priors.errors import PriorError

ROWS = 20_000
HEADER = ["path", "label", "split", "mask", "group", "kind", "x0", "y0", "x1", "y1"]

names = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=6)
numbers = st.floats(-1e6, 1e6).map(str)
boxes = st.one_of(st.just(["", "", "", ""]), st.lists(numbers, min_size=4, max_size=4))
rows = st.tuples(
    st.sampled_from(["kea", "kakapo", "k\u0101k\u0101"]),
    st.sampled_from(["train", "val", "test"]),
    st.one_of(st.just(""), names.map("masks/{}.png".format)),
    st.sampled_from(["land", "water"]),
    st.sampled_from(["", "-1", "9", "10"]),
    boxes,
)


def write(path: Path, table: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEADER, *table])


def large(folder: Path, rows: int) -> Path:
    draw = random.Random(0)
    write(
        folder / "table.csv",
        [
            [f"{number}.png", f"c{draw.randrange(9)}", "train", f"m{number}.png", "ab"[number % 2], "", *"1234"]
            for number in range(rows)
        ],
    )
    return folder


@given(st.lists(rows, min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_the_columns_say_what_the_rows_say(drawn: list[Any]) -> None:
    table = [[f"{number}.png", *cells, *box] for number, (*cells, box) in enumerate(drawn)]
    with TemporaryDirectory() as folder:
        write(Path(folder, "table.csv"), table)
        source = Table(folder, aux=["kind"])
        source.setup()
    read = source._file.rows
    for index, row in enumerate(table):
        cells = dict(zip(HEADER, row, strict=True))
        assert source.classes[source.label(index)] == cells["label"]
        assert index in source.indices(cells["split"])  # type: ignore[arg-type]
        known = source.known(index)
        assert source.group_names[known["group"]] == cells["group"]
        kinds = {-1: ("", "-1")} | {number: (name,) for number, name in enumerate(source.aux_classes["kind"])}
        assert cells["kind"] in kinds[known["aux_labels"][0]]
        assert source.file(index) == cells["path"]
        assert read.masks is not None
        assert read.masks[index] == cells["mask"]
        wanted = [float(cells[name]) for name in HEADER[-4:]] if cells["x0"] else None
        assert place_in(read.boxes[0], index) == wanted
    assert source.labels(range(len(table))).tolist() == [source.label(index) for index in range(len(table))]


def test_no_row_is_an_object(tmp_path: Path) -> None:
    source = Table(str(large(tmp_path, ROWS)))
    gc.collect()
    before = sys.getallocatedblocks()
    data = PriorDataModule(source)
    data.setup("fit")
    gc.collect()
    assert len(data.datasets["train"]) + len(data.datasets["val"]) == ROWS
    assert sys.getallocatedblocks() - before < ROWS / 10


def test_a_batch_order_is_drawn_batch_by_batch(tmp_path: Path) -> None:
    data = PriorDataModule(Table(str(large(tmp_path, ROWS))), batch_size=8)
    data.setup("fit")
    order = iter(data.train_dataloader().batch_sampler)
    next(order)
    gc.collect()
    before = len(gc.get_objects())  # lists and tuples among them
    assert len([len(batch) for batch in order]) == -(-ROWS * 9 // 80) - 1
    gc.collect()
    assert len(gc.get_objects()) - before < 1000


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("rows", [1, AT_ONCE, AT_ONCE + 1])
def test_rows_are_read_over_the_borders_of_chunks(tmp_path: Path, suffix: str, rows: int) -> None:
    path = tmp_path / f"t.{suffix}"
    if suffix == "csv":
        path.write_text("a,b\n" + "".join(f"{number},{number % 3}\n" for number in range(rows)))
    else:
        path.write_text("".join(f'{{"a": {number}, "b": {number % 3}}}\n' for number in range(rows)))
    columns = read_columns_of(path, ["a"], ["b"], ["a"])
    assert list(columns.texts["a"]) == [str(number) for number in range(rows)]
    assert columns.categories["b"].array([0, 1, 2][:rows]).tolist() == [number % 3 for number in range(rows)]
    assert list(columns.numbers["a"].values) == list(range(rows))
    assert columns.row(rows - 1) == f"row {rows + (suffix == 'csv')} of t.{suffix}"


def test_a_key_that_comes_late_or_goes_early_is_an_empty_cell(tmp_path: Path) -> None:
    lines = ['{"a": 1}\n'] * AT_ONCE + ['{"b": "x"}\n'] * AT_ONCE
    (tmp_path / "t.jsonl").write_text("".join(lines))
    columns = read_columns_of(tmp_path / "t.jsonl", ["b"], ["b"], ["a"])
    assert list(columns.texts["b"]) == [""] * AT_ONCE + ["x"] * AT_ONCE
    assert list(columns.categories["b"].positions) == ["", "x"]
    assert np.isnan(columns.numbers["a"].values).tolist() == [False] * AT_ONCE + [True] * AT_ONCE


def test_of_several_mistakes_the_first_row_is_named(table: Path) -> None:
    text = (table / "table.csv").read_text().splitlines()
    text[4] = text[4].replace("d.png", "../d.png")
    text[3] = text[3].replace("val", "vall")
    text[2] = text[2].replace("other", "otter")
    for wrong in ("otter", "vall", "../d.png"):
        (table / "table.csv").write_text("\n".join(text))
        with pytest.raises(PriorError, match=wrong):
            Table(str(table), classes=["kakapo", "other"]).setup()
        text = [line.replace("otter", "other").replace("vall", "val") if wrong in line else line for line in text]


def test_texts_and_categories_find_a_cell() -> None:
    texts, kinds = Texts(), Categories()
    for column in (texts, kinds):
        column.add(["a", "", "\ud800", "a"])
    assert [texts.index("\ud800"), kinds.index("\ud800"), texts.index("a")] == [2, 2, 0]


def test_labels_follow_a_label_that_is_overridden_alone(table: Path) -> None:
    class Turned(Table):
        def label(self, index: int) -> int:
            return 1 - super().label(index)

    class TurnedBack(SourceWrapper):
        def label(self, index: int) -> int:
            return 1 - self.source.label(index)

    plain = Table(str(table))
    for source, wanted in ((plain, [0, 1, 1, 0]), (Turned(str(table)), [1, 0, 0, 1])):
        assert source.labels(range(4)).tolist() == wanted
        assert SourceWrapper(source).labels([3, 0]).tolist() == [wanted[3], wanted[0]]
        assert TurnedBack(source).labels(range(4)).tolist() == [1 - label for label in wanted]
    assert Source.labels(plain, []).tolist() == []
