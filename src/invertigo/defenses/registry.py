"""Defenses by name."""

from __future__ import annotations

from typing import Any

from invertigo.types import Defense, Registry

registry: Registry[type[Defense]] = Registry("defenses", "defense")
register = registry.enter


def make(defense: str | Defense, **settings: Any) -> Defense:
    """The defense of that name with these settings; a defense object is passed through.

    Raises: UnknownNameError for the name, ConfigurationError for a setting that the defense does not have.
    """
    return registry.make(defense, **settings)
