"""What makes two cells the same: canonical text, and its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DIGITS = 24
"""Hexadecimal digits of a key: 96 bits, so that a million cells collide with a chance of 1e-17."""
PROSE = frozenset({"title", "description", "expect", "compare", "budget"})
"""Keys that change no result. A cell that its budget would cut short fails instead, so the budget is one of them."""

LATER = frozenset({"guarded"})
"""Sections that scenarios did not always have. Without a value they change no result, and do not change a key."""


def canonical(value: Any) -> str:
    """The one JSON text of plain data: keys sorted, no spaces, NaN refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def key_of(config: Mapping[str, Any], contents: Mapping[str, str]) -> str:
    """Hash of a resolved configuration, without its prose, and of the contents of everything that it rests on.

    A file counts by what is in it and not by its path, so that a study may be moved, or run from another folder.
    """
    unused = {name for name in LATER if config.get(name) is None}
    substance = {name: value for name, value in config.items() if name not in PROSE | unused}
    files = {name.partition(" ")[2]: value for name, value in contents.items() if name.startswith("file ")}
    rest = {name: value for name, value in contents.items() if not name.startswith(("data ", "file "))}
    data = [value for name, value in contents.items() if name.startswith("data ")]
    return digest(canonical([_pathless(substance, files), rest, data]).encode())[:DIGITS]


def _pathless(substance: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    """The place of a set of one's own is not what makes it: its files are among the contents."""
    data = substance.get("data")
    named = {"data": {**data, "name": Path(data["name"]).name}} if data else {}
    return _by_content({**substance, **named}, files)


def _by_content(value: Any, files: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {name: _by_content(part, files) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_by_content(part, files) for part in value]
    return {"file": files[value]} if isinstance(value, str) and value in files else value


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
