"""Pictures with annotations of any format: what the classes, the target and the auxiliary tasks are."""

import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torchvision import tv_tensors

from lightning_priors.data.sources.annotation_table import (
    SPLIT_NAMES,
    AnnotationTable,
    Box,
    Picture,
    Region,
    check_places,
    hull,
    in_pixels,
    with_area,
)
from lightning_priors.data.sources.base import Known, RawSample, Source, Split, raw_sample
from lightning_priors.data.sources.outlines import mask_of
from lightning_priors.data.sources.paths import check_inside, existing_folder, stays_inside
from lightning_priors.data.sources.pictures import empty_mask, read_annotated_image
from lightning_priors.data.sources.places import checked_boxes, checked_points
from lightning_priors.data.sources.reading import look_up, named_once, read_table, sorted_names
from lightning_priors.errors import PriorError, nearest

CATEGORY, SUPERCATEGORY, TARGET = "category", "supercategory", "target"
OnSeveral = Literal["error", "skip", "largest"]


@dataclass(frozen=True)
class LabelledPicture:
    """A picture with what is asked for of its annotations."""

    picture: Picture
    label: int
    split: Split
    target: list[Region]
    parts: list[Region | None]
    aux_labels: list[int]
    group: int | None


class Annotated(Source):
    """Reads pictures whose annotations another tool has made; a subclass reads one format.

    **The class** is the category of the picture's annotations. An annotation without a place (a tag, a choice) speaks
    for the whole picture and goes before those with a place. **The target**, to which mask, box and keypoints belong,
    are the annotations of that category; where none is placed, all placed annotations that speak for no other class.
    The mask is the union of their outlines; a picture in which one of them has only a box has no mask. The box
    "target" is the smallest one around them, without those that cover a crowd.

    Places without area are left out, and so are pictures without a class; both are said. Coordinates refer to the
    picture in the size that the file tells: turned by its EXIF orientation or as it is stored. Where the size does not
    tell, they refer to the turned picture, which is what annotators see.

    Args:
        root: The folder of the annotations and pictures.
        annotations: The file with the annotations, or one for each split ({train: ..., val: ..., test: ...}), below
            the root. By default they are found by their names.
        images: The folder of the pictures, below the root. By default it is found.
        label: What the class is: "category", "supercategory", or the name of an attribute of pictures or annotations.
        classes: The classes in the order of their labels; annotations of other categories then say nothing about the
            class. By default all that occur: categories in the order of their numbers, other names alphabetically.
        on_several_classes: What happens with a picture whose annotations have several classes: "error", "skip" leaves
            it out, "largest" takes the annotation with the largest box.
        background: The class of pictures without an annotation of a class. By default they are left out.
        target: The categories that are the target. By default see above.
        parts: The part boxes: categories that are parts (and say nothing about the class), and "target" for the
            target's own box. By default "target" alone, if there are any places.
        aux: The auxiliary tasks: "category", "supercategory", or names of attributes. A picture of which the
            annotations say several things, or nothing, has no auxiliary label.
        group: The attribute that is the group.
        split: The attribute of pictures with train, val or test. It goes before the split that files and folders
            tell. Without any, every picture is for training, and the data module sets some aside for validation.
        split_table: A CSV file below the root with the columns path and split, instead of that attribute.

    Raises:
        PriorError: In `setup` and in properties such as `classes`, if a file is missing or an annotation is wrong.
    """

    def __init__(
        self,
        root: str,
        annotations: str | Mapping[str, str] | None = None,
        images: str | None = None,
        label: str = CATEGORY,
        classes: Sequence[str] | None = None,
        on_several_classes: OnSeveral = "error",
        background: str | None = None,
        target: Sequence[str] | None = None,
        parts: Sequence[str] | None = None,
        aux: Sequence[str] = (),
        group: str | None = None,
        split: str = "split",
        split_table: str | None = None,
    ) -> None:
        self.root = Path(root)
        self.annotations = annotations
        self.images = images
        self.label_name = label
        self.class_names = classes
        self.on_several_classes = on_several_classes
        self.background = background
        self.target = target
        self.parts = parts
        self.aux = list(aux)
        self.group = group
        self.split = split
        self.split_table = split_table

    @abstractmethod
    def read(self) -> AnnotationTable:
        """Reads the annotations.

        Raises:
            PriorError: If a file is missing or wrong.
        """

    @property
    def classes(self) -> list[str]:
        """The listed classes, or those that occur."""
        return list(self._class_numbers)

    @property
    def aux_classes(self) -> dict[str, list[str]]:
        """The classes that occur in each auxiliary task."""
        return {name: list(numbers) for name, numbers in self._aux_numbers.items()}

    @property
    def group_names(self) -> list[str]:
        """The groups that occur."""
        return list(self._group_numbers)

    @cached_property
    def part_names(self) -> list[str]:
        """The names of the part boxes."""
        if self.parts is not None:
            return list(self.parts)
        return [TARGET] if any(region.extent for region in self._targets) else []

    @property
    def keypoint_names(self) -> list[str]:
        """The names of the keypoints."""
        return list(self._table.keypoints)

    @property
    def file_folder(self) -> Path | None:
        """The folder that the names of `file` are relative to."""
        return self.root

    def setup(self) -> None:
        """Reads the annotations.

        Raises:
            PriorError: If a file is missing or an annotation is wrong.
        """
        with self._of_this_form():
            _ = self._pictures, self.part_names

    def indices(self, split: Split) -> list[int]:
        """Returns the pictures of a split in the order of the annotations."""
        return [index for index, known in enumerate(self._pictures) if known.split == split]

    def label(self, index: int) -> int:
        """Returns the class of a picture."""
        return self._pictures[index].label

    def known(self, index: int) -> Known:
        """Returns the label, auxiliary labels and group of a picture."""
        picture = self._pictures[index]
        known = Known(label=picture.label)
        if self.aux:
            known["aux_labels"] = picture.aux_labels
        if picture.group is not None:
            known["group"] = picture.group
        return known

    def file(self, index: int) -> str:
        """Returns the file of a picture, relative to the root."""
        return self._pictures[index].picture.file

    def load(self, index: int) -> RawSample:
        """Reads a picture and draws its annotations."""
        with self._of_this_form():
            return self._loaded(index)

    def _loaded(self, index: int) -> RawSample:
        known = self._pictures[index]
        picture = known.picture
        image = read_annotated_image(self.root / picture.file, picture.where, picture.size)
        sample = raw_sample(image, self.known(index))
        height, width = image.shape[1:]
        target = [in_pixels(region, width, height) if picture.shares else region for region in known.target]
        if self._has_masks:
            sample["mask"], sample["mask_valid"] = _mask(target, image, picture.where)
        if self.part_names:
            parts = [part and in_pixels(part, width, height) if picture.shares else part for part in known.parts]
            boxes = [_box_inside(part, image) if part else None for part in parts]
            if TARGET in self.part_names:
                around = (_box_inside(region, image) for region in target if not region.crowd)
                boxes[self.part_names.index(TARGET)] = hull(box for box in around if box)
            sample["part_boxes"], sample["part_valid"] = checked_boxes(boxes, image, self.part_names, picture.where)
        if self.keypoint_names:
            points = {name: point for region in reversed(_by_size(target)) for name, point in region.points.items()}
            sample["keypoints"], sample["keypoint_valid"] = checked_points(
                [points.get(name) for name in self.keypoint_names], image, self.keypoint_names, picture.where
            )
        return sample

    # ---- what the files say

    @cached_property
    def _table(self) -> AnnotationTable:
        """The annotations without places that have no area."""
        existing_folder(self.root)
        with self._of_this_form():
            return self._checked(self.read())

    @contextmanager
    def _of_this_form(self) -> Iterator[None]:
        """Says in one line that a value of another program's file is missing, or of another kind."""
        try:
            yield
        except PriorError:  # which says more
            raise
        except (KeyError, TypeError, IndexError, AttributeError, ValueError, OverflowError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise PriorError(f"{self.root} is not as {type(self).__name__} data are ({reason})") from error

    def _checked(self, table: AnnotationTable) -> AnnotationTable:
        """The same without places that have no area."""
        if not table.pictures:
            raise PriorError(f"the annotations in {self.root} have no pictures")
        files: dict[str, Picture] = {}
        for picture in table.pictures:
            if (other := files.setdefault(picture.file, picture)) is not picture:
                raise PriorError(f"{picture.file} is annotated twice: {other.where} and {picture.where}")
        folder = self.root / (self.images or "")
        for picture in table.pictures:
            if not stays_inside(os.path.abspath(self.root / picture.file), folder):
                check_inside(picture.file, self.root, picture.where, "choose a root that holds it, or set images")
        if not any((self.root / picture.file).is_file() for picture in table.pictures):
            raise PriorError(
                f"no picture {table.pictures[0].file} ({table.pictures[0].where}) in {self.root}; set images"
            )
        pictures, lost = [], []
        for picture in table.pictures:
            for region in picture.regions:
                check_places(region)
            kept, without = with_area(picture.regions)
            pictures.append(replace(picture, regions=kept))
            lost += without
        if lost:
            rank_zero_info(f"left out {len(lost)} annotations whose place has no area, such as {lost[0].where}")
        return AnnotationTable(pictures, table.categories, table.keypoints)

    @cached_property
    def _named(self) -> list[tuple[Picture, str]]:
        """The pictures that have a class, and its name."""
        self._check_names()
        named, nameless, several = [], [], []
        for picture in self._table.pictures:
            names = self._names(picture)
            if len(names) > 1 and self.on_several_classes == "skip":
                several.append(picture)
            elif not names and self.background is None:
                nameless.append(picture)
            else:
                named.append((picture, self._one_of(names, picture)))
        total = len(self._table.pictures)
        for left, why, cure in (
            (nameless, f"no {self.label_name}", "background gives them a class"),
            (several, "several classes", "on_several_classes"),
        ):
            if left:
                rank_zero_info(f"left out {len(left)} of {total} pictures with {why}, such as {left[0].file} ({cure})")
        return named

    def _names(self, picture: Picture) -> list[str]:
        """The different classes that a picture's annotations say, that of the largest one first."""
        if self.label_name in picture.attributes:
            return [name for name in [picture.attributes[self.label_name]] if self._is_class(name)]
        voting = [region for region in picture.regions if region.category not in self._part_categories]
        tags = [region for region in voting if not region.placed]
        for regions in (tags, _by_size(voting)):
            names = (self._value(region, self.label_name) for region in regions)
            if known := dict.fromkeys(name for name in names if name and self._is_class(name)):
                return list(known)
        return []

    def _one_of(self, names: Sequence[str], picture: Picture) -> str:
        """The class of a picture among those that its annotations say."""
        if len(names) > 1 and self.on_several_classes == "error":
            raise PriorError(
                f"{picture.file} ({picture.where}) has {len(names)} classes: {', '.join(names)}; set classes, parts, "
                f"on_several_classes (largest, skip) or label{self._other_labels()}"
            )
        return names[0] if names else str(self.background)

    def _is_class(self, name: str) -> bool:
        return self.class_names is None or name in self.class_names

    def _value(self, region: Region, name: str) -> str:
        """What a region says of an attribute, of its category or supercategory; empty for nothing."""
        if name == CATEGORY:
            return region.category or ""
        if name == SUPERCATEGORY:
            return self._table.categories.get(region.category or "", "")
        return region.attributes.get(name, "")

    @cached_property
    def _occurring(self) -> set[str]:
        return {name for _, name in self._named}

    @cached_property
    def _class_numbers(self) -> dict[str, int]:
        if self.class_names is not None:
            named_once(self.class_names, "class")
            background = {self.background} - {None} - set(self.class_names)
            names = [*self.class_names, *map(str, background)]
        else:
            names = [name for name in self._in_order(self.label_name, self._occurring) if name != self.background]
            names += [self.background] if self.background is not None and self.background in self._occurring else []
        if len(names) < 2:
            raise PriorError(
                f"all pictures in {self.root} have the class {', '.join(names) or '(none)'}, and two are needed; "
                f"set background, the class of those without annotation, or label{self._other_labels()}"
            )
        return {name: number for number, name in enumerate(names)}

    def _in_order(self, label: str, names: set[str]) -> list[str]:
        """Categories in the order of their numbers, other names alphabetically."""
        categories = self._table.categories
        order = {CATEGORY: categories, SUPERCATEGORY: dict.fromkeys(categories.values())}.get(label)
        return sorted_names(names) if order is None else [name for name in order if name in names]

    def _other_labels(self) -> str:
        """The end of an error line: which attributes could be the label."""
        others = [name for name in self._attributes if name not in (self.label_name, self.split)]
        return f" ({', '.join(others)})" if others else ""

    @cached_property
    def _attributes(self) -> list[str]:
        """The attributes that pictures or annotations have."""
        found: dict[str, None] = {}
        for picture in self._table.pictures:
            found |= dict.fromkeys(picture.attributes)
            for region in picture.regions:
                found |= dict.fromkeys(region.attributes)
        return list(found)

    @property
    def _part_categories(self) -> set[str | None]:
        return {part for part in self.parts or () if part != TARGET}

    def _check_names(self) -> None:
        """Checks the options that name a category or an attribute."""
        allowed: tuple[str, ...] = ("error", "skip", "largest")
        look_up(dict.fromkeys(allowed), self.on_several_classes, "on_several_classes", type(self).__name__)
        categories = dict.fromkeys(self._table.categories)
        for name in [*(self.target or ()), *(part for part in self.parts or () if part != TARGET)]:
            look_up(categories, name, CATEGORY, f"the annotations in {self.root}")
        known = dict.fromkeys([CATEGORY, SUPERCATEGORY, *self._attributes])
        for name in [self.label_name, *self.aux, *([] if self.group is None else [self.group])]:
            look_up(known, name, "attribute", f"the annotations in {self.root}")
        if self.label_name == CATEGORY:
            for name in self.class_names or ():
                if name != self.background:
                    look_up(categories, name, CATEGORY, f"the annotations in {self.root}")
        elif self.label_name == SUPERCATEGORY:
            for name, above in self._table.categories.items():
                if not above and name not in self._part_categories:
                    raise PriorError(f"the category {name!r} has no supercategory, so that it cannot be the label")

    # ---- what is asked for of each picture

    @cached_property
    def _pictures(self) -> list[LabelledPicture]:
        splits = self._splits
        return [
            LabelledPicture(
                picture=picture,
                label=look_up(self._class_numbers, name, "class", picture.where),
                split=splits[picture.file],
                target=target,
                parts=[_largest(picture.regions, part) for part in self.parts or (TARGET,)],
                aux_labels=[self._aux_label(task, picture, target) for task in self.aux],
                group=None if self.group is None else self._group_of(picture, target),
            )
            for (picture, name), target in zip(self._named, self._all_targets, strict=True)
        ]

    @cached_property
    def _all_targets(self) -> list[list[Region]]:
        return [self._target_of(picture, name) for picture, name in self._named]

    @property
    def _targets(self) -> Iterable[Region]:
        return (region for target in self._all_targets for region in target)

    @cached_property
    def _has_masks(self) -> bool:
        return any(region.outline for region in self._targets)

    def _target_of(self, picture: Picture, name: str) -> list[Region]:
        """The placed annotations of the target."""
        placed = [
            region for region in picture.regions if region.placed and region.category not in self._part_categories
        ]
        if self.target is not None:
            return [region for region in placed if region.category is None or region.category in self.target]
        own = [region for region in placed if region.category is None or self._value(region, self.label_name) == name]
        if any(region.category is not None for region in own):
            return own
        return [region for region in placed if self._value(region, self.label_name) not in self._occurring]

    def _values(self, name: str, picture: Picture, target: Sequence[Region]) -> list[str]:
        """The different things that a picture, its tags and its target say of an attribute."""
        if name in picture.attributes:
            return [picture.attributes[name]]
        tags = (region for region in picture.regions if not region.placed)
        found = dict.fromkeys(self._value(region, name) for region in (*tags, *target))
        return [value for value in found if value]

    @cached_property
    def _aux_numbers(self) -> dict[str, dict[str, int]]:
        numbers = {}
        for name in self.aux:
            pairs = zip(self._named, self._all_targets, strict=True)
            occurring = {value for (picture, _), target in pairs for value in self._values(name, picture, target)}
            numbers[name] = {value: number for number, value in enumerate(self._in_order(name, occurring))}
        return numbers

    def _aux_label(self, name: str, picture: Picture, target: Sequence[Region]) -> int:
        values = self._values(name, picture, target)
        return self._aux_numbers[name][values[0]] if len(values) == 1 else -1

    @cached_property
    def _group_numbers(self) -> dict[str, int]:
        if self.group is None:
            return {}
        pairs = zip(self._named, self._all_targets, strict=True)
        names = {value for (picture, _), target in pairs for value in self._values(self.group, picture, target)}
        return {name: number for number, name in enumerate(self._in_order(self.group, names))}

    def _group_of(self, picture: Picture, target: Sequence[Region]) -> int:
        values = self._values(str(self.group), picture, target)
        if len(values) != 1:
            said = ", ".join(values) or "nothing"
            raise PriorError(f"the group of {picture.file} ({picture.where}) is unclear: {self.group} says {said}")
        return self._group_numbers[values[0]]

    @cached_property
    def _splits(self) -> dict[str, Split]:
        """The split of each picture by its file."""
        told: dict[str, Split | None] = {picture.file: picture.split for picture, _ in self._named}
        if self.split_table is not None:
            told = self._listed_splits(self.split_table)
        elif self.split in self._attributes:
            for picture, _ in self._named:
                name = picture.attributes.get(self.split, "")
                told[picture.file] = look_up(SPLIT_NAMES, name.lower(), "split", picture.where)
        if not any(told.values()):
            return dict.fromkeys(told, "train")
        splits: dict[str, Split] = {}
        for picture, _ in self._named:
            found = told.get(picture.file)
            if found is None:
                count = Counter(told.get(other.file) for other, _ in self._named)[None]
                raise PriorError(f"{count} pictures are in no split, such as {picture.file} ({picture.where})")
            splits[picture.file] = found
        return splits

    def _listed_splits(self, table: str) -> dict[str, Split | None]:
        known = {picture.file for picture, _ in self._named}
        names = {Path(file).name: file for file in sorted(known)}
        left_out = {picture.file for picture in self._table.pictures} - known
        listed: dict[str, Split | None] = {}
        for row, cells in read_table(self.root / table, ("path", "split")):
            path = cells["path"]
            file = path if path in known | left_out else names.get(Path(path).name, "")
            if not file:
                raise PriorError(f"no annotated picture {path!r} ({row}), {nearest(path, known)}")
            listed[file] = look_up(SPLIT_NAMES, cells["split"].lower(), "split", row)
        return listed


def _by_size(regions: Iterable[Region]) -> list[Region]:
    """Regions, the largest first."""
    return sorted(regions, key=lambda region: region.area, reverse=True)


def _largest(regions: Iterable[Region], category: str) -> Region | None:
    """The largest region of a category."""
    return next(iter(_by_size(region for region in regions if region.category == category and region.extent)), None)


def _box_inside(region: Region, image: Tensor) -> Box | None:
    """A region's box, or the box around that part of its outline that lies in the picture."""
    if region.box or region.extent is None:
        return region.box
    height, width = image.shape[1:]
    x0, y0, x1, y1 = region.extent
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _mask(target: Sequence[Region], image: Tensor, where: str) -> tuple[tv_tensors.Image, bool]:
    """The union of the outlines, (1, H, W), and whether it is the whole target: no region has a box alone."""
    outlines = [region.outline for region in target if region.outline]
    if not outlines or any(region.box and not region.outline for region in target):
        return empty_mask(image), False
    return mask_of(outlines, image.shape[1], image.shape[2], where), True
