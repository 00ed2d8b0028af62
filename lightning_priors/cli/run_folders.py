"""Which folder a command writes to, and that a failed start leaves none."""

import contextlib
import shutil
from pathlib import Path


def run_of(checkpoint: str) -> Path | None:
    """Returns the folder of the run that a checkpoint belongs to.

    Args:
        checkpoint: Such as ``RUN/checkpoints/best.ckpt``.

    Returns:
        ``RUN``; None where the file does not lie in the folder of a run.

    >>> run_of("no_run/best.ckpt") is None
    True
    """
    folder = Path(checkpoint).parent
    run = folder.parent
    return run if folder.name == "checkpoints" and (run / "config.yaml").is_file() else None


def unused(folder: Path, name: str) -> str:
    """Returns a name that nothing in a folder has: the name itself, or with the next free number.

    Args:
        folder: The folder; it need not exist.
        name: The name, such as ``test``.

    >>> unused(Path("nowhere"), "test")
    'test'
    """
    taken = {path.name for path in folder.glob(f"{name}*")}
    names = (name if number == 0 else f"{name}_{number}" for number in range(len(taken) + 1))
    return next(free for free in names if free not in taken)


def remove_failed_start(folder: Path) -> None:
    """Removes the folder of a run that ended before it had written more than its configuration.

    Args:
        folder: The folder. The two above it are removed too where nothing else is in them.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp(), "runs", "MAXL", "version_0")
    >>> folder.mkdir(parents=True)
    >>> _ = (folder / "config.yaml").write_text("model: MAXL")
    >>> remove_failed_start(folder)
    >>> folder.parents[1].exists(), folder.parents[2].exists()
    (False, True)
    """
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    if files - {Path("config.yaml")} or not folder.is_dir():
        return
    shutil.rmtree(folder)
    with contextlib.suppress(OSError):  # others are in it
        for parent in folder.parents[:2]:
            parent.rmdir()
