"""Ways in which the files of a data set are wrong, drawn at random by a seed."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

TEXTS = {".csv", ".txt", ".json", ".jsonl", ".yaml", ".xml"}

Change = Callable[[bytes, random.Random], bytes]


def _lines(change: Callable[[list[bytes], random.Random], list[bytes]]) -> Change:
    def changed(content: bytes, rng: random.Random) -> bytes:
        return b"\n".join(change(content.split(b"\n"), rng))

    return changed


def _drop(lines: list[bytes], rng: random.Random) -> list[bytes]:
    place = rng.randrange(len(lines))
    return lines[:place] + lines[place + 1 :]


def _double(lines: list[bytes], rng: random.Random) -> list[bytes]:
    place = rng.randrange(len(lines))
    return [*lines[:place], lines[place], *lines[place:]]


def _shuffle_cells(lines: list[bytes], rng: random.Random) -> list[bytes]:
    place = rng.randrange(len(lines))
    separator = b"," if b"," in lines[place] else b" "
    cells = lines[place].split(separator)
    rng.shuffle(cells)
    return [*lines[:place], separator.join(cells), *lines[place + 1 :]]


def _replace_number(content: bytes, rng: random.Random, new: bytes) -> bytes:
    """Replaces one whole number of the file."""
    starts = [
        place
        for place, byte in enumerate(content)
        if byte in b"0123456789" and (place == 0 or content[place - 1] not in b"0123456789.")
    ]
    if not starts:
        return content + new
    start = rng.choice(starts)
    end = start
    while end < len(content) and content[end] in b"0123456789.":
        end += 1
    return content[:start] + new + content[end:]


def _number(new: bytes) -> Change:
    return lambda content, rng: _replace_number(content, rng, new)


def _replace_bytes(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(3):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _insert(new: bytes) -> Change:
    def changed(content: bytes, rng: random.Random) -> bytes:
        place = rng.randrange(len(content) + 1)
        return content[:place] + new + content[place:]

    return changed


def _json_value(content: bytes, rng: random.Random) -> bytes:
    """Replaces one value of a JSON file by one of another kind."""
    try:
        tree = json.loads(content)
    except ValueError:
        return content[::-1]
    places: list[tuple[object, object]] = []

    def walk(node: object) -> None:
        entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in entries:
            places.append((node, key))
            walk(value)

    walk(tree)
    if places:
        node, key = rng.choice(places)
        node[key] = rng.choice([None, -1, 1e300, "x", [], {}, True, [[]], {"a": 1}, 10**30, "../../etc/passwd"])  # type: ignore[index]
    return json.dumps(tree).encode()


CHANGES: dict[str, Change] = {
    "empty": lambda content, rng: b"",
    "cut off": _cut,
    "wrong bytes": _replace_bytes,
    "not UTF-8": _insert(b"\xff\xfe\xe9"),
    "NUL": _insert(b"\0"),
    "byte order mark": lambda content, rng: b"\xef\xbb\xbf" + content,
    "UTF-16": lambda content, rng: content.decode("utf-8", "replace").encode("utf-16"),
    "Windows lines": lambda content, rng: content.replace(b"\n", b"\r\n"),
    "a line less": _lines(_drop),
    "a line twice": _lines(_double),
    "cells in another order": _lines(_shuffle_cells),
    "no line breaks": lambda content, rng: content.replace(b"\n", b" "),
    "a negative number": _number(b"-7"),
    "a huge number": _number(b"1" + b"0" * 40),
    "5000 digits": _number(b"9" * 5000),
    "not a number": _number(b"nan"),
    "infinity": _number(b"1e400"),
    "a word for a number": _number(b"kakapo"),
    "a fraction": _number(b"0.5"),
    "nothing for a number": _number(b""),
    "quotes": _insert(b'"'),
    "deep brackets": _insert(b"[" * 3000),
    "a very long line": _insert(b"x" * 300_000),
    "an escape sequence": _insert(b"\x1b[2J"),
    "another value": _json_value,
}


def spoil(root: Path, rng: random.Random) -> str:
    """Makes one thing in a folder wrong; says which."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    texts = [path for path in files if path.suffix in TEXTS]
    path = rng.choice(texts if texts and rng.random() < 0.8 else files)
    way = rng.choice(["change"] * 8 + ["gone", "folder", "pipe", "link to itself"])
    if way == "change":
        likely = ["another value"] if path.suffix == ".json" and rng.random() < 0.5 else list(CHANGES)
        name = rng.choice(likely)
        path.write_bytes(CHANGES[name](path.read_bytes(), rng))
        return f"{name} in {path.relative_to(root)}"
    path.unlink()
    if way == "folder":
        path.mkdir()
    elif way == "pipe":
        os.mkfifo(path)
    elif way == "link to itself":
        path.symlink_to(path)
    return f"{way}: {path.relative_to(root)}"
