"""Guards by name."""

from __future__ import annotations

from typing import Any, TypeVar

from invertigo.types import ConfigurationError, Guard, Registry

registry: Registry[type[Guard]] = Registry("guards", "guard")
G = TypeVar("G")


def register(cls: G) -> G:
    """Class decorator that files a guard under its own `name`."""
    return registry.register(cls.name)(cls)  # type: ignore[attr-defined]


def make(guard: str | Guard, **settings: Any) -> Guard:
    """The guard of that name with these settings; a guard object is passed through.

    Raises: UnknownNameError for the name, ConfigurationError for a setting that the guard does not have.
    """
    if isinstance(guard, str):
        return registry.make(guard, **settings)
    if settings:
        raise ConfigurationError(
            f"Settings {sorted(settings)} were given beside a guard object, which has its own; name the guard "
            f"('{guard.name}') or set them when you build it."
        )
    return guard
