"""The command ``lightning-priors inspect-data``: looks at the data before anything is trained on it."""

import json
from collections.abc import Sequence
from pathlib import Path

from lightning_priors.callbacks.drawing import draw_priors
from lightning_priors.cli.data_options import parse_data
from lightning_priors.cli.main import Parser
from lightning_priors.cli.quiet import less_noise
from lightning_priors.cli.user_modules import working_folder_importable
from lightning_priors.data.inspection import as_json, as_text, examples, inspect
from lightning_priors.whole_files import write_figure, write_text

DESCRIPTION = """\
Reads every picture once and prints how many there are by split, class, group and annotation, which pictures two splits
share, and which cannot be read. Writes inspection.json, and inspection.png with pictures and their priors as training
sees them. No model is built."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command.

    Args:
        arguments: Its options.

    Returns:
        The exit code: 0, or 1 if a picture cannot be read or has a wrong annotation.

    Raises:
        PriorError: For a mistake in the options or in an index file.
        SystemExit: After ``--help``.

    >>> main(["--data.sourc", "Coco"])
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: there is no option --data.sourc; did you mean '--data.source'?
    """
    with working_folder_importable(), less_noise():
        data, options = parse_data(arguments, _own_options, "lightning-priors inspect-data", DESCRIPTION)
        data.prepare_data()
        found = inspect(data)
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    print(as_text(found))
    write_text(output / "inspection.json", json.dumps(as_json(found), indent=1))
    print(output / "inspection.json")
    if rows := examples(data, found, options.pictures):
        write_figure(output / "inspection.png", draw_priors(rows, data.classes))
        print(output / "inspection.png")
    return 1 if found.problems else 0


def _own_options(parser: Parser) -> None:
    parser.add_argument("--output", default="inspection", help="The folder of the table and the sheet.")
    parser.add_argument("--pictures", type=int, default=8, help="Number of pictures on the sheet.")
