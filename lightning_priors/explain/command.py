"""The command ``lightning-priors explain``: measures a classifier on a split and writes page and numbers."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jsonargparse import Namespace

from lightning_priors.cli.data_options import parse_data
from lightning_priors.cli.main import Parser
from lightning_priors.cli.mistakes import mistake_behind
from lightning_priors.cli.quiet import less_noise
from lightning_priors.cli.user_modules import import_own, working_folder_importable
from lightning_priors.data import PriorDataModule
from lightning_priors.data.datamodule import PriorDataset
from lightning_priors.errors import PriorError
from lightning_priors.explain.against import compared, disagreements, most_wrong
from lightning_priors.explain.measure import Answers, BackgroundAnswers, images_of, measure, measure_backgrounds
from lightning_priors.explain.page import page
from lightning_priors.explain.pictures import Shown, shown
from lightning_priors.explain.report import Report, report
from lightning_priors.explain.verdict import verdict
from lightning_priors.parser import add_own
from lightning_priors.trained import TrainedClassifier, load
from lightning_priors.trained.from_timm import load_timm
from lightning_priors.trained.loading import best_device, run_folder_of
from lightning_priors.whole_files import write_text

DESCRIPTION = """\
Writes one page that says where a classifier looks and whom it fails, and beside it the same numbers as JSON. Without
-c and --data.* options, RUN/config.yaml says which data it is."""

MISTAKES, DISAGREEMENTS = 12, 6
"""Pictures on the page."""

SPLIT_NAMES = {"val": "validation", "test": "test"}


class Candidate(NamedTuple):
    """A classifier and the images in its size."""

    name: str
    checkpoint: str
    classifier: TrainedClassifier
    images: PriorDataset


class Measured(NamedTuple):
    """What a classifier said."""

    answers: Answers
    backgrounds: BackgroundAnswers | None


def main(arguments: Sequence[str]) -> int:
    """Runs the command.

    Args:
        arguments: Its options.

    Returns:
        The exit code 0.

    Raises:
        PriorError: For a mistake in the options, the run or the data.
        SystemExit: After ``--help``.

    >>> main(["no/such/run"])
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: there is no run or checkpoint no/such/run
    """
    with working_folder_importable(), less_noise():
        try:
            _run(list(arguments))
        except Exception as error:
            if mistake := mistake_behind(error):
                raise mistake from error
            raise
    return 0


def _add_options(parser: Parser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", nargs="?", metavar="RUN", help="a run folder or checkpoint; left out with --timm")
    parser.add_argument("--split", type=Literal["test", "val"], default="test", help="the images to look at")
    parser.add_argument("--against", metavar="RUN2", help="a second run or checkpoint, on the same images")
    parser.add_argument("--timm", metavar="NAME", help="instead of RUN a timm model, such as resnet18")
    parser.add_argument("--weights", metavar="FILE", help="the weights of the timm model, with its head")
    add_own(parser)
    parser.add_argument("--out", metavar="DIR", help="the folder of page and JSON; by default RUN/explain")
    parser.add_argument("--device", metavar="NAME", help="such as cpu or cuda:1; by default a GPU where there is one")


def _run(arguments: list[str]) -> None:
    run = arguments[0] if arguments and not arguments[0].startswith("-") else None
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)  # a wrong run is said before its data is read
    add_own(early)
    import_own(early.parse_known_args(arguments)[0].own)
    first = None if run is None else load(run, device="cpu")  # a wrong run is said before its data is looked for
    given = [*_config_of(run, arguments), *arguments]
    data, options = parse_data(given, _add_options, "lightning-priors explain", DESCRIPTION)
    _check_options(options)
    device = options.device or best_device()
    if first is None:
        first = load_timm(options.timm, options.weights, data.classes, data.image_size)
    second = None if options.against is None else load(options.against, device="cpu")
    data.prepare_data()
    data.setup("test" if options.split == "test" else "validate")
    places = [options.run or f"{options.timm} with {options.weights}", options.against]
    loaded = [(str(place), each) for place, each in zip(places, (first, second), strict=True) if each is not None]
    names = _names(
        [options.timm or type(first.technique).__name__, *(type(each.technique).__name__ for _, each in loaded[1:])]
    )
    candidates = [
        Candidate(name, place, each.to(device), images_of(each, place, data, options.split))
        for name, (place, each) in zip(names, loaded, strict=True)
    ]
    numbers, pictures = explained(candidates, data, options.split)
    folder = Path(options.out) if options.out else (run_folder_of(options.run) if options.run else Path()) / "explain"
    _write(folder, f"{options.split}{'_against' if second is not None else ''}", numbers, pictures)


def explained(
    candidates: Sequence[Candidate], data: PriorDataModule, split: str
) -> tuple[Report, dict[str, list[Shown]]]:
    """Measures one or two classifiers.

    Args:
        candidates: The classifiers, each with the same images.
        data: What the images belong to.
        split: "val" or "test".

    Returns:
        All numbers, and the pictures of the images that they speak of.
    """
    measured = [_measured(each, data) for each in candidates]
    classes, groups = data.classes, data.source.group_names
    reports = [
        {"name": each.name, "checkpoint": each.checkpoint, **report(*said, classes, groups)}
        for each, said in zip(candidates, measured, strict=True)
    ]
    places = {"mistakes": most_wrong(measured[0].answers, MISTAKES), "only_first": [], "only_second": []}
    difference = None
    if len(measured) > 1:
        (one, one_changed), (two, two_changed) = measured
        difference = compared(one, two, (one_changed, two_changed), groups)
        places["only_first"], places["only_second"] = disagreements(one, two, DISAGREEMENTS)
    drawn = [(each.classifier, each.images) for each in candidates]
    pictures = {kind: [shown(place, drawn) for place in chosen] for kind, chosen in places.items()}
    listed = {kind: [_image(each, candidates, measured, data) for each in chosen] for kind, chosen in pictures.items()}
    two_classes = len(classes) == 2
    numbers = {
        "split": split,
        "split_name": SPLIT_NAMES[split],
        "data": type(data.source).__name__,
        "classes": classes,
        "images": len(measured[0].answers.label),
        "warm": classes[1] if two_classes else "the answer",
        "cold": f"for {classes[0]}" if two_classes else "against it",
        "verdict": [verdict(each) for each in reports],
        "run": reports[0],
        "against": reports[1] if len(reports) > 1 else None,
        "difference": difference,
        **listed,
    }
    return numbers, pictures


def _config_of(run: str | None, arguments: Sequence[str]) -> list[str]:
    """The option that names the run's own configuration, where the user names no data."""
    flags = [argument.partition("=")[0] for argument in arguments]
    asks_for_help = bool({"-h", "--help"} & set(flags))
    if {"-c", "--config", "--data.source"} & set(flags) or asks_for_help:
        return []
    config = None if run is None else run_folder_of(run) / "config.yaml"
    if config is None or not config.is_file():
        missing = "without RUN nothing says" if config is None else f"there is no {config} that says"
        raise PriorError(f"{missing} which data to look at; give it by -c CONFIG or --data.source CLASS")
    return ["-c", str(config)]


