"""Invertigo: how much private data can be rebuilt from federated-learning updates, by whom, and what stops it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # What editors and type checkers see; at run time `__getattr__` imports a name at its first use.
    from invertigo.attacks import reconstruct
    from invertigo.auditing import audit, doctor
    from invertigo.domains import Images
    from invertigo.evaluation import evaluate
    from invertigo.federation import watch
    from invertigo.types import (
        Batch,
        InvertigoError,
        Knowledge,
        LocalTraining,
        Observation,
        Reconstruction,
        Task,
        ThreatLevel,
        Update,
    )

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
__all__ = [
    "Batch",
    "Images",
    "InvertigoError",
    "Knowledge",
    "LocalTraining",
    "Observation",
    "Reconstruction",
    "Task",
    "ThreatLevel",
    "Update",
    "audit",
    "doctor",
    "evaluate",
    "reconstruct",
    "watch",
]


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
