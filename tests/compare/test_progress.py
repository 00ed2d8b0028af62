"""The time left against hand-made cases, and the lines that are written."""

import io

import pytest

from lightning_priors.compare.progress import Progress, clock, time_left
from lightning_priors.compare.resolve import Task


@pytest.mark.parametrize(
    ("durations", "queue", "elapsed", "fraction", "expected"),
    [
        ({}, [], 0, 0, 0),
        ({}, ["a", "b"], 3, 0.0, None),  # nothing is known
        ({}, ["a", "b"], 3, 0.01, None),  # too early to tell
        ({}, ["a", "b"], 3, 0.25, 9 + 12),
        ({"a": [10, 20]}, ["a"], 5, 0, 10),
        ({"a": [10], "b": [30]}, ["b", "a", "b"], 0, 0, 30 + 10 + 30),
        ({"a": [10], "b": [30]}, ["c"], 0, 0, 20),  # like the mean of all
        ({"a": [10]}, ["a", "a"], 15, 0, 0 + 10),  # over its time: never negative
        ({"a": [10]}, ["a", "a"], 15, 0.5, 15 + 10),  # its own pace counts
    ],
)
def test_time_left(
    durations: dict[str, list[float]], queue: list[str], elapsed: float, fraction: float, expected: float | None
) -> None:
    assert time_left(durations, queue, elapsed, fraction) == (None if expected is None else pytest.approx(expected))


def test_clock() -> None:
    assert [clock(seconds) for seconds in (0, 59.6, 61, 3599, 3600)] == ["0:00", "1:00", "1:01", "59:59", "1:00:00"]


def named(run: str, seed: int, split: int = 0, splits: int = 1) -> Task:
    return Task(run, seed, [], "", split=split, splits=splits)


def test_runs_side_by_side_end_in_any_order_and_share_the_time() -> None:
    stream = io.StringIO()
    progress = Progress(["plain", "told", "plain"], total=3, durations={}, stream=stream, jobs=2)
    progress.end(named("told", 0, split=2, splits=3), "done", 40, finished=True)
    progress.end(named("plain", 1), "done", 20, finished=True)
    assert stream.getvalue().splitlines() == [
        "[1/3] told, split 2, seed 0: done, 0:40; about 0:40 left",
        "[2/3] plain, seed 1: done, 0:20; about 0:10 left",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that is moved by hand."""
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


def test_a_file_gets_one_line_for_each_run(ticking: list[float]) -> None:
    stream = io.StringIO()
    progress = Progress(["plain", "told", "plain"], total=4, durations={"told": [50.0]}, stream=stream)
    progress.start(named("plain", 1))
    ticking[0] += 20
    progress.update(0.5)
    ticking[0] += 10
    progress.end(named("plain", 1), "val/acc 0.900", 30, finished=True)
    progress.start(named("told", 1))
    ticking[0] += 5
    progress.end(named("told", 1), "failed: no mask", 5, finished=False)
    progress.start(named("plain", 2))
    ticking[0] += 30
    progress.end(named("plain", 2), "val/acc 0.800", 30, finished=True)
    assert stream.getvalue().splitlines() == [
        "[2/4] plain, seed 1: val/acc 0.900, 0:30; about 1:20 left",
        "[3/4] told, seed 1: failed: no mask, 0:05; about 0:30 left",
        "[4/4] plain, seed 2: val/acc 0.800, 0:30",
    ]


def test_a_terminal_sees_the_run_move(ticking: list[float]) -> None:
    stream = Terminal()
    progress = Progress(["plain", "plain"], total=2, durations={}, stream=stream)
    progress.start(named("plain", 0))
    for fraction in (0.1, 0.2, 0.3):  # the second and third come too soon after the first
        ticking[0] += 0.7 if fraction == 0.1 else 0.1
        progress.update(fraction)
    progress.end(named("plain", 0), "done", 1, finished=True)
    shown = [part for part in stream.getvalue().split("\r\x1b[K") if part]
    assert shown == [
        "[1/2] plain, seed 0: 0%",
        "[1/2] plain, seed 0: 10%; about 0:13 left",
        "[1/2] plain, seed 0: done, 0:01; about 0:01 left\n",
    ]
