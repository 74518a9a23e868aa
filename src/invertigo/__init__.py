"""Invertigo: how much private data can be rebuilt from federated-learning updates, by whom, and what stops it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Batch": "invertigo.types",
    "Images": "invertigo.domains",
    "InvertigoError": "invertigo.types",
    "Knowledge": "invertigo.types",
    "LocalTraining": "invertigo.types",
    "Observation": "invertigo.types",
    "Reconstruction": "invertigo.types",
    "Task": "invertigo.types",
    "ThreatLevel": "invertigo.types",
    "Update": "invertigo.types",
    "audit": "invertigo.auditing",
    "doctor": "invertigo.auditing",
    "evaluate": "invertigo.evaluation",
    "reconstruct": "invertigo.attacks",
    "watch": "invertigo.federation",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name from its room at first use, so that `import invertigo` stays light."""
    if name == "__version__":
        from importlib.metadata import version

        return version("invertigo")
    if name not in _HOMES:
        raise AttributeError(f"module 'invertigo' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
