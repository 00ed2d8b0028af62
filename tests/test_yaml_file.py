"""Configurations and plans are data: whatever stands in a YAML file, it is read in a moment or refused in one line."""

import os
from pathlib import Path

import pytest
import yaml

from lightning_priors.errors import PriorError
from lightning_priors.yaml_file import read_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

BAD = {
    "alias bomb": (BOMB, "has more than 100,000 values"),
    "a value within itself": ("a: &a [*a]\n", "line 1: a value contains itself"),
    "a key twice": ("model: 1\ndata: 2\nmodel: 3\n", "line 3: 'model' is there twice"),
    "a key twice below": ("model:\n  lr: 1\n  lr: 2\n", "line 3: 'lr' is there twice"),
    "an object": ("a: !!python/object/apply:os.system [true]\n", "line 1: could not determine a constructor"),
    "a module": ("a: !!python/module:os\n", "line 1: could not determine a constructor"),
    "a tag": ("a: !mine 1\n", "line 1: could not determine a constructor"),
    "an unknown alias": ("a: *b\n", "line 1: found undefined alias"),
    "a tab": ("a:\n\tb: 1\n", "line 2: found character"),
    "an open bracket": ("a: [1, 2\n", "line 2: "),
    "deep lists": ("[" * 2000 + "]" * 2000, "nested deeper than 100 levels"),
    "deep mappings": ("".join(" " * i + "a:\n" for i in range(300)), "nested deeper than 100 levels"),
    "NUL": ("a: b\0c\n", "is not YAML"),
    "terminal escape": ("a: b\x1b[2Jc\n", "is not YAML"),
    "an impossible date": ("a: 2024-13-45\n", "is not YAML"),
    "two documents": ("a: 1\n---\nb: 2\n", "line 2: but found another document"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_plain_configuration_is_refused_in_one_line(name, tmp_path):
    text, reason = BAD[name]
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(PriorError) as caught:
        read_yaml(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.count(str(path)) == 1
    assert reason in message
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))
    assert "\x1b" not in message


def test_files_that_are_no_text(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(PriorError, match="is not a text file in UTF-8"):
        read_yaml(path)
    os.mkfifo(tmp_path / "pipe.yaml")
    for other in (tmp_path / "pipe.yaml", tmp_path, tmp_path / "absent.yaml"):
        with pytest.raises(PriorError, match="is no file"):
            read_yaml(other)
    with path.open("wb") as file:
        file.truncate(20 << 20)
    with pytest.raises(PriorError, match="has 20,971,520 bytes; a configuration has at most 10,485,760"):
        read_yaml(path)


def test_what_is_allowed_is_read_as_yaml_reads_it(tmp_path):
    path = tmp_path / "config.yaml"
    text = (
        "base: &base {lr: 0.1, tags: [a, b]}\nother:\n  <<: *base\n  lr: 0.2\nagain: *base\nempty:\nday: 2024-01-02\n"
    )
    path.write_text("\ufeff" + text, encoding="utf-8")
    assert read_yaml(path) == yaml.safe_load(text)
    path.write_text("")
    assert read_yaml(path) is None


def test_every_shipped_configuration_is_allowed():
    files = sorted((Path(__file__).parents[1] / "configs").rglob("*.yaml"))
    assert len(files) > 20
    assert all(isinstance(read_yaml(file), dict) for file in files)
