"""Reading YAML files of people that one does not know: plain values alone, of bounded size, each key once."""

from collections.abc import Hashable
from pathlib import Path

import yaml

from lightning_priors.errors import PriorError

LARGEST_FILE = 10 << 20
"""Bytes of a configuration or a plan; a larger file is a mistake."""

MOST_VALUES = 100_000
"""Values of a file with all its aliases written out. A few lines of aliases of aliases would make billions of them."""

DEEPEST = 100
"""Levels of nesting."""


def read_yaml(path: str | Path) -> object:
    r"""Reads a YAML file.

    Args:
        path: The file, in UTF-8.

    Returns:
        Its content, of dicts, lists, texts, numbers, dates, booleans and None.

    Raises:
        PriorError: If the file cannot be read, is no YAML, has a key twice, a tag that makes an object of another kind,
            or more values, levels or bytes than any configuration needs.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "plan.yaml"
    >>> _ = path.write_text("seeds: [0, 1]\nseeds: [2]\n")
    >>> read_yaml(path)
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: ...plan.yaml, line 2: 'seeds' is there twice
    """
    text = _text(Path(path))
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _check(path, node, {}, 0)
        return yaml.safe_load(text)
    except PriorError:  # which is a ValueError too
        raise
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise PriorError(f"{path}, line {line}: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:  # the second from a number or a date that Python cannot hold
        raise PriorError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise PriorError(f"{path} is nested deeper than {DEEPEST} levels") from None


def _text(path: Path) -> str:
    if not path.is_file():  # a pipe would never end
        raise PriorError(f"{path} is no file")
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise PriorError(f"{path} has {path.stat().st_size:,} bytes; a configuration has at most {LARGEST_FILE:,}")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise PriorError(f"{path} is not a text file in UTF-8") from None
    except OSError as error:
        raise PriorError(f"cannot read {path}: {error.strerror}") from None


def _check(path: str | Path, node: yaml.Node, sizes: dict[int, int], depth: int) -> int:
    """Checks a node and what is below it; gives the number of values with all aliases written out."""
    if depth > DEEPEST:
        raise PriorError(f"{path} is nested deeper than {DEEPEST} levels")
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            raise PriorError(f"{path}, line {node.start_mark.line + 1}: a value contains itself")
        return sizes[id(node)]
    sizes[id(node)] = 0  # while what is below is looked at
    size = 1
    if isinstance(node, yaml.MappingNode):
        seen = set[Hashable]()
        for key, value in node.value:
            if isinstance(key.value, str):
                if key.value in seen and key.value != "<<":
                    raise PriorError(f"{path}, line {key.start_mark.line + 1}: {key.value!r} is there twice")
                seen.add(key.value)
            size += _check(path, key, sizes, depth + 1) + _check(path, value, sizes, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_check(path, entry, sizes, depth + 1) for entry in node.value)
    if size > MOST_VALUES:
        raise PriorError(f"{path} has more than {MOST_VALUES:,} values")
    sizes[id(node)] = size
    return size
