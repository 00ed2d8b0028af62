"""The table of runs: nothing is lost in writing and reading, and no half-written file ever stands in its place."""

import math
import os
from pathlib import Path

import pytest

from lightning_priors.compare.rows import Row, read_rows, with_row, write_rows
from lightning_priors.errors import PriorError

FIRST = Row("plain", 0, {"val/acc": 0.1 + 0.2, "parameters": 123456789.0}, "out, with comma", "best.ckpt", "abc")
SECOND = Row("told", 12, {"val/acc": 1e-17, "test/epg": 2 / 3, "lost": math.inf}, "f", "c", "d", split=3)


def test_rows_come_back_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    write_rows(path, [FIRST, SECOND])
    first, second = read_rows(path)
    assert (first.key, first.folder, first.checkpoint) == (FIRST.key, FIRST.folder, FIRST.checkpoint)
    assert first.values["val/acc"] == 0.1 + 0.2
    assert first.values["parameters"] == 123456789
    assert second == Row("told", 12, {**SECOND.values, "parameters": second.values["parameters"]}, "f", "c", "d", 3)
    assert math.isnan(first.values["test/epg"])
    header, line, _ = path.read_text().splitlines()
    assert header == "run,split,seed,val/acc,parameters,test/epg,lost,folder,checkpoint,digest"
    assert line.startswith("plain,0,0,0.30000000000000004,123456789,,,")


def test_no_file_is_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "runs.csv") == []


def test_a_kill_while_writing_leaves_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs.csv"
    write_rows(path, [FIRST])

    def killed(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_rows(path, [FIRST, SECOND])
    assert [row.run for row in read_rows(path)] == ["plain"]
    monkeypatch.undo()
    write_rows(path, [SECOND])
    assert [row.run for row in read_rows(path)] == ["told"]
    assert [file.name for file in tmp_path.iterdir()] == ["runs.csv"]


def test_a_table_from_before_there_were_splits_has_split_0(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("run,seed,val/acc,folder,checkpoint,digest\nplain,4,0.5,f,c,d\n")
    assert read_rows(path) == [Row("plain", 4, {"val/acc": 0.5}, "f", "c", "d", split=0)]


def test_a_new_row_replaces_the_one_of_the_same_run_and_seed() -> None:
    again = Row("plain", 0, {}, digest="changed")
    assert with_row([FIRST, SECOND], again) == [SECOND, again]
    assert with_row([FIRST], SECOND) == [FIRST, SECOND]
    elsewhere = Row("plain", 0, split=1)
    assert with_row([FIRST], elsewhere) == [FIRST, elsewhere]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "has no column 'run': it is no table of runs"),
        ("run,seed,folder,checkpoint,digest\nplain,x,f,c,d\n", "line 2: invalid literal"),
        ("run,seed,val/acc,folder,checkpoint,digest\nplain,0,high,f,c,d\n", "line 2: could not convert"),
        ("run,seed,val/acc,folder,checkpoint,digest\nplain,0\n", "line 2: the line is longer or shorter"),
        ("run,seed,folder,checkpoint,digest\nplain,0,f,c,d,e\n", "line 2: the line is longer or shorter"),
    ],
)
def test_a_table_that_someone_has_edited(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(text)
    with pytest.raises(PriorError, match=message) as error:
        read_rows(path)
    assert "runs.csv" in str(error.value)
