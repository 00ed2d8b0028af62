"""Compares a plan's configs on species that are held out of the training images, so that no choice needs the test.

The species of the training images are divided into folds. Each fold is the test set once: all training and validation
images of its species are tested, the other species are trained on and select the checkpoint, and the real test images
take no part. Each config is compared with the first one on the same fold with the same seed. The data is in the layout
of Waterbirds, where few training images have a background that disagrees with the label.

    python experiments/held_out_birds.py experiments/spatial.yaml --root ../shared/data/stampbirds

Options after ``--`` go to all runs and win over the plan's. An interrupted run continues where it stopped, as
`lightning-priors compare` does.
"""

import argparse
import csv
import os
import random
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from lightning_priors.compare.plan import Plan, read_plan, seed_list
from lightning_priors.compare.report import markdown, summarise, text
from lightning_priors.compare.resolve import resolve
from lightning_priors.compare.rows import Row
from lightning_priors.compare.run import compare
from lightning_priors.data.sources.reading import read_table
from lightning_priors.data.sources.waterbirds import COLUMNS, SPLIT_CODES
from lightning_priors.errors import PriorError, nearest

METADATA = "metadata.csv"
CODES = {split: code for code, split in SPLIT_CODES.items()}


def species_of(cells: Mapping[str, str]) -> str:
    """Names the folder that an image lies in, which is its species."""
    return Path(cells["img_filename"]).parent.name


def deal(labels: Mapping[str, str], folds: int, seed: int) -> list[set[str]]:
    """Divides species into folds that have about as many species of each label.

    Args:
        labels: The label of each species.
        folds: Number of folds.
        seed: Seed of the division.

    Returns:
        The species of each fold.

    Raises:
        PriorError: If a fold would have no species of some label, or leave none to train with.

    >>> folds = deal({"owl": "0", "hen": "0", "duck": "1", "tern": "1"}, folds=2, seed=0)
    >>> [len(fold) for fold in folds], folds[0].isdisjoint(folds[1])
    ([2, 2], True)
    """
    rarest = min(Counter(labels.values()).values())
    if not 2 <= folds <= rarest:
        raise PriorError(f"{folds} folds cannot be dealt; at least 2, at most {rarest}: one label has no more species")
    dealt: list[set[str]] = [set() for _ in range(folds)]
    for number, label in enumerate(sorted(set(labels.values()))):
        names = sorted(name for name in labels if labels[name] == label)
        random.Random(f"{seed} {label}").shuffle(names)
        for place, name in enumerate(names):
            dealt[(place + number) % folds].add(name)
    return dealt


def write_fold(root: Path, held: Collection[str], folder: Path) -> None:
    """Makes a folder of the data with some species held out: with its own metadata.csv, and links to everything else.

    Args:
        root: The folder with metadata.csv.
        held: The species that are tested.
        folder: The folder to make.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for entry in root.iterdir():
        if entry.name != METADATA and not (folder / entry.name).is_symlink():
            (folder / entry.name).symlink_to(os.path.relpath(entry, folder))
    rows = [cells for _, cells in read_table(root / METADATA, COLUMNS) if SPLIT_CODES[cells["split"]] != "test"]
    with (folder / METADATA).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for cells in rows:
            writer.writerow(cells | ({"split": CODES["test"]} if species_of(cells) in held else {}))


def run_folds(plan: Plan, root: Path, folds: int, fold_seed: int) -> tuple[list[Row], dict[str, str]]:
    """Runs all folds; gives the rows, numbered by pairs of fold and seed, and the error of each run that failed."""
    training = [cells for _, cells in read_table(root / METADATA, COLUMNS) if SPLIT_CODES[cells["split"]] == "train"]
    rows, failures = [], {}
    for number, held in enumerate(deal({species_of(cells): cells["y"] for cells in training}, folds, fold_seed)):
        output = Path(plan.output) / f"fold_{number}_of_{folds}-{fold_seed}"
        write_fold(root, held, output / "data")
        print(f"fold {number + 1} of {folds}, held out: {', '.join(sorted(held))}")
        where = f"--data.source.init_args.root={output / 'data'}"
        done, failed = compare(resolve(replace(plan, options=(*plan.options, where))), output)
        rows += [replace(row, seed=number * len(plan.seeds) + plan.seeds.index(row.seed)) for row in done]
        failures |= {f"fold {number + 1}, {run}": line for run, line in failed.items()}
    return rows, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", metavar="PLAN")
    parser.add_argument("--root", type=Path, required=True, help="the folder with metadata.csv")
    parser.add_argument("--runs", nargs="+", metavar="RUN", help="some of the plan's, the reference first")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--fold-seed", type=int, default=0, help="of the order in which species are dealt")
    parser.add_argument("--seeds", metavar="0,1,2", help="other seeds than the plan's")
    parser.add_argument("--output", default="runs/held_out_birds")
    options, further = parser.parse_known_args()
    try:
        plan = read_plan(options.plan)
        chosen = options.runs or list(plan.runs)
        if unknown := [name for name in chosen if name not in plan.runs]:
            raise PriorError(f"{options.plan} has no run {unknown[0]!r}; {nearest(unknown[0], plan.runs)}")
        plan = replace(
            plan,
            runs={name: plan.runs[name] for name in chosen},
            options=(*plan.options, *(option for option in further if option != "--")),
            seeds=plan.seeds if options.seeds is None else seed_list(options.seeds),
            output=options.output,
        )
        rows, failures = run_folds(plan, options.root, options.folds, options.fold_seed)
    except PriorError as error:
        parser.exit(2, f"error: {error}\n")
    if rows:
        entries = summarise(rows, list(plan.runs))
        page = markdown(f"Held-out birds, {options.folds} folds", entries, plan.columns)
        (Path(plan.output) / "held_out_birds.md").write_text(page, encoding="utf-8")
        print(f"\n{text(entries, plan.columns)}\n")
    for run, line in failures.items():
        print(f"failed: {run}: {line}")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
