"""Guards by name."""

from __future__ import annotations

from typing import Any

from invertigo.types import Guard, Registry

registry: Registry[type[Guard]] = Registry("guards", "guard")
register = registry.enter


def make(guard: str | Guard, **settings: Any) -> Guard:
    """The guard of that name with these settings; a guard object is passed through.

    Raises: UnknownNameError for the name, ConfigurationError for a setting that the guard does not have.
    """
    return registry.make(guard, **settings)
