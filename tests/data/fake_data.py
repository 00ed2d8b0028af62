"""What the small data sets on disk consist of."""

from pathlib import Path

import numpy as np
from PIL import Image

PARTS = ["back", "beak", "belly", "breast", "crown", "forehead", "left eye", "left leg", "left wing", "nape"]
PARTS += ["right eye", "right leg", "right wing", "tail", "throat"]
SPECIES = ["001.Black_footed_Albatross", "004.Groove_billed_Ani", "029.American_Crow"]
ATTRIBUTES = ["has_bill_shape::curved_(up_or_down)", "has_bill_shape::cone", "has_head_pattern::spotted"]
SIZE = (40, 30)  # width, height
HEAD = (10.0, 5.0, 20.0, 11.0)  # x0, y0, x1, y1: where the parts of the head lie
BODY = (8, 4, 30, 26)


def save_picture(path: Path, size: tuple[int, int] = SIZE, level: int = 120) -> Path:
    """A picture of one grey level, slightly lighter where the bird of these data sets is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), level, dtype=np.uint8)
    pixels[BODY[1] : BODY[3], BODY[0] : BODY[2]] += 100
    Image.fromarray(pixels).save(path)
    return path


def save_mask(path: Path, size: tuple[int, int] = SIZE, level: int = 255) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), dtype=np.uint8)
    pixels[BODY[1] : BODY[3], BODY[0] : BODY[2]] = level
    Image.fromarray(pixels).save(path)
    return path


def write_lines(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def edit(path: Path, old: str, new: str) -> None:
    """Replaces the first occurrence; the file must have it."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def part_lines(identity: int) -> list[str]:
    """The corners of the head are at the beak and the nape; the right side is hidden in every picture."""
    places = {
        "beak": (20.0, 11.0),
        "nape": (10.0, 5.0),
        "crown": (14.0, 5.0),
        "left eye": (16.0, 7.0),
        "tail": (29.0, 25.0),
    }
    lines = []
    for number, name in enumerate(PARTS, 1):
        x, y = places.get(name, (0.0, 0.0))
        lines.append(f"{identity} {number} {x} {y} {int(name in places)}")
    return lines


TABLE = """\
path,label,split,mask,group,species,head_x0,head_y0,head_x1,head_y1,left_eye_x,left_eye_y,right_eye_x,right_eye_y
a.png,kakapo,train,a_mask.png,land,kakapo,10,5,20,11,16,7,,
b.png,other,train,,land,kea,,,,,,,,
c.png,other,val,a_mask.png,water,,10,5,20,11,16,7,18,7.5
d.png,kakapo,test,a_mask.png,water,kakapo,10,5,20,11,16,7,18,7.5
"""
