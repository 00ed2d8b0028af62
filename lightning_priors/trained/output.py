"""Writing what a classifier says of pictures, line by line, so that a run that is killed leaves whole lines."""

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TextIO

from lightning_priors.errors import PriorError
from lightning_priors.trained.classifier import Prediction

OWN = ("path", "label", "probability", "probabilities")
"""Columns and keys of the output itself."""

CSV, JSON_LINES, OUTPUT = ".csv", ".jsonl", "-"


class Write(Protocol):
    """Writes a line for one picture."""

    def __call__(self, said: Prediction, columns: Mapping[str, str]) -> None:
        """Writes what was said of a picture, and what a table had said of it."""


def carried_names(columns: Sequence[str], class_names: Sequence[str]) -> dict[str, str]:
    """Names the columns that go from a table to the output, so that none is written over.

    Args:
        columns: Of the table.
        class_names: K names.

    Returns:
        For each column its name in the output: the same, or with ``given_`` before it where the output has one of
        that name.

    >>> carried_names(["place", "label"], ["kakapo", "other"])
    {'place': 'place', 'label': 'given_label'}
    """
    taken = {*OWN, *map(_probability, class_names)}
    names: dict[str, str] = {}
    for column in columns:
        name = column
        while name in taken:
            name = f"given_{name}"
        taken.add(name)
        names[column] = name
    return names


@contextmanager
def open_output(where: str | Path, class_names: Sequence[str], columns: Sequence[str]) -> Iterator[Write]:
    """Opens the table of predictions.

    Args:
        where: A file that ends with .csv or .jsonl, which is written over; or ``-``, the standard output, as CSV.
        class_names: K names.
        columns: Of the tables that the pictures come from.

    Yields:
        What writes the line of one picture.

    Raises:
        PriorError: If the file ends otherwise.
    """
    suffix = CSV if str(where) == OUTPUT else Path(where).suffix.lower()
    if suffix not in (CSV, JSON_LINES):
        raise PriorError(f"--out {where}: give a file that ends with {CSV} or {JSON_LINES}, or {OUTPUT}")
    names = carried_names(columns, class_names)
    with _stream(where) as file:
        yield _json_lines(file, names) if suffix == JSON_LINES else _table(file, class_names, names)


@contextmanager
def _stream(where: str | Path) -> Iterator[TextIO]:
    """The file, whose lines reach the disk one by one."""
    if str(where) == OUTPUT:
        yield sys.stdout
        return
    Path(where).parent.mkdir(parents=True, exist_ok=True)
    with open(where, "w", newline="", encoding="utf-8", buffering=1) as file:
        yield file


def _table(file: TextIO, class_names: Sequence[str], names: Mapping[str, str]) -> Write:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*OWN[:3], *map(_probability, class_names), *names.values()])

    def write(said: Prediction, columns: Mapping[str, str]) -> None:
        probabilities = [f"{value:.6g}" for value in said.probabilities.values()]
        given = [columns.get(name, "") for name in names]
        writer.writerow([said.name, said.label, f"{said.probabilities[said.label]:.6g}", *probabilities, *given])

    return write


def _json_lines(file: TextIO, names: Mapping[str, str]) -> Write:
    def write(said: Prediction, columns: Mapping[str, str]) -> None:
        probabilities = {name: float(f"{value:.6g}") for name, value in said.probabilities.items()}
        line = {
            "path": said.name,
            "label": said.label,
            "probability": probabilities[said.label],
            "probabilities": probabilities,
        }
        line |= {names[name]: cell for name, cell in columns.items()}
        file.write(json.dumps(line, ensure_ascii=False) + "\n")

    return write


def _probability(name: str) -> str:
    return f"p({name})"
