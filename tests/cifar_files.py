"""Files of CIFAR-100 as they are handed out: pickles of Python 2 with arrays of bytes."""

import io
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

COARSE = [
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables", "household_electrical_devices",
    "household_furniture", "insects", "large_carnivores", "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes", "large_omnivores_and_herbivores", "medium_mammals", "non-insect_invertebrates",
    "people", "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2",
]  # fmt: skip
"""The names in the real file meta, in its order."""


class Python2Pickler(pickle._Pickler):
    """Writes texts and bytes alike as strings without an encoding, which is what Python 2 did."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, value: str | bytes) -> None:
        data = value if isinstance(value, bytes) else value.encode("latin1")
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string


def dump(path: Path, content: dict[str, Any]) -> None:
    """With the protocol of the real files, and the name that numpy's module had."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(content)
    path.write_bytes(file.getvalue().replace(b"numpy._core", b"numpy.core"))


def write_random_files(root: Path, train: int, test: int) -> None:
    """Writes images of noise, of a hundred fine classes, five of them in each coarse one."""
    random, folder = np.random.default_rng(0), root / "cifar-100-python"
    names = [f"fine{number:02}" for number in range(100)]
    dump(folder / "meta", {"fine_label_names": names, "coarse_label_names": COARSE})
    for name, count in (("train", train), ("test", test)):
        fine = [number % 100 for number in range(count)]
        content = {
            "filenames": [f"image_{number}.png" for number in range(count)],
            "batch_label": name,
            "fine_labels": fine,
            "coarse_labels": [label % 20 for label in fine],
            "data": random.integers(0, 256, (count, 3072), dtype=np.uint8),
        }
        dump(folder / name, content)