def _check_options(options: Namespace) -> None:
    if (options.run is None) == (options.timm is None):
        raise PriorError("explain needs RUN, as its first argument, or --timm NAME --weights FILE; one of the two")
    if (options.timm is None) != (options.weights is None):
        raise PriorError("--timm NAME and --weights FILE belong together")


def _measured(candidate: Candidate, data: PriorDataModule) -> Measured:
    asked = candidate.classifier, candidate.images
    answers = measure(*asked, data.batch_size, data.num_workers)
    return Measured(answers, measure_backgrounds(*asked, answers.masked, data.batch_size, data.num_workers))


def _image(
    each: Shown, candidates: Sequence[Candidate], measured: Sequence[Measured], data: PriorDataModule
) -> dict[str, Any]:
    """What the JSON says of an image on the page."""
    place, classes, groups = each.place, data.classes, data.source.group_names
    first = measured[0].answers
    index = candidates[0].images.indices[place]
    group = None if first.group is None else int(first.group[place])
    said = [one.answers for one in measured]
    return {
        "index": index,
        "file": data.source.file(index),
        "label": classes[int(first.label[place])],
        "group": groups[group] if group is not None and group < len(groups) else None,
        "answers": [
            {
                "label": classes[int(answers.predicted[place])],
                "right": bool(answers.right[place]),
                "probability": float(answers.confidence[place]),
                "inside": inside,
            }
            for answers, inside in zip(said, each.inside, strict=True)
        ],
    }


def _names(names: Sequence[str]) -> list[str]:
    """Names that tell two classifiers apart."""
    return (
        list(names) if len(set(names)) == len(names) else [f"{name} {number}" for number, name in enumerate(names, 1)]
    )


def _write(folder: Path, name: str, numbers: Report, pictures: dict[str, list[Shown]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for line in numbers["verdict"]:
        print(line)
    html, numbers_file = folder / f"{name}.html", folder / f"{name}.json"
    write_text(numbers_file, json.dumps(numbers, indent=1, ensure_ascii=False))
    write_text(html, page(numbers, pictures))
    print(html)
    print(numbers_file)
