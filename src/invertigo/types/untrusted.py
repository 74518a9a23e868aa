"""The door for files that somebody else wrote: regular files only, up to a size, and nothing that swells on reading."""

from __future__ import annotations

import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from invertigo.types.errors import CorruptFileError

MEBIBYTE = 2**20
LARGEST_TEXT = 64 * MEBIBYTE
"""Of a file that is read whole: text, YAML, JSON, a published pickle."""
ALWAYS_FINE = 64 * MEBIBYTE
"""Unpacked bytes that no ratio is asked of."""
LARGEST_RATIO = 100
"""Pictures shrink tenfold at most when they are packed; more than this is made to fill the memory."""
LARGEST_IMAGE = 25_000_000
"""Pixels of one picture, 300 MB as three channels of float32."""
DEEPEST, MOST_NODES = 50, 100_000
"""Levels and entries of a YAML file, aliases counted as often as they are repeated."""


def check_file(path: str | Path, *, largest: int | None = None) -> Path:
    """The path of a regular file of at most `largest` bytes; a pipe or a device would be waited for without end.

    Raises: CorruptFileError.
    """
    path = Path(path)
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CorruptFileError(f"{_shown(path)} cannot be read ({reason}); check the path.") from error
    if not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
        raise CorruptFileError(f"{_shown(path)} is {what}; pass the path of a file.")
    if largest is not None and found.st_size > largest:
        raise CorruptFileError(
            f"{_shown(path)} has {found.st_size / MEBIBYTE:.0f} MiB; files of its kind are read up to "
            f"{largest // MEBIBYTE} MiB. Cut it down, or check that it is the file you mean."
        )
    return path


def read_bytes(path: str | Path, *, largest: int = LARGEST_TEXT) -> bytes:
    """The whole of a small file. Raises: CorruptFileError."""
    path = check_file(path, largest=largest)
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorruptFileError(f"{_shown(path)} cannot be read ({error.strerror}); check the path.") from error


def read_text(path: str | Path, *, largest: int = LARGEST_TEXT) -> str:
    """The whole of a small UTF-8 file. Raises: CorruptFileError."""
    try:
        return read_bytes(path, largest=largest).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorruptFileError(f"{_shown(Path(path))} is no UTF-8 text ({error}). Save it as UTF-8.") from error


def check_unpacked(path: Path, announced: int) -> None:
    """Refuse an archive that announces far more bytes than its own size can hold in pictures. Raises: ValueError."""
    packed = path.stat().st_size
    if announced > max(ALWAYS_FINE, LARGEST_RATIO * packed):
        raise ValueError(f"its {packed} bytes announce {announced / MEBIBYTE:.0f} MiB, which no pictures shrink to")


def read_yaml(text: str) -> Any:
    """Plain YAML data: no tags, no recursion, and aliases only as far as they keep the whole small.

    Raises: ValueError with the reason in one line.
    """
    import yaml

    if len(text) > LARGEST_TEXT // 64:
        raise ValueError(f"it has {len(text)} characters; a file of settings has at most {LARGEST_TEXT // 64}")
    try:
        _check_size(yaml.compose(text, Loader=yaml.SafeLoader))
        return yaml.safe_load(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    # PyYAML's constructors let dates, numbers and keys that Python refuses through as they come.
    except (ValueError, TypeError, OverflowError, AttributeError, KeyError) as error:
        raise ValueError(f"a value cannot be read ({error})") from error


def _check_size(root: Any) -> None:
    """Count the entries below a composed node as they would be written out, each alias in full."""
    import yaml

    weights: dict[int, int] = {}

    def weight(node: Any, path: frozenset[int]) -> int:
        if id(node) in path:
            raise yaml.YAMLError("an alias that holds itself")
        if len(path) > DEEPEST:
            raise yaml.YAMLError(f"more than {DEEPEST} levels")
        if id(node) not in weights:
            below = path | {id(node)}
            inner: list[Any] = []
            if isinstance(node, yaml.MappingNode):
                inner = [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                inner = node.value
            weights[id(node)] = 1 + sum(weight(part, below) for part in inner)
        return weights[id(node)]

    if root is not None and weight(root, frozenset()) > MOST_NODES:
        raise yaml.YAMLError(f"more than {MOST_NODES} entries once its aliases are written out")


def _shown(path: Hashable) -> str:
    """A path that cannot write over the terminal."""
    return "".join(c if c.isprintable() else "?" for c in str(path))
