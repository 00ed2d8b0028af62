"""Keeps advertisements, and warnings that no user can act on, off the terminal."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

UNHELPFUL_WARNINGS = (
    r"The '\w+' does not have many workers",  # the pictures are small; `num_workers` is an option
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning against the newest torch
    r"(?s)\n.*deprecat",  # jsonargparse about Lightning's calls
    r"The dirpath has changed from",  # a resumed run has a folder of its own
    r"You're using the WeightAveraging callback, but loading",  # the averaged weights are what is evaluated
)

NO_NEWS = ("💡 Tip", "TPU available", "HPU available", "Loading `train_dataloader` to estimate")
"""How the lines of Lightning's log begin that are left out."""


@contextmanager
def less_warnings() -> Iterator[None]:
    """Ignores `UNHELPFUL_WARNINGS` within this context.

    >>> with less_warnings():
    ...     warnings.warn("The 'val_dataloader' does not have many workers")
    """
    with warnings.catch_warnings():
        for message in UNHELPFUL_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        yield


@contextmanager
def less_noise() -> Iterator[None]:
    """Ignores `UNHELPFUL_WARNINGS` within this context, and leaves `NO_NEWS` out of Lightning's log.

    >>> logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    >>> with less_noise():
    ...     len(logger.filters)
    1
    >>> len(logger.filters)
    0
    """
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addFilter(is_news)
    try:
        with less_warnings():
            yield
    finally:
        logger.removeFilter(is_news)


def is_news(record: logging.LogRecord) -> bool:
    """Says whether a line of Lightning's log matters to a user.

    >>> is_news(logging.makeLogRecord({"msg": "12 of 14 tensors loaded"}))
    True
    """
    return not record.getMessage().startswith(NO_NEWS)
