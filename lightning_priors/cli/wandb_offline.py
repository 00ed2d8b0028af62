"""Takes Weights & Biases offline where it has no key or no network: a run is logged to a folder, to be sent later."""

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from netrc import NetrcParseError, netrc
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

SECONDS_TO_ANSWER = 3.0

VARIABLES = (
    "WANDB_MODE",
    "WANDB_SILENT",
    "WANDB_NAME",
    "WANDB_JOB_TYPE",
    "WANDB_TAGS",
    "WANDB_DATA_DIR",
    "WANDB_ERROR_REPORTING",
)
"""Of the environment; those that a command sets for its W&B run."""


def go_offline_if_needed() -> None:
    """Sets W&B's offline mode when there is no key or no network, and says so; a mode that the user has set stays.

    Without this, W&B aborts the run or waits at the terminal when it has no key, and gives up after a minute and a
    half when it has no network.

    >>> from unittest.mock import patch
    >>> with patch.dict(os.environ, {"WANDB_MODE": "disabled"}):
    ...     go_offline_if_needed()
    ...     os.environ["WANDB_MODE"]
    'disabled'
    """
    if "WANDB_MODE" in os.environ:
        return
    url = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    reason = reason_to_be_offline(url)
    if reason:
        os.environ["WANDB_MODE"] = "offline"
        os.environ.setdefault("WANDB_SILENT", "true")  # its ten lines say less than the two of ours
        print(f"W&B: {reason}, so this run is logged offline")


@contextmanager
def session(say: bool = True) -> Iterator[None]:
    """Ends a W&B run with the command that started it, as failed if that fails, and restores `VARIABLES`.

    Args:
        say: Whether to say how an offline run is sent.

    W&B's reports of its own errors to its makers are off, unless WANDB_ERROR_REPORTING asks for them.

    >>> before = os.environ.get("WANDB_MODE")
    >>> with session():
    ...     os.environ.setdefault("WANDB_MODE", "offline") == (before or "offline")
    True
    >>> os.environ.get("WANDB_MODE") == before
    True
    """
    before = {name: os.environ.get(name) for name in VARIABLES}
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        yield
    except BaseException:
        _finish(say, exit_code=1)
        raise
    else:
        _finish(say, exit_code=0)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def reason_to_be_offline(url: str) -> str:
    """Says why a W&B server cannot be used; empty if it can.

    Args:
        url: Of the server.

    >>> from unittest.mock import patch
    >>> with patch.dict(os.environ, {"NETRC": "/nowhere", "WANDB_API_KEY": ""}):
    ...     reason_to_be_offline("https://wandb.example")
    'no API key for wandb.example (`wandb login` stores one)'
    """
    host = urlsplit(url).hostname or url
    if not (os.environ.get("WANDB_API_KEY") or _stored_key(host)):
        return f"no API key for {host} (`wandb login` stores one)"
    if not _answers(url):
        return f"no answer from {host}"
    return ""


def _stored_key(host: str) -> str | None:
    """Returns the key that ``wandb login`` has stored in the netrc file."""
    path = os.environ.get("NETRC") or next(
        (str(p) for p in map(Path.home().joinpath, (".netrc", "_netrc")) if p.is_file()), ""
    )
    try:
        entry = netrc(path).authenticators(host)
    except (OSError, NetrcParseError):
        return None
    return entry[2] if entry else None


def _answers(url: str) -> bool:
    """Says whether a server answers in time, even with an error.

    It asks in a thread, because looking up the server's name may take longer than the time limit of the connection.
    """
    answers: list[bool] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=SECONDS_TO_ANSWER).close()
        except urllib.error.HTTPError:
            answers.append(True)
        except OSError:
            answers.append(False)
        else:
            answers.append(True)

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS_TO_ANSWER)
    return bool(answers) and answers[0]


def _finish(say: bool, exit_code: int) -> None:
    wandb = sys.modules.get("wandb")
    if wandb is None or wandb.run is None:
        return
    folder, offline = Path(wandb.run.dir).parent, wandb.run.offline
    wandb.finish(exit_code=exit_code)
    wandb.teardown()  # its background process would resolve the next run's relative folder in this run's working folder
    if offline and say:
        shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        print(f"W&B: logged offline; send it with: wandb sync {shown}")
