"""Defenses by name."""

from __future__ import annotations

from typing import Any, TypeVar

from invertigo.types import ConfigurationError, Defense, Registry

registry: Registry[type[Defense]] = Registry("defenses", "defense")
D = TypeVar("D")


def register(cls: D) -> D:
    """Class decorator that files a defense under its own `name`."""
    return registry.register(cls.name)(cls)  # type: ignore[attr-defined]


def make(defense: str | Defense, **settings: Any) -> Defense:
    """The defense of that name with these settings; a defense object is passed through.

    Raises: UnknownNameError for the name, ConfigurationError for a setting that the defense does not have.
    """
    if isinstance(defense, str):
        return registry.make(defense, **settings)
    if settings:
        raise ConfigurationError(
            f"Settings {sorted(settings)} were given beside a defense object, which has its own; name the defense "
            f"('{defense.name}') or set them when you build it."
        )
    return defense
