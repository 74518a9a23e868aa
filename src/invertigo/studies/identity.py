"""What makes two cells the same: canonical text, and its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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


def key_of(config: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    """Hash of a resolved configuration, without its prose, and of the versions of everything that it names."""
    unused = {name for name in LATER if config.get(name) is None}
    substance = {name: value for name, value in config.items() if name not in PROSE | unused}
    return digest(canonical([substance, versions]).encode())[:DIGITS]


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
