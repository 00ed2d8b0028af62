"""What a data module would train on: counts, sizes, annotations, unreadable files, and pictures in two splits."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn
from torch import Tensor
from torch.utils.data import default_collate
from torchvision.transforms.v2 import functional as F
from tqdm import tqdm

from lightning_priors.batch import PriorBatch
from lightning_priors.data.datamodule import SPLITS, PriorDataModule, PriorDataset
from lightning_priors.data.sources.base import RawSample, Source, Split
from lightning_priors.data.transforms import PriorTransform
from lightning_priors.errors import PriorError

THREADS = 4
HASH_SIDE, HASH_CELLS = 32, 8  # of the perceptual hash: the picture's side, and the lowest frequencies each way
FLAT = 1.0  # grey levels; a picture with less contrast has no hash
SIMILAR = 4  # of 63 bits: a copy in half the size or as JPEG; different photographs differ in ten and more
COMPARED_AT_ONCE = 1000
MOST_NAMED = 10  # of each kind of finding; all stand in the JSON
MOST_CLASSES = 40


@dataclass(frozen=True, eq=False)
class Seen:
    """One picture that can be read."""

    split: Split
    index: int
    file: str
    label: int
    group: int | None
    size: tuple[int, int]
    """Width and height in pixels."""
    annotations: frozenset[str]
    """What is annotated: "mask", "boxes", "keypoints", "auxiliary <task>"."""
    digest: str
    """Of its pixels."""
    bits: NDArray[np.bool_] | None
    """(63,), its perceptual hash; None for a picture of one grey level."""


@dataclass(frozen=True)
class Problem:
    """A picture that cannot be read, or whose annotation does not fit."""

    split: Split
    file: str
    text: str


@dataclass(frozen=True)
class Double:
    """A picture that another split has too."""

    file: str
    split: Split
    other_file: str
    other_split: Split
    distance: int
    """0 for the same pixels; otherwise one more than the number of different bits of the hashes."""
    labels_differ: bool


@dataclass(frozen=True)
class Inspection:
    """All findings."""

    classes: Sequence[str]
    groups: Sequence[str]
    seen: Sequence[Seen]
    problems: Sequence[Problem]
    doubles: Sequence[Double]


def inspect(data: PriorDataModule) -> Inspection:
    """Reads every picture of the data once.

    Args:
        data: The data module; its splits and its subset of the training images count.

    Returns:
        The findings.

    Raises:
        PriorError: If an index file is missing or wrong.

    >>> from lightning_priors.data.sources import Kakapo
    >>> data = PriorDataModule(Kakapo(train_size=8, val_size=4, test_size=4, size=32))
    >>> found = inspect(data)
    >>> len(found.seen), found.problems, found.seen[0].size
    (16, [], (32, 32))
    """
    data.setup()
    seen: list[Seen] = []
    problems = [_problem(data.source, index, "train", text) for index, text in data.unreadable.items()]
    datasets = data.datasets
    with tqdm(total=sum(map(len, datasets.values())), desc="reading", leave=False, disable=None) as progress:
        for split in SPLITS:
            for found in _looked_at(datasets[split], split):
                (seen if isinstance(found, Seen) else problems).append(found)  # type: ignore[arg-type]
                progress.update()
    return Inspection(data.classes, data.source.group_names, seen, problems, doubles(seen))


def _looked_at(dataset: PriorDataset, split: Split) -> Iterator[Seen | Problem]:
    """What is seen of each picture of a split."""
    source, hidden = dataset.source, dataset.without_priors

    def look(index: int) -> Seen | Problem:
        try:
            sample = source.load(index)
        except PriorError as error:
            return _problem(source, index, split, str(error))
        height, width = sample["image"].shape[1:]
        annotated = annotations(sample, list(source.aux_classes))
        return Seen(
            split=split,
            index=index,
            file=source.file(index) or f"image {index}",
            label=sample["label"],
            group=sample.get("group"),
            size=(width, height),
            annotations=frozenset(kind for kind in annotated if index not in hidden or kind.startswith("aux")),
            digest=hashlib.blake2b(
                sample["image"].numpy().tobytes(), person=f"{width} x {height}".encode()
            ).hexdigest(),
            bits=perceptual_hash(sample["image"]),
        )

    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(look, dataset.indices)


def _problem(source: Source, index: int, split: Split, text: str) -> Problem:
    return Problem(split, source.file(index) or f"image {index}", text)


def annotations(sample: RawSample, tasks: Sequence[str]) -> list[str]:
    """Lists what is annotated in a picture.

    Args:
        sample: The picture as its source gives it.
        tasks: The names of the auxiliary tasks.

    Returns:
        "mask", "boxes", "keypoints" and "auxiliary <task>", as far as they are there.

    >>> import torch
    >>> annotations({"image": torch.zeros(3, 1, 1), "label": 0, "aux_labels": [2, -1]}, ["species", "sex"])
    ['auxiliary species']
    """
    kinds = []
    if "mask" in sample and sample["mask_valid"]:
        kinds.append("mask")
    if "part_boxes" in sample and sample["part_valid"].any():
        kinds.append("boxes")
    if "keypoints" in sample and sample["keypoint_valid"].any():
        kinds.append("keypoints")
    labels = zip(tasks, sample.get("aux_labels", [-1] * len(tasks)), strict=True)
    return kinds + [f"auxiliary {task}" for task, label in labels if label >= 0]


def perceptual_hash(image: Tensor) -> NDArray[np.bool_] | None:
    """Describes a picture so that a resized, recompressed or slightly changed copy has nearly the same description.

    The lowest frequencies of the grey picture, without the mean, are compared with their median (pHash, Zauner 2010).

    Args:
        image: (3, H, W) uint8.

    Returns:
        (63,) bool; None for a picture without contrast.

    >>> import torch
    >>> picture = torch.randint(256, (3, 40, 40), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    >>> bool((perceptual_hash(picture) != perceptual_hash(picture // 2 + 40)).sum() <= SIMILAR)
    True
    """
    grey = F.resize(F.rgb_to_grayscale(image.as_subclass(Tensor)).float(), [HASH_SIDE, HASH_SIDE], antialias=True)[0]
    if float(grey.std()) < FLAT:
        return None
    lowest = dctn(grey.numpy())[:HASH_CELLS, :HASH_CELLS].ravel()[1:]
    above: NDArray[np.bool_] = lowest > np.median(lowest)
    return above


def doubles(seen: Sequence[Seen]) -> list[Double]:
    """Finds the pictures that an earlier split has too; of each the nearest one.

    Args:
        seen: The pictures of all splits.

    Returns:
        For each picture of validation and test that training, or for test also validation, has: the same pixels
        first, then those whose hashes differ in no more than `SIMILAR` bits.

    >>> doubles([])
    []
    """
    found: dict[tuple[Split, int], Double] = {}
    for earlier, later in (("train", "val"), ("train", "test"), ("val", "test")):
        known = [each for each in seen if each.split == earlier]
        fresh = [each for each in seen if each.split == later]
        by_pixels = {each.digest: each for each in known}
        for each in fresh:
            if other := by_pixels.get(each.digest):
                found.setdefault((each.split, each.index), _double(each, other, 0))
        rest = [each for each in fresh if (each.split, each.index) not in found]
        for each, other, bits in _nearest(rest, known):
            found.setdefault((each.split, each.index), _double(each, other, bits + 1))
    return sorted(found.values(), key=lambda double: double.distance)


def _double(each: Seen, other: Seen, distance: int) -> Double:
    return Double(each.file, each.split, other.file, other.split, distance, each.label != other.label)


def _nearest(fresh: Sequence[Seen], known: Sequence[Seen]) -> Iterator[tuple[Seen, Seen, int]]:
    """Of each fresh picture the known one with the nearest hash, if it is similar."""
    # as signs: the product of two hashes is the number of equal bits less that of different ones
    signs = {each: each.bits * np.float32(2) - 1 for each in (*fresh, *known) if each.bits is not None}
    fresh, known = ([each for each in group if each in signs] for group in (fresh, known))
    if not known:
        return
    table = np.stack([signs[each] for each in known]).T
    for start in range(0, len(fresh), COMPARED_AT_ONCE):
        chunk = fresh[start : start + COMPARED_AT_ONCE]
        product = np.stack([signs[each] for each in chunk]) @ table
        for each, place, equal in zip(chunk, product.argmax(1), product.max(1), strict=True):
            bits = round((len(table) - float(equal)) / 2)
            if bits <= SIMILAR:
                yield each, known[int(place)], bits


def as_json(found: Inspection) -> dict[str, Any]:
    """Writes the findings as plain values.

    >>> as_json(Inspection(["cat", "dog"], [], [], [Problem("test", "a.png", "is broken")], []))["unreadable"]
    [{'split': 'test', 'file': 'a.png', 'text': 'is broken'}]
    """
    rows = _rows(found)
    return {
        "counts": {name: dict(zip(SPLITS, counts, strict=True)) for name, counts in rows},
        "sizes": {split: _sizes(found, split) for split in SPLITS},
        "unreadable": [vars(problem) for problem in found.problems],
        "doubles": [vars(double) for double in found.doubles],
    }


def as_text(found: Inspection) -> str:
    """Writes the findings as a table and a line for each that is worth a look.

    >>> print(as_text(Inspection(["cat", "dog"], [], [], [Problem("test", "a.png", "a.png is broken")], [])))
                 train    val   test
    images           0      0      0
    class cat        0      0      0
    class dog        0      0      0
    unreadable, or with an annotation that does not fit: 1
      test: a.png is broken
    """
    rows = _rows(found)
    hidden = len(found.classes) - MOST_CLASSES
    if hidden > 0:
        rows = [row for row in rows if row[0] not in {f"class {name}" for name in found.classes[MOST_CLASSES:]}]
    width = max(len(name) for name, _ in rows) + 2
    lines = [" " * width + "".join(f"{split:>7}" for split in SPLITS)]
    lines += [f"{name:<{width}}" + "".join(f"{count:>7}" for count in counts) for name, counts in rows]
    if hidden > 0:
        lines.append(f"and {hidden} more classes")
    if found.seen:
        sizes = {side: [each.size[number] for each in found.seen] for number, side in enumerate(("wide", "high"))}
        lines.append("pictures are " + ", ".join(f"{_span(values)} {side}" for side, values in sizes.items()))
    same = [double for double in found.doubles if double.distance == 0]
    similar = [double for double in found.doubles if double.distance > 0]
    lines += _listed("in two splits with the same pixels", [_said(double) for double in same])
    lines += _listed("in two splits and much alike", [_said(double) for double in similar])
    lines += _listed(
        "unreadable, or with an annotation that does not fit", [f"{each.split}: {each.text}" for each in found.problems]
    )
    return "\n".join(lines)


def _rows(found: Inspection) -> list[tuple[str, list[int]]]:
    """The counts of each split by what is counted."""
    counts: dict[Split, Counter[str]] = {split: Counter() for split in SPLITS}
    for each in found.seen:
        names = ["images", f"class {found.classes[each.label]}", *(f"with {kind}" for kind in each.annotations)]
        names += [] if each.group is None else [f"group {found.groups[each.group]}"]
        counts[each.split].update(names)
    kinds = sorted({kind for each in found.seen for kind in each.annotations})
    names = ["images", *(f"class {name}" for name in found.classes), *(f"group {name}" for name in found.groups)]
    return [(name, [counts[split][name] for split in SPLITS]) for name in (*names, *(f"with {kind}" for kind in kinds))]


def _sizes(found: Inspection, split: Split) -> Mapping[str, int]:
    """How many pictures of a split have a size, the most frequent first."""
    sizes = Counter(f"{each.size[0]} x {each.size[1]}" for each in found.seen if each.split == split)
    return dict(sizes.most_common())


def _span(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return str(least) if least == most else f"{least} to {most}"


def _said(double: Double) -> str:
    end = " (their labels differ)" if double.labels_differ else ""
    return f"{double.split} {double.file} = {double.other_split} {double.other_file}{end}"


def _listed(name: str, findings: Sequence[str]) -> list[str]:
    """A line with the number of findings and the first of them."""
    if not findings:
        return []
    more = [f"  and {len(findings) - MOST_NAMED} more"] if len(findings) > MOST_NAMED else []
    return [f"{name}: {len(findings)}", *(f"  {each}" for each in findings[:MOST_NAMED]), *more]


def examples(data: PriorDataModule, found: Inspection, number: int) -> dict[str, PriorBatch]:
    """Chooses training pictures of all classes, those with most annotations first, and transforms them twice.

    Args:
        data: The data module, set up.
        found: Its inspection.
        number: The greatest number of pictures.

    Returns:
        The same pictures "as they are" and "augmented" as they are in the first epoch; nothing if training is empty.

    >>> from lightning_priors.data.sources import Kakapo
    >>> data = PriorDataModule(Kakapo(train_size=8, val_size=4, test_size=4, size=32), image_size=16)
    >>> {name: batch["label"].tolist() for name, batch in examples(data, inspect(data), 3).items()}
    {'as they are': [0, 1, 0], 'augmented': [0, 1, 0]}
    """
    dataset = data.datasets["train"]
    by_class: dict[int, list[int]] = {}
    for each in sorted(found.seen, key=lambda each: -len(each.annotations)):
        if each.split == "train":
            by_class.setdefault(each.label, []).append(each.index)
    turns = [
        (place, label, index) for label, indices in by_class.items() for place, index in enumerate(indices[:number])
    ]
    chosen = [index for _, _, index in sorted(turns)[:number]]
    if not chosen:
        return {}
    source = data.source
    plain = PriorTransform(data.image_size, "none", source.part_names, source.keypoint_names)
    places = {index: place for place, index in enumerate(dataset.indices)}
    rows = {
        "as they are": [
            PriorDataset(source, chosen, plain, dataset.without_priors)[place] for place in range(len(chosen))
        ],
        "augmented": [dataset[places[index], 0] for index in chosen],
    }
    return {name: default_collate(samples) for name, samples in rows.items()}
