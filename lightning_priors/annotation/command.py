"""The command ``lightning-priors annotate``: fills in masks or boxes that the data lacks."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace

from lightning_priors.annotation.annotate import name_of, records
from lightning_priors.annotation.annotator import Annotator
from lightning_priors.annotation.judge import Judge
from lightning_priors.annotation.writing import FILLED, TableWriter
from lightning_priors.cli.data_options import parse_data
from lightning_priors.cli.main import Parser
from lightning_priors.cli.quiet import less_noise
from lightning_priors.cli.user_modules import working_folder_importable
from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import Split
from lightning_priors.errors import PriorError
from lightning_priors.import_path import import_attribute

DESCRIPTION = """\
Has an annotator fill in the masks or boxes that the data lacks, and writes all of it as a table with scores (table.csv,
masks/) and the configuration that reads it (data.yaml), ready for fit. What is known is kept. By default only training
images are annotated: the evaluation is to know the truth or nothing."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command.

    Args:
        arguments: Its options.

    Returns:
        The exit code 0.

    Raises:
        PriorError: For a mistake in the options, the data or what the annotator gives.
        SystemExit: After ``--help``.

    >>> main(["--by", "FoundRegion", "--out", "somewhere"])
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: --by: there is no class 'FoundRegion'; did you mean 'FoundRegions'?
    """
    with working_folder_importable(), less_noise():
        given = spelled_out(arguments)
        bases = {"by": Annotator, "by.detector": Annotator}
        data, options = parse_data(given, _add_options, "lightning-priors annotate", DESCRIPTION, bases)
        return _run(data, options)


def _run(data: PriorDataModule, options: Namespace) -> int:
    annotator: Annotator = options.by
    if not options.splits:
        raise PriorError("--splits names no split; choose from train, val, test")
    data.prepare_data()
    data.setup()
    writer = TableWriter(Path(options.out), data, list(annotator.part_names), options.min_score)
    annotator.learn(data)
    judge = Judge(list(annotator.part_names), data.source.part_names)
    for record in records(data, annotator, options.splits, ask_all=options.judge):
        writer.add(record)
        judge.add(record)
    table, configuration = writer.finish()
    _say(writer, name_of(annotator), options.splits)
    if options.judge:
        _report(judge, name_of(annotator), writer.folder)
    print(table)
    print(configuration)
    return 0


def _add_options(parser: Parser) -> None:
    parser.add_argument(
        "--by", type=Annotator, required=True, help="The annotator: a class, or a function of yours by dotted name."
    )
    parser.add_argument("--out", type=str, required=True, help="The folder to write.")
    parser.add_argument("--min_score", type=float, default=0.0, help="Annotations with a lower score are left out.")
    parser.add_argument(
        "--splits", type=list[Literal["train", "val", "test"]], default=["train"], help="What to annotate."
    )
    parser.add_argument(
        "--judge", action="store_true", help="Compare with what is known, and write that to judge.json."
    )


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """Writes ``--by mine.function`` as the annotator that asks this function.

    Args:
        arguments: The options; what ``--by`` names is imported if it has a dot and is none of this library.

    >>> spelled_out(["--by", "math.sqrt", "--judge"])
    ['--by', 'PythonFunction', '--by.function', 'math.sqrt', '--judge']
    """
    complete: list[str] = []
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--by=") else [word])]
    for place, word in enumerate(words):
        is_name = place > 0 and words[place - 1] == "--by" and "." in word
        if is_name and not word.startswith("lightning_priors.") and not isinstance(import_attribute(word), type):
            complete += ["PythonFunction", "--by.function", word]
        else:
            complete.append(word)
    return complete


def _say(writer: TableWriter, name: str, splits: Sequence[Split]) -> None:
    data: PriorDataModule = writer.data
    asked = sum(len(data.datasets[split]) for split in splits)
    known = asked - writer.counts.total()
    others = [f"{known} known already"] if known else []
    others += [f"{count} {what}" for what, count in writer.counts.items() if what != FILLED]
    print(f"{name}: {writer.counts[FILLED]} of {asked} pictures ({', '.join(splits)}) filled in")
    if others:
        print(f"not filled in: {', '.join(others)}")
    if writer.copied:
        print(f"written as PNG, because their files do not hold them as they are: {writer.copied} pictures")


def _report(judge: Judge, name: str, folder: Path) -> None:
    report: dict[str, Any] = {"annotator": name, **judge.report()}
    text = json.dumps(report, indent=1)
    (folder / "judge.json").write_text(text + "\n", encoding="utf-8")
    print(text if len(report) > 1 else "nothing to judge: the truth is known of no picture that was annotated")
    print(folder / "judge.json")
