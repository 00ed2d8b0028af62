"""The command ``lightning-priors predict RUN PICTURES...``: classifies pictures of which nobody has told the class."""

import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Literal

import torch
from jsonargparse import Namespace
from tqdm import tqdm

from lightning_priors.callbacks.drawing import Evidence, draw_prediction
from lightning_priors.cli.main import Parser
from lightning_priors.cli.quiet import less_noise
from lightning_priors.cli.user_modules import import_own, working_folder_importable
from lightning_priors.data.sources.base import UnreadableImageError
from lightning_priors.errors import PriorError
from lightning_priors.parser import add_own
from lightning_priors.trained import Prediction, TrainedClassifier, load
from lightning_priors.trained.finding import Found, find_pictures, names_below
from lightning_priors.trained.loading import run_folder_of
from lightning_priors.trained.output import OUTPUT, carried_names, open_output
from lightning_priors.trained.pictures import pixels
from lightning_priors.whole_files import write_figure

DESCRIPTION = """\
Classifies pictures and writes for each its path, label, the label's probability and those of all classes.

RUN comes first: where the first argument begins with a dash, predict is Lightning's command, which takes the options
of fit and writes the class probabilities of the test images of a data set:
  lightning-priors predict -c RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt"""


def main(arguments: Sequence[str]) -> int:
    """Runs the command.

    Args:
        arguments: Its options.

    Returns:
        The exit code 0.

    Raises:
        PriorError: For a mistake in the options, the run or the pictures.
        SystemExit: After ``--help``.

    >>> main(["no/such/run", "bird.jpg"])
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: there is no run or checkpoint no/such/run
    """
    with less_noise():
        options = _parser().parse_args(list(arguments))
        if not options.pictures:
            raise PriorError("predict RUN needs PICTURES: a file, a folder, a pattern, a .txt list, a .csv table or -")
        with working_folder_importable():
            import_own(options.own)
            classifier = load(options.run, device=_device(options.device))
        found = find_pictures(options.pictures)
        _run(classifier, found, options, run_folder_of(options.run))
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="lightning-priors predict",
        description=DESCRIPTION,
        allow_abbrev=False,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder, a checkpoint, or what lightning_priors.load takes")
    parser.add_argument(
        "pictures", nargs="*", metavar="PICTURES",
        help="files, folders, patterns, lists of paths (.txt), tables with a column path, file or file_name (.csv), "
        "- for paths on the standard input",
    )  # fmt: skip
    add_own(parser)
    parser.add_argument(
        "--out", metavar="FILE", help="a .csv or .jsonl, or - for the terminal; by default RUN/predict/predictions.csv"
    )
    parser.add_argument("--overwrite", action="store_true", help="write over the FILE of --out if it is there")
    parser.add_argument(
        "--panels", nargs="?", const="", metavar="DIR",
        help="also draw each picture with the evidence beside it; by default in RUN/predict/panels",
    )  # fmt: skip
    parser.add_argument(
        "--unreadable",
        type=Literal["error", "skip"],
        default="error",
        help="what an unreadable file does",
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="pictures in one pass of the network")
    parser.add_argument("--device", metavar="NAME", help="such as cpu or cuda:1; by default a GPU where there is one")
    return parser


def _run(classifier: TrainedClassifier, found: list[Found], options: Namespace, folder: Path) -> None:
    if options.batch_size < 1:
        raise PriorError(f"--batch-size is at least 1, not {options.batch_size}")
    where = output_file(options.out, folder / "predict" / "predictions.csv", options.overwrite)
    panels = None if options.panels is None else Path(options.panels or folder / "predict" / "panels")
    columns = list(dict.fromkeys(chain.from_iterable(picture.columns for picture in found)))
    _say_renamed(carried_names(columns, classifier.class_names))
    names = [name.with_name(f"{name.name}.png") for name in names_below(found)] if panels else []
    written = 0
    with open_output(where, classifier.class_names, columns) as write:
        for place, said in _answers(classifier, found, options):
            write(said, found[place].columns)
            if panels:
                _draw(said, panels / names[place], classifier.class_names)
            written += 1
    print(f"{written} of {len(found)} pictures: {where}", file=sys.stderr)
    if panels:
        print(f"panels: {panels}", file=sys.stderr)


def output_file(given: str | None, default: Path, overwrite: bool) -> str:
    """Chooses the file to write, so that none is lost.

    Args:
        given: What the user wants, if anything.
        default: What serves otherwise, with a number after its name where it is there already.
        overwrite: Whether the file that the user gives may be there.

    Raises:
        PriorError: If that file is there and may not be.

    >>> output_file(None, Path("runs/predictions.csv"), overwrite=False)
    'runs/predictions.csv'
    """
    if given is None:
        free = (default.with_stem(f"{default.stem}_{number}") for number in count(2))
        return str(default if not default.exists() else next(path for path in free if not path.exists()))
    if given != OUTPUT and Path(given).is_file() and not overwrite:
        raise PriorError(f"--out {given} is there already; give another name, or --overwrite")
    return given


def _answers(classifier: TrainedClassifier, found: list[Found], options: Namespace) -> Iterator[tuple[int, Prediction]]:
    """What is said of each picture that can be read, with its place among those that were found."""
    places = enumerate(found)
    with tqdm(total=len(found), unit=" pictures", disable=None, file=sys.stderr) as bar:  # none where it is no terminal

        def skip(error: UnreadableImageError) -> None:
            bar.update()
            bar.write(f"skipped: {error}", file=sys.stderr)

        on_unreadable = skip if options.unreadable == "skip" else None
        for said in classifier.stream((each.path for each in found), options.batch_size, on_unreadable=on_unreadable):
            # the answers have the order of the pictures, without those that cannot be read
            yield next(place for place, each in places if str(each.path) == said.name), said
            bar.update()


def _draw(said: Prediction, file: Path, class_names: Sequence[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = pixels(said.name).permute(1, 2, 0).numpy()
    write_figure(file, draw_prediction(picture, Evidence(said.logits[None], said.cam[None], {}), class_names))


def _say_renamed(names: dict[str, str]) -> None:
    changed = [f"{column} is {name}" for column, name in names.items() if name != column]
    if changed:
        print(f"columns of the table that the output has too: {', '.join(changed)}", file=sys.stderr)


def _device(name: str | None) -> torch.device | None:
    try:
        return None if name is None else torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise PriorError(f"--device {name}: {str(error).splitlines()[0]}") from error
