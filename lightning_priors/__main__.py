"""The front of the command line: answers what needs no torch at once and hands the rest over."""

import errno
import importlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import lightning_priors
from lightning_priors.errors import PriorError, Terminated, nearest

LIGHTNING = "lightning_priors.cli"
"""The module of Lightning's commands; its `main` takes the command's name too, because it serves several."""

OF_PICTURES = "lightning_priors.cli.predict"
"""The module of ``predict`` where a run is given first, and of its help."""

COMMANDS: Mapping[str, tuple[str, str]] = {
    "init": ("look at your own data and write the configurations to begin with", "lightning_priors.cli.init"),
    "fit": ("train a technique; a run folder keeps its configuration, metrics, checkpoints and panels", LIGHTNING),
    "validate": ("evaluate a checkpoint on the validation images", LIGHTNING),
    "test": ("evaluate a checkpoint on the test images", LIGHTNING),
    "predict": ("classify pictures: RUN PICTURES...; or, with the options of fit, the test images", LIGHTNING),
    "explain": ("show where a classifier looks and whom it fails, as one page", "lightning_priors.explain"),
    "configs": ("list the configurations that -c finds by their names", "lightning_priors.shipped"),
    "compare": ("run several techniques and seeds under one protocol and summarise them", "lightning_priors.compare"),
    "dashboard": ("make a workspace and a report of Weights & Biases, as code", "lightning_priors.dashboard"),
    "inspect-data": (
        "count, check and draw the pictures and their priors, before training",
        "lightning_priors.cli.inspect_data",
    ),
    "annotate": (
        "fill in masks or boxes that the data lacks, by a network, a function or a trained run",
        "lightning_priors.annotation.command",
    ),
    "export": (
        "write a trained classifier as ONNX, safetensors or torch.export, with a model card",
        "lightning_priors.export",
    ),
}
"""For each command one line of help, and the module whose ``main(arguments) -> int`` runs it.

The arguments are those after the command's name. The module is imported when its command is given, not before.
"""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a full disk says."""

NO_PLACE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.ENOENT,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.EIO,
)
"""What a place says where nothing can be read or written."""

SECONDS_TO_TRY_AGAIN = 0.05
"""How long after a lost Ctrl-C the signal is sent again; by then Python has left the callback that lost it."""

HELP = """\
usage: lightning-priors COMMAND [options]

{commands}

  lightning-priors COMMAND --help    the options of a command
  lightning-priors --version

examples:
  lightning-priors fit -c cam_restriction --trainer.max_epochs 10
  lightning-priors fit --model Pretrained --data.source Waterbirds --data.source.root DIR
  lightning-priors fit --model CAMRestriction --help
  lightning-priors test -c RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt
  lightning-priors predict RUN birds/ --out birds.csv --panels
  lightning-priors explain RUN\
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: The arguments after the program's name; by default those of the process.

    Returns:
        The exit code: 0, 1 for a failure, 2 for a user's mistake, 130 after Ctrl-C, 141 when nobody reads the output
        any more, 143 after SIGTERM.

    >>> main(["--version"])
    lightning-priors 0.1.0
    0
    """
    try:
        with no_interrupt_lost():
            return _flushed(list(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:
        _write_no_more()
        return 141
    except OSError as error:
        if error.errno not in (*FULL, *NO_PLACE):
            raise
        if error.errno in FULL:
            _write_no_more()
        print(f"error: {error.strerror}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 1 if error.errno in FULL else 2
    except PriorError as error:
        print(f"error: {last_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Terminated:
        print("terminated", file=sys.stderr)
        return 143


def last_line(error: PriorError) -> str:
    r"""The line that names the mistake; an error from a worker process carries a traceback before it.

    >>> last_line(PriorError("Caught PriorError in worker 0.\nTraceback ...\nerrors.PriorError: a.png is broken"))
    'a.png is broken'
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^[\w.]+Error: ", "", lines[-1])


@contextmanager
def no_interrupt_lost() -> Iterator[None]:
    """Sends a Ctrl-C again that Python has dropped.

    Python raises KeyboardInterrupt wherever the main thread is. In a finalizer or in the callback of a weak reference,
    where torch's modules spend some of their time, it prints the exception and goes on, and the command would not end.

    >>> import time, weakref
    >>> class Thing: pass
    >>> thing = Thing()
    >>> gone = weakref.ref(thing, lambda reference: signal.raise_signal(signal.SIGINT))
    >>> try:
    ...     with no_interrupt_lost():
    ...         del thing
    ...         time.sleep(60)
    ... except KeyboardInterrupt:
    ...     print("interrupted")
    interrupted
    """
    hook = sys.unraisablehook

    def send_again(dropped: "sys.UnraisableHookArgs") -> None:
        if not isinstance(dropped.exc_value, KeyboardInterrupt):
            hook(dropped)
            return
        timer = threading.Timer(SECONDS_TO_TRY_AGAIN, os.kill, (os.getpid(), signal.SIGINT))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = hook


def _flushed(arguments: list[str]) -> int:
    """Runs a command and writes all of its output now, while an error that this meets can still be handled."""
    try:
        return _dispatch(arguments)
    finally:
        sys.stdout.flush()


def _write_no_more() -> None:
    """Sends what is still to be written nowhere: Python would try once more at its end, and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def names_run(arguments: Sequence[str]) -> bool:
    """Says whether the first argument is no option: ``predict`` then takes a run and pictures.

    >>> names_run(["runs/Toy/version_0", "birds"]), names_run(["-c", "config.yaml"]), names_run([])
    (True, False, False)
    """
    return bool(arguments) and not arguments[0].startswith("-")


def _dispatch(arguments: list[str]) -> int:
    command = arguments[0] if arguments else ""
    if command in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        print(HELP.format(commands="\n".join(f"  {name:{width}}  {text}" for name, (text, _) in COMMANDS.items())))
        return 0
    if command == "--version":
        print(f"lightning-priors {lightning_priors.__version__}")
        return 0
    if command not in COMMANDS:
        problem = f"there is no command {command!r}" if command else "a command is missing"
        raise PriorError(f"{problem}; {nearest(command, COMMANDS)}")
    module = COMMANDS[command][1]
    if command == "predict" and (names_run(arguments[1:]) or arguments[1:] in (["-h"], ["--help"])):
        module = OF_PICTURES
    run: Callable[[list[str]], int] = importlib.import_module(module).main
    return run(arguments if module == LIGHTNING else arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
