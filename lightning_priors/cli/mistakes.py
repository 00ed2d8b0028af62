"""Which errors of a run are the user's mistake, and the line that says it."""

import re
import traceback

import torch

from lightning_priors.cli.errors import missing_package, not_by_names
from lightning_priors.errors import PriorError

LIGHTNINGS_OWN = re.compile(r"lightning/(pytorch|fabric)/(?!core/)")
"""Files in which an error is Lightning's refusal of an option, not one of the technique's code."""

LOST_PROCESS = re.compile(r"Connection (closed|reset) by peer|remote worker|NCCL (remote )?error|Broken pipe")
"""What gloo and NCCL say where the process at the other end is gone."""


def mistake_of(error: BaseException) -> PriorError | None:
    """Returns the line for an error that is no defect of the program; None for a defect.

    Args:
        error: Any error.

    >>> mistake_of(KeyError("mask")) is None
    True
    """
    return mistake_behind(error) or too_large(error) or lost_process(error) or refused_by_lightning(error)


def mistake_behind(error: BaseException | None) -> PriorError | None:
    """Returns the user's mistake among the causes of an error, because the parser wraps what a constructor raises.

    Args:
        error: Any error.

    >>> mistake_behind(ValueError("no such class")) is None
    True
    """
    first = error
    while error is not None and not isinstance(error, PriorError):
        if isinstance(error, ModuleNotFoundError) and (line := missing_package(str(error), str(first))):
            return PriorError(line)
        if isinstance(error, ValueError) and (line := not_by_names(str(error))):
            return PriorError(line)
        error = error.__cause__
    return error


def too_large(error: BaseException) -> PriorError | None:
    """Returns the line for what does not fit into memory; None for another error.

    Args:
        error: Any error.

    >>> too_large(MemoryError("x"))
    PriorError('the memory does not suffice; choose a smaller batch_size or image_size')
    """
    told = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    return PriorError("the memory does not suffice; choose a smaller batch_size or image_size") if told else None


def lost_process(error: BaseException) -> PriorError | None:
    """Returns the line for a training on several devices of which one process has ended; None for another error.

    Args:
        error: Any error.

    >>> lost_process(RuntimeError("[...] Connection closed by peer [127.0.0.1]:53980"))
    PriorError('another process of this training has ended; its own error, if it had one, stands above')
    """
    if isinstance(error, RuntimeError) and LOST_PROCESS.search(str(error)):
        return PriorError("another process of this training has ended; its own error, if it had one, stands above")
    return None


def refused_by_lightning(error: BaseException) -> PriorError | None:
    """Returns the line for an option that Lightning itself refuses, in the midst of a run; None for another error.

    Args:
        error: Any error.

    >>> refused_by_lightning(ValueError("a defect of the program")) is None
    True
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = bool(frames) and LIGHTNINGS_OWN.search(frames[-1].filename)
    refused = isinstance(error, ValueError | TypeError | RuntimeError) and own
    return PriorError(" ".join(str(error).split())) if refused else None
