"""The command ``lightning-priors inspect-data``: looks at the data before anything is trained on it."""

import json
from argparse import SUPPRESS
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from lightning_priors.callbacks.drawing import draw_priors
from lightning_priors.cli.class_paths import check_class_paths
from lightning_priors.cli.lightning import make_optional
from lightning_priors.cli.main import ConfigFile, Parser, mistake_behind
from lightning_priors.cli.quiet import less_noise
from lightning_priors.cli.user_modules import import_failure, watched_imports, working_folder_importable
from lightning_priors.data import PriorDataModule
from lightning_priors.data.inspection import as_json, as_text, examples, inspect
from lightning_priors.errors import PriorError

DESCRIPTION = """\
Reads every picture once and prints how many there are by split, class, group and annotation, which pictures two splits
share, and which cannot be read. Writes inspection.json, and inspection.png with pictures and their priors as training
sees them. No model is built."""

OTHER_SECTIONS = (
    "model",
    "trainer",
    "checkpoint",
    "optimizer",
    "lr_scheduler",
    "seed_everything",
    "ckpt_path",
    "weights_only",
    "verbose",
)
"""What configurations and command lines of ``fit`` may have besides the data; it is left alone."""


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
        try:
            return _run(arguments)
        except Exception as error:
            if mistake := mistake_behind(error):
                raise mistake from error
            raise


def _run(arguments: Sequence[str]) -> int:
    parser, config = parsed(arguments)
    data: PriorDataModule = parser.instantiate_classes(config).data
    data.prepare_data()
    found = inspect(data)
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    print(as_text(found))
    (output / "inspection.json").write_text(json.dumps(as_json(found), indent=1), encoding="utf-8")
    print(output / "inspection.json")
    if rows := examples(data, found, config.pictures):
        draw_priors(rows, data.classes).savefig(output / "inspection.png")
        print(output / "inspection.png")
    return 1 if found.problems else 0


def _parser() -> Parser:
    """The parser of the data's options; it takes the configurations of ``fit``."""
    parser = Parser(prog="lightning-priors inspect-data", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("-c", "--config", action=ConfigFile, help="A configuration file; may be given repeatedly.")
    parser.add_argument("--output", default="inspection", help="The folder of the table and the sheet.")
    parser.add_argument("--pictures", type=int, default=8, help="Number of pictures on the sheet.")
    parser.add_lightning_class_args(PriorDataModule, "data")
    parser.set_defaults({"data.source": {"class_path": "lightning_priors.data.sources.Kakapo"}})
    make_optional(parser, "data.source")

    for name in OTHER_SECTIONS:
        parser.add_argument(f"--{name}", type=Any, help=SUPPRESS)
    return parser


def parsed(arguments: Sequence[str]) -> tuple[Parser, Namespace]:
    """Parses the options.

    Args:
        arguments: The options, those of ``fit`` included.

    Returns:
        The parser and its result, without what belongs to ``fit`` alone.

    Raises:
        PriorError: For a mistake in the options.

    >>> _, config = parsed(["--model", "Pretrained", "--data.image_size=32"])
    >>> config.data.image_size, config.model
    (32, None)
    """
    parser = _parser()
    with watched_imports() as failures:
        try:
            given = parser.parse_args(list(arguments), defaults=False)
            if source := given.get("data.source.class_path"):  # which gets no arguments of the default source
                parser.set_defaults({"data.source": {"class_path": source}})
            config = parser.parse_args(list(arguments))

        except (Exception, SystemExit) as error:
            if line := import_failure(error, failures):
                raise PriorError(line) from error
            raise
    for name in OTHER_SECTIONS:
        config[name] = None
    check_class_paths(parser, config)
    return parser, config
