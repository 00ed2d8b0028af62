"""The data module of every source: its splits, training subsets and loaders."""

import math
import os
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any, Literal, get_args

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset

from lightning_priors.batch import PriorSample
from lightning_priors.data.overview import annotation_line, annotations
from lightning_priors.data.samplers import EpochSampler, NoSingletonBatchSampler, ShareSampler, TrainDataLoader
from lightning_priors.data.sources.base import Source, Split, UnreadableImageError
from lightning_priors.data.splits import (
    drawn_subset,
    evenly_weighted,
    fraction_of_each,
    number_of_each,
    stratified_holdout,
)
from lightning_priors.data.transforms import Augmentation, PriorTransform
from lightning_priors.errors import PriorError, nearest
from lightning_priors.names import check_names

PriorKey = Literal["mask", "mask_valid", "part_boxes", "part_valid", "keypoints", "keypoint_valid"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Balance = Literal["none", "classes", "groups"]
PRIOR_KEYS: tuple[PriorKey, ...] = get_args(PriorKey)
STAGE_SPLITS: dict[str | None, tuple[Split, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("test",),
    None: SPLITS,
}


class Indices(array):  # type: ignore[type-arg]  # of int
    """Numbers that are no objects, which every worker process would copy as soon as it reads them; else like a list.

    Example:
        >>> Indices("q", [3, 1]) == [3, 1], Indices("q", [3, 1]) == [1, 3]
        (True, False)
    """

    __hash__ = None

    def __eq__(self, other: object) -> bool:
        """Compares with a list as a list does, which an array does not."""
        return self.tolist() == (other.tolist() if isinstance(other, array) else other)


class PriorDataset(Dataset[PriorSample]):
    """Loads and transforms some images of a source.

    The augmentation of an image depends on seed, epoch and index alone: not on the number of worker processes, on the
    random numbers that the network draws, or on whether the run was interrupted.

    Args:
        source: The source of the images.
        indices: The indices of the images in the source.
        transform: The transform of each image.
        without_priors: Indices of the images whose mask, boxes and keypoints are hidden.
        seed: Seed of the augmentation.

    Example:
        >>> from lightning_priors.data.sources import Kakapo
        >>> dataset = PriorDataset(Kakapo(), Kakapo().indices("test")[:2], PriorTransform(32, "crop"))
        >>> torch.equal(dataset[0, 5]["image"], dataset[0, 5]["image"])
        True
    """

    def __init__(
        self,
        source: Source,
        indices: Sequence[int],
        transform: PriorTransform,
        without_priors: frozenset[int] = frozenset(),
        seed: int = 0,
    ) -> None:
        self.source = source
        self.indices = Indices("q", indices)
        self.transform = transform
        self.without_priors = without_priors
        self.seed = seed

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.indices)

    def __getitem__(self, item: int | tuple[int, int]) -> PriorSample:
        """Loads and transforms one image.

        Args:
            item: The position of the image in `indices`, or its position and the epoch; without an epoch, epoch 0.
        """
        position, epoch = item if isinstance(item, tuple) else (item, 0)
        index = self.indices[position]
        raw = self.source.load(index)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_mixed(self.seed, epoch, index))
            sample = self.transform(raw, index)
        return hide_priors(sample) if index in self.without_priors else sample


LIMITS: Mapping[str, tuple[int, float]] = {
    "batch_size": (1, 1_000_000),
    "image_size": (4, 16_384),
    "images_per_class": (1, math.inf),
    "seed": (0, 2**63 - 1),
    "num_workers": (0, 256),  # many more would take the memory of the machine, and its other programs with it
}
"""The least and the greatest value of numeric options."""


