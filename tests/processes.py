"""Processes of their own that have imported the package already: a new interpreter takes six seconds to do so.

Each is forked by a process that has imported it and has done nothing else. What belongs to the start of an interpreter
itself (the console script, an installed package, what is imported when) is tested in new ones.
"""

import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lightning_priors.compare.jobs import process_context


class Started:
    """A process with what `subprocess.Popen` has of methods and attributes.

    Args:
        work: What it does; picklable.
        arguments: Of the work.
        environment: All variables of the environment.
        path: Folders to search for modules before all others.
    """

    def __init__(
        self,
        work: Callable[..., object],
        arguments: Sequence[object],
        environment: Mapping[str, str],
        path: Sequence[str] = (),
    ) -> None:
        self.args = [work.__name__, *map(str, arguments)]
        self._folder = Path(tempfile.mkdtemp())
        self._files = [self._folder / name for name in ("out", "err")]
        places = (os.getcwd(), dict(environment), list(path), *map(str, self._files))
        self._process = process_context().Process(target=_begin, args=(places, work, arguments))
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def send_signal(self, sent: int) -> None:
        os.kill(self._process.pid, sent)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        out, err = (file.read_text(encoding="utf-8") for file in self._files)
        shutil.rmtree(self._folder)
        return out, err


def _begin(
    places: tuple[str, dict[str, str], list[str], str, str], work: Callable, arguments: Sequence[object]
) -> None:
    folder, environment, path, out, err = places
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = path
    for descriptor, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    sys.exit(work(*arguments))


def _command(program: str, arguments: Sequence[str]) -> int:
    from lightning_priors.__main__ import main

    sys.argv = [program, *arguments]
    return main()


def start_command(
    program: str, arguments: Sequence[str], environment: Mapping[str, str], path: Sequence[str]
) -> Started:
    """Starts a command of lightning-priors."""
    return Started(_command, (program, arguments), environment, path)


def _script(file: str, arguments: Sequence[str]) -> None:
    import logging

    import torch

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    sys.argv = [file, *arguments]
    runpy.run_path(file, run_name="__main__")


def run_on_ranks(count: int, script: Path, *arguments: str) -> None:
    """Runs a script in processes that train together.

    Raises:
        AssertionError: If one of them fails; with what it printed.
    """
    _on_ranks(count, _script, (str(script), arguments), [str(script.parent)])


def command_on_ranks(count: int, program: str, arguments: Sequence[str], path: Sequence[str]) -> None:
    """Runs a command of lightning-priors in processes that train together.

    Raises:
        AssertionError: If one of them fails; with what it printed.
    """
    _on_ranks(count, _command, (program, arguments), path)


def _on_ranks(count: int, work: Callable[..., object], arguments: Sequence[object], path: Sequence[str]) -> None:
    """Starts each process as torchrun starts it, and waits for all."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    launch = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count), "NODE_RANK": "0"}
    ranks = [Started(work, arguments, {**os.environ, **launch, "LOCAL_RANK": str(rank)}, path) for rank in range(count)]
    said = [rank.communicate(timeout=300) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * count, said
