"""Sections of Flower's flat configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def keys_of(config: Mapping[str, Any], section: str) -> dict[str, Any]:
    """What a flat configuration holds under `section.`, without that prefix."""
    return {key.removeprefix(f"{section}."): value for key, value in config.items() if key.startswith(f"{section}.")}