class PriorDataModule(L.LightningDataModule):
    """Serves the images of a source in batches (`lightning_priors.batch.PriorBatch`) for each split.

    First validation images are set aside, where the source has no validation split; then the training subset is drawn
    from the rest, class by class. A larger subset has all images of a smaller one. Every draw depends on `seed` alone.

    Args:
        source: The source of the images.
        batch_size: Number of images per batch and rank.
        image_size: Side S of the square images in pixels.
        augmentation: Augmentation of the training images, see `lightning_priors.data.transforms.PriorTransform`.
            Validation and test images are only resized.
        val_fraction: Fraction of each class of the training split that is set aside for validation; ignored where the
            source has a validation split.
        train_fraction: Fraction of each class of the training split that is used, at least one image.
        images_per_class: Number of training images of each class, instead of a fraction; all of them when None.
        annotated_fraction: Fraction of the used training images that keep their mask, boxes and keypoints.
        balance: "classes" or "groups" draws the training images of an epoch with replacement, so that each class or
            group comes up equally often; "none" shows each image once.
        held_out_fraction: Fraction of each class that neither trains the network nor selects it, but serves what is
            fitted to the trained network, see `held_out_dataloader`.
        held_out_of: The split that this fraction is taken from, "train" or "val".
        on_bad_image: "error" stops at a file that cannot be read; "skip" reads every file once in `setup`, leaves out
            those that cannot be read and names them.
        seed: Seed of the splits, the subsets, the order and the augmentation.
        num_workers: Number of processes that load images; with 0 the main process loads them.

    Raises:
        PriorError: If an option is out of its range; in `setup`, if the source finds a mistake in its files; from a
            loader, if its split is empty.

    Example:
        >>> from lightning_priors.data.sources import Kakapo
        >>> data = PriorDataModule(Kakapo(), batch_size=4, image_size=32, images_per_class=8)
        >>> data.setup("fit")
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["image"].shape, batch["mask"].shape, data.num_classes
        (torch.Size([4, 3, 32, 32]), torch.Size([4, 32, 32]), 2)
    """

    def __init__(
        self,
        source: Source,
        batch_size: int = 32,
        image_size: int = 128,
        augmentation: Augmentation = "crop",
        val_fraction: float = 0.1,
        train_fraction: float = 1.0,
        images_per_class: int | None = None,
        annotated_fraction: float = 1.0,
        balance: Balance = "none",
        held_out_fraction: float = 0.0,
        held_out_of: Literal["train", "val"] = "train",
        on_bad_image: Literal["error", "skip"] = "error",
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.source = source
        self.batch_size = batch_size
        self.image_size = image_size
        self.augmentation = augmentation
        self.val_fraction = val_fraction
        self.train_fraction = train_fraction
        self.images_per_class = images_per_class
        self.annotated_fraction = annotated_fraction
        self.balance = balance
        self.held_out_fraction = held_out_fraction
        self.held_out_of = held_out_of
        self.on_bad_image = on_bad_image
        self.seed = seed
        self.num_workers = num_workers
        self.unreadable: dict[int, str] = {}
        """The index of each image that was skipped, and the reason."""
        self._checked: set[int] = set()
        self._held_out: list[int] = []
        self._datasets: dict[Split, PriorDataset] = {}
        self._check_options()

    @property
    def classes(self) -> list[str]:
        """The names of the primary classes."""
        return self.source.classes

    @property
    def num_classes(self) -> int:
        """The number of primary classes; known before `setup`."""
        return len(self.source.classes)

    @property
    def aux_num_classes(self) -> list[int]:
        """The number of classes of each auxiliary task, in the order of the columns of ``aux_labels``."""
        return [len(names) for names in self.source.aux_classes.values()]

    @property
    def datasets(self) -> Mapping[Split, PriorDataset]:
        """The images of each split that `setup` has built."""
        return self._datasets

    def prepare_data(self) -> None:
        """Lets the source download what it needs, once per machine."""
        self.source.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Reads the source's index files and builds the data sets of a stage.

        Args:
            stage: "fit", "validate", "test", "predict" or None for all.

        Raises:
            PriorError: If something is wrong with the files or labels, or two splits share an image.
        """
        self.source.setup()
        self._check_source()
        for split in STAGE_SPLITS[stage]:
            if split not in self._datasets:
                self._datasets[split] = self._build(split)

    def annotation_keys(self) -> set[str]:
        """Returns the keys of a training batch that the data module can tell, after `setup`: those of its first image.

        Raises:
            PriorError: If there is no training image, or the first one cannot be read.
        """
        return {"index", *self.source.load(self._dataset("train").indices[0])}

    def training_batches(self, world_size: int) -> int:
        """Counts the batches of a training epoch on each rank, after `setup`.

        Args:
            world_size: Number of ranks.
        """
        return math.ceil(math.ceil(len(self._dataset("train")) / world_size) / self.batch_size)

    def overview(self, stage: str) -> list[str]:
        """Says in a few lines what a stage uses, after `setup`.

        Args:
            stage: "fit", "validate", "test" or "predict".

        Raises:
            PriorError: If a split has no image, or an image cannot be read.
        """
        counts = ", ".join(f"{len(self._dataset(split))} {split}" for split in STAGE_SPLITS[stage])
        skipped = f", {len(self.unreadable)} unreadable" if self.unreadable else ""
        source, classes = type(self.source).__name__, nearest("", self.classes).removeprefix("choose from ")
        lines = [f"data: {source}, images: {counts}{skipped}; {self.num_classes} classes: {classes}"]
        if stage == "fit":
            trained = self._dataset("train")
            kept = len(trained) - len(trained.without_priors)
            lines.append(annotation_line(annotations(self.source, trained.indices), kept, len(trained)))
        return lines

    def train_dataloader(self) -> DataLoader[PriorSample]:
        """Returns a loader of all training images, which shuffles them anew in each epoch.

        The last batch has the images that are left; a single one joins the batch before it.
        """
        dataset = self._dataset("train")
        trainer = self.trainer
        order = EpochSampler(
            dataset,
            seed=self.seed,
            world_size=trainer.world_size if trainer else 1,
            rank=trainer.global_rank if trainer else 0,
            weights=None if self.balance == "none" else evenly_weighted(self._kinds(self.balance)),
        )
        # in a resumed run Lightning starts the worker processes before it sets the epoch
        order.set_epoch(trainer.current_epoch if trainer else 0)
        # torch's annotation allows positions only; these are pairs of position and epoch
        batches = NoSingletonBatchSampler(order, self.batch_size, drop_last=False)  # type: ignore[arg-type]
        return TrainDataLoader(dataset, batch_sampler=batches, **self._loader_options())

    def val_dataloader(self) -> DataLoader[PriorSample]:
        """Returns a loader of the validation images in the source's order."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[PriorSample]:
        """Returns a loader of the test images in the source's order."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[PriorSample]:
        """Returns a loader of the test images, which are the ones to be predicted."""
        return self._evaluation_loader("test")

    def held_out_dataloader(self) -> DataLoader[PriorSample]:
        """Returns a loader of the images that are held out, as validation images are shown, the same for all ranks.

        Raises:
            PriorError: If no images are held out.
        """
        self._dataset("train")
        if not self._held_out:
            raise PriorError("no images are held out; set held_out_fraction, for example to 0.2")
        transform = PriorTransform(self.image_size, "none", self.source.part_names, self.source.keypoint_names)
        dataset = PriorDataset(self.source, self._held_out, transform, seed=self.seed)
        return DataLoader(dataset, batch_size=self.batch_size, **self._loader_options())

    def group_counts(self) -> list[int]:
        """Counts the training images of each group, or of each class where there are no groups."""
        has_groups = "group" in self.source.known(self._dataset("train").indices[0])
        counts = Counter(self._kinds("groups" if has_groups else "classes"))
        return [counts[kind] for kind in range(max(counts) + 1)]

    def _kinds(self, what: Balance) -> list[int]:
        """Returns the class or the group of each training image."""
        indices = self._dataset("train").indices
        if what == "classes":
            return self._labels(indices)
        groups = [self.source.known(index).get("group") for index in indices]
        if None in groups:
            raise PriorError(f"balance: {type(self.source).__name__} knows no groups here; use classes")
        return groups  # type: ignore[return-value]  # mypy keeps None

    def _check_options(self) -> None:
        for name in ("val_fraction", "train_fraction", "annotated_fraction", "held_out_fraction"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise PriorError(f"{name} is a share between 0 and 1, not {value}")
        if self.train_fraction == 0:
            raise PriorError("train_fraction is above 0")
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise PriorError(f"{name} is at least {least}, not {value}")
            if value is not None and value > most:
                raise PriorError(f"{name} is at most {most:,}, not {value:,}")
        if self.images_per_class is not None and self.train_fraction != 1:
            raise PriorError("give train_fraction or images_per_class, not both")
        choices = {"on_bad_image": ("error", "skip"), "balance": get_args(Balance), "held_out_of": ("train", "val")}
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise PriorError(f"no {name} {value!r}, {nearest(value, known)}")

    def _check_source(self) -> None:
        """Checks that the names can be shown, that no image is in two splits and that each label has a class."""
        source = self.source
        check_names(source.classes, "class")
        check_names(source.group_names, "group")
        check_names([*source.part_names, *source.keypoint_names], "part")
        check_names(chain(source.aux_classes, *source.aux_classes.values()), "class of an auxiliary task")
        num_classes, indices = self.num_classes, [source.indices(split) for split in SPLITS]
        labels = np.concatenate([source.labels(part) for part in indices])
        in_range = ((labels >= 0) & (labels < num_classes)).all()
        if in_range and len(np.unique(np.concatenate([np.array(part, np.int64) for part in indices]))) == len(labels):
            return
        owner: dict[int, Split] = {}  # only to find the image that is wrong: it takes much memory
        for split, part in zip(SPLITS, indices, strict=True):
            for index in part:
                name = f"image {index} of {type(source).__name__}"
                if index in owner:
                    raise PriorError(f"{name} is both in the {owner[index]} and in the {split} split")
                owner[index] = split
                label = source.label(index)
                if not 0 <= label < num_classes:
                    raise PriorError(f"{name} has the label {label}, which is out of range: {num_classes} classes")

    def _build(self, split: Split) -> PriorDataset:
        indices = self._indices(split)
        if split == self.held_out_of and self.held_out_fraction > 0:
            of = len(indices)
            indices, self._held_out = stratified_holdout(self._by_index(indices), self.held_out_fraction, self.seed)
            if self._held_out:
                rank_zero_info(f"{len(self._held_out)} of {of} {split} images are held out (held_out_fraction)")
        source, training = self.source, split == "train"
        return PriorDataset(
            source,
            indices,
            PriorTransform(
                self.image_size, self.augmentation if training else "none", source.part_names, source.keypoint_names
            ),
            without_priors=self._unannotated(indices) if training else frozenset(),
            seed=self.seed,
        )

    def _indices(self, split: Split) -> list[int]:
        """Returns the images that are used for a split."""
        if split == "test" or (split == "val" and self.source.indices("val")):
            return self._readable(self.source.indices(split))
        indices = self._readable(self.source.indices("train"))
        held_out: list[int] = []
        if not self.source.indices("val"):
            indices, held_out = stratified_holdout(self._by_index(indices), self.val_fraction, self.seed)
            if split == "val":
                return held_out
        chosen = indices
        if self.images_per_class is not None:
            chosen = number_of_each(self._by_index(indices), self.images_per_class, self.seed, self.classes)
        elif self.train_fraction < 1:
            chosen = fraction_of_each(self._by_index(indices), self.train_fraction, self.seed)
        self._say_what_is_not_trained_on(len(chosen), len(held_out), len(indices) - len(chosen))
        return chosen

    def _labels(self, indices: Sequence[int]) -> list[int]:
        labels: list[int] = self.source.labels(indices).tolist()
        return labels

    def _by_index(self, indices: Sequence[int]) -> dict[int, int]:
        """Returns the label of each index, as the draws of `lightning_priors.data.splits` take them."""
        return dict(zip(indices, self._labels(indices), strict=True))

    def _say_what_is_not_trained_on(self, used: int, held_out: int, left_out: int) -> None:
        reasons = []
        if held_out:
            reasons.append(f"{held_out} are set aside for validation (val_fraction {self.val_fraction:g})")
        if left_out:
            number, share = self.images_per_class, self.train_fraction
            option = f"train_fraction {share:g}" if number is None else f"images_per_class {number}"
            reasons.append(f"{left_out} are left out ({option})")
        if reasons:
            rank_zero_info(f"training on {used} of {used + held_out + left_out} images: {', '.join(reasons)}")

    def _unannotated(self, indices: list[int]) -> frozenset[int]:
        if self.annotated_fraction == 1:
            return frozenset()
        kept = drawn_subset(indices, self.source.indices("train"), self.annotated_fraction, self.seed)
        return frozenset(indices) - frozenset(kept)

    def _readable(self, indices: list[int]) -> list[int]:
        """Leaves out images that cannot be read, if `on_bad_image` is "skip"; reads each file once."""
        if self.on_bad_image == "error":
            return indices
        unseen = [index for index in indices if index not in self._checked]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            problems = zip(unseen, pool.map(self._problem, unseen), strict=True)
            found = {index: problem for index, problem in problems if problem is not None}
        if found:
            rank_zero_info(f"skipped {len(found)} of {len(unseen)} images:\n  " + "\n  ".join(found.values()))
        self._checked.update(unseen)
        self.unreadable |= found
        return [index for index in indices if index not in self.unreadable]

    def _problem(self, index: int) -> str | None:
        try:
            self.source.load(index)
        except UnreadableImageError as error:
            return str(error)
        return None

    def _dataset(self, split: Split) -> PriorDataset:
        if split not in self._datasets:
            raise RuntimeError("call setup() before asking for a loader")
        dataset = self._datasets[split]
        if not dataset.indices:
            cures = {
                "train": "give the data a train split",
                "val": "set val_fraction above 0, or give the data a val split",
                "test": "give the data a test split",
            }
            skipped = f" ({len(self.unreadable)} unreadable images were skipped)" if self.unreadable else ""
            raise PriorError(f"the {split} split of {type(self.source).__name__} is empty{skipped}: {cures[split]}")
        return dataset

    def _evaluation_loader(self, split: Split) -> DataLoader[PriorSample]:
        dataset, trainer = self._dataset(split), self.trainer
        share: ShareSampler | None = None
        if trainer and trainer.world_size > 1:
            if len(dataset) < trainer.world_size:
                raise PriorError(f"the {split} split has {len(dataset)} images for {trainer.world_size} processes")
            share = ShareSampler(dataset, trainer.world_size, trainer.global_rank)
        return DataLoader(dataset, batch_size=self.batch_size, sampler=share, **self._loader_options())

    def _loader_options(self) -> dict[str, Any]:
        """Returns the options that the loaders of all splits share."""
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            # without its own generator a loader would draw from the one that the network uses
            "generator": torch.Generator().manual_seed(self.seed),
        }


def hide_priors(sample: PriorSample) -> PriorSample:
    """Hides the annotation of an image: mask, boxes and keypoints become zero and not valid.

    Args:
        sample: An image after the transforms; it is not changed.

    Returns:
        A copy with the same keys.

    >>> sample = {"label": torch.tensor(1), "mask": torch.ones(2, 2), "mask_valid": torch.tensor(True)}
    >>> hide_priors(sample)
    {'label': tensor(1), 'mask': tensor([[0., 0.],
            [0., 0.]]), 'mask_valid': tensor(False)}
    """
    hidden = sample.copy()
    for key in PRIOR_KEYS:
        if key in sample:
            hidden[key] = torch.zeros_like(sample[key])
    return hidden


def _mixed(seed: int, epoch: int, index: int) -> int:
    """Makes one seed of three numbers; their sum would be the same for many pairs of epoch and image."""
    return int(np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)[0]) >> 1
