"""How far a comparison is and how long it will still take."""

import sys
import time
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Protocol, TextIO

TRUSTED_FRACTION = 0.05  # of a run, before its own pace says more than that of the runs before it
SECONDS_BETWEEN_UPDATES = 0.5
CLEAR = "\r\x1b[K"  # back to the beginning of the line, and empty it


def clock(seconds: float) -> str:
    """Writes a duration for people.

    >>> clock(8.2), clock(75), clock(3700)
    ('0:08', '1:15', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def time_left(
    durations: Mapping[str, Sequence[float]], queue: Sequence[str], elapsed: float = 0.0, fraction: float = 0.0
) -> float | None:
    """Estimates how long the runs of a queue will still take.

    Args:
        durations: Seconds of the finished runs, by config.
        queue: The configs of the runs that are not finished; the first is under way.
        elapsed: Seconds that the first has run.
        fraction: Share of the first that is done.

    Returns:
        Seconds, or None before anything is known. A config without a finished run counts as the mean of the others.

    >>> time_left({"plain": [10.0]}, ["plain", "plain"], elapsed=4.0)
    16.0
    >>> time_left({}, ["plain", "plain"], elapsed=5.0, fraction=0.5)
    15.0
    """
    if not queue:
        return 0.0
    everything = [seconds for finished in durations.values() for seconds in finished]

    def expected(run: str) -> float | None:
        return fmean(durations.get(run) or everything) if everything else None

    present = elapsed / fraction if fraction >= TRUSTED_FRACTION else expected(queue[0])
    if present is None:
        return None
    return max(0.0, present - elapsed) + sum(expected(run) or present for run in queue[1:])


class Named(Protocol):
    """A run that a line can name."""

    @property
    def run(self) -> str:
        """The name of its config."""

    @property
    def name(self) -> str:
        """What it is called."""


class Progress:
    """Writes a line for each run, and on a terminal one that moves while the run goes on.

    Args:
        queue: The configs of the runs that are not finished, in order.
        total: The number of all runs.
        durations: Seconds of the runs that were finished before, by config.
        stream: Where to write; the standard output by default.
        jobs: How many runs go side by side.
    """

    def __init__(
        self,
        queue: Sequence[str],
        total: int,
        durations: Mapping[str, Sequence[float]],
        stream: TextIO | None = None,
        jobs: int = 1,
    ) -> None:
        self.queue, self.total, self.stream, self.jobs = list(queue), total, stream or sys.stdout, jobs
        self.durations = {run: list(seconds) for run, seconds in durations.items()}
        self.running = ""
        """The name of the run that goes on; empty between runs and where several go side by side."""
        self._started, self._shown = 0.0, 0.0

    def say(self, line: str) -> None:
        """Writes a line."""
        print(line, file=self.stream, flush=True)

    def start(self, task: Named) -> None:
        """Begins the next run of the queue."""
        self.running = task.name
        self._started, self._shown = time.perf_counter(), 0.0
        self.update(0.0)

    def update(self, fraction: float) -> None:
        """Shows how far the run is, on a terminal and not too often."""
        now = time.perf_counter()
        if self.stream.isatty() and now - self._shown >= SECONDS_BETWEEN_UPDATES:
            self._shown = now
            left = time_left(self.durations, self.queue, now - self._started, fraction)
            line = f"{self._number()} {self.running}: {fraction:.0%}{_left_text(left)}"
            print(f"{CLEAR}{line}", end="", file=self.stream, flush=True)

    def end(self, task: Named, outcome: str, seconds: float, finished: bool) -> None:
        """Ends a run with a line; only a finished run counts for the time left."""
        number = self._number()
        self.queue.remove(task.run)
        self.running = ""
        if finished:
            self.durations.setdefault(task.run, []).append(seconds)
        left = time_left(self.durations, self.queue) if self.queue else None
        left_text = _left_text(None if left is None else left / self.jobs)
        clear = CLEAR if self.stream.isatty() else ""
        self.say(f"{clear}{number} {task.name}: {outcome}, {clock(seconds)}{left_text}")

    def interrupt(self) -> None:
        """Ends the line of the run that went on."""
        if self.running:
            self.say(f"{CLEAR if self.stream.isatty() else ''}{self._number()} {self.running}: interrupted")

    def _number(self) -> str:
        return f"[{self.total - len(self.queue) + 1}/{self.total}]"


def _left_text(seconds: float | None) -> str:
    return "" if seconds is None else f"; about {clock(seconds)} left"
