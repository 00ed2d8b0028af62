"""Writes the images of any source as COCO: ``annotations/instances_<split>.json`` and ``images/<split>/``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lightning_priors.data.sources import RawSample, Source
from lightning_priors.data.sources.outlines import run_lengths

SPLITS = ("train", "val", "test")


def export_coco(source: Source, root: Path, indices: Mapping[str, Sequence[int]] | None = None) -> Path:
    """Writes pictures (PNG) and annotations that `Coco` reads back as the source gives them, with hard masks.

    The class is the category; mask, box and keypoints are of one annotation. Each part box is an annotation of a
    category with the part's name. An image without mask and keypoints has an annotation without a place. Auxiliary
    labels and the group are attributes of the picture.

    Args:
        source: The source, set up.
        root: The folder that is made.
        indices: Which images of each split; all when None.
    """
    for split in SPLITS:
        chosen = source.indices(split) if indices is None else indices.get(split, ())
        if chosen:
            _write(source, root, split, chosen)
    return root


def _write(source: Source, root: Path, split: str, indices: Sequence[int]) -> None:
    names = [*source.classes, *(name for name in source.part_names if name not in source.classes)]
    categories = [{"id": 3 * number + 1, "name": name, "supercategory": ""} for number, name in enumerate(names)]
    for category in categories[: len(source.classes)]:
        category["keypoints"] = source.keypoint_names
    ids = {str(category["name"]): category["id"] for category in categories}
    content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": categories}
    for index in indices:
        sample = source.load(index)
        name = f"{index:06d}.png"
        path = root / "images" / split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample["image"].permute(1, 2, 0).numpy()).save(path)
        height, width = sample["image"].shape[1:]
        content["images"].append(
            {
                "id": index,
                "file_name": name,
                "width": width,
                "height": height,
                "attributes": _attributes(source, sample),
            }
        )
        for entry in (_object(source, sample, ids), *_parts(source, sample, ids)):
            content["annotations"].append({"id": len(content["annotations"]) + 1, "image_id": index, **entry})
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _attributes(source: Source, sample: RawSample) -> dict[str, str]:
    labels = zip(source.aux_classes.items(), sample.get("aux_labels", ()), strict=True)
    attributes = {task: names[label] for (task, names), label in labels if label >= 0}
    return attributes | ({"group": source.group_names[sample["group"]]} if "group" in sample else {})


def _object(source: Source, sample: RawSample, ids: Mapping[str, int]) -> dict[str, Any]:
    entry: dict[str, Any] = {"category_id": ids[source.classes[sample["label"]]], "iscrowd": 0}
    if "mask" in sample and sample["mask_valid"]:
        inside = sample["mask"][0].numpy() >= 0.5
        rows, columns = np.nonzero(inside)
        x, y = int(columns.min()), int(rows.min())
        entry["bbox"] = [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y]
        entry["segmentation"], entry["area"] = run_lengths(inside), int(inside.sum())
    if "keypoints" in sample:
        seen = [2 * int(valid) for valid in sample["keypoint_valid"]]
        points = zip(sample["keypoints"].tolist(), seen, strict=True)
        entry["keypoints"] = [number for (x, y), valid in points for number in (x, y, valid)]
    return entry


def _parts(source: Source, sample: RawSample, ids: Mapping[str, int]) -> list[dict[str, Any]]:
    if "part_boxes" not in sample:
        return []
    boxes = zip(source.part_names, sample["part_boxes"].tolist(), sample["part_valid"].tolist(), strict=True)
    return [
        {"category_id": ids[name], "bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": 0}
        for name, (x0, y0, x1, y1), valid in boxes
        if valid
    ]
