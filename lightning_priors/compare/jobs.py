"""Runs of a comparison side by side, each in a process of its own."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, NamedTuple

import torch

from lightning_priors.compare.resolve import Task
from lightning_priors.compare.rows import Row
from lightning_priors.errors import Terminated

if TYPE_CHECKING:  # Windows has not all of them
    from multiprocessing.context import ForkServerContext, SpawnContext

SECONDS_BETWEEN_LOOKS = 2.0

SAFE_PATH = "PYTHONSAFEPATH"
IMPORTED_ONCE = ["lightning_priors.cli.main", "lightning_priors.compare.run"]
"""What the server of processes imports; importing torch and Lightning takes longer than a small run."""

Work = Callable[[Task], Row | str]
"""Does a run: its row, or the line that names what went wrong; must be picklable."""


class Ended(NamedTuple):
    """A run that has ended."""

    task: Task
    outcome: Row | str
    """Its row, or the line that names what went wrong."""
    seconds: float
    """How long it took."""


class _Job(NamedTuple):
    task: Task
    process: BaseProcess
    answer: Connection
    place: int
    started: float


def side_by_side(tasks: Sequence[Task], work: Work, jobs: int, until: float) -> Iterator[Ended]:
    """Does runs, several at a time.

    The threads of this process are divided among the jobs; where there are GPUs each job sees one of them.

    Args:
        tasks: In the order in which they are started.
        work: Does one.
        jobs: How many run at a time.
        until: The `time.monotonic` from which on none is started.

    Yields:
        Each run as soon as it has ended.
    """
    queue, places = list(tasks), list(range(jobs))
    running: list[_Job] = []
    try:
        while True:
            while queue and places and time.monotonic() < until:
                running.append(_started(queue.pop(0), work, places.pop(0), jobs))
            if not running:
                return
            ready = wait([job.answer for job in running])
            for job in [job for job in running if job.answer in ready]:
                running.remove(job)
                places.append(job.place)
                yield Ended(job.task, _outcome(job), time.monotonic() - job.started)
    finally:
        for job in running:
            job.process.terminate()
        for job in running:
            job.process.join()


def share_of_machine(place: int, jobs: int, threads: int, gpus: int) -> dict[str, str]:
    """Sets the environment of a job.

    Args:
        place: Number of the job among those that run at the same time.
        jobs: How many run at a time.
        threads: To divide.
        gpus: To take one of in turn.

    >>> share_of_machine(place=3, jobs=4, threads=16, gpus=2)
    {'OMP_NUM_THREADS': '4', 'CUDA_VISIBLE_DEVICES': '1'}
    """
    share = {"OMP_NUM_THREADS": str(max(1, threads // jobs))}
    return share | ({"CUDA_VISIBLE_DEVICES": str(place % gpus)} if gpus else {})


def process_context() -> "ForkServerContext | SpawnContext":
    """Returns how the process of a job begins: forked by a server that has imported all and done nothing else.

    On Windows, which has nothing of the kind, each is a new interpreter.

    >>> process_context().get_start_method()
    'forkserver'
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED_ONCE)
    before = os.environ.get(SAFE_PATH)
    # else the server would import a module of the working folder before an installed one of the same name
    os.environ[SAFE_PATH] = "1"
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ[SAFE_PATH]
        else:
            os.environ[SAFE_PATH] = before
    return context


def _started(task: Task, work: Work, place: int, jobs: int) -> _Job:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    share = share_of_machine(place, jobs, torch.get_num_threads(), torch.cuda.device_count())
    process = process_context().Process(target=_do, args=(theirs, work, task, share))
    process.start()
    theirs.close()  # so that the end of the process closes the pipe
    return _Job(task, process, ours, place, time.monotonic())


def _outcome(job: _Job) -> Row | str:
    try:
        outcome: Row | str = job.answer.recv()
    except EOFError:
        job.process.join()
        return f"its process ended with the exit code {job.process.exitcode}"
    job.process.join()
    return outcome


def _do(answer: Connection, work: Work, task: Task, share: dict[str, str]) -> None:
    """What the process of a job does."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    os.environ.update(share)
    torch.set_num_threads(int(share["OMP_NUM_THREADS"]))
    try:
        answer.send(work(task))
    except (KeyboardInterrupt, Terminated):
        answer.close()


def _end_with(parent: int) -> None:
    """Ends this process when the comparison has been killed: a repeated one would run beside it.

    The parent is the comparison, or its server of processes, which ends with it.
    """
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)
