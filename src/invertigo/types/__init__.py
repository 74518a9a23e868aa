"""Core types: what flows from the client to the report."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invertigo.types.attack import Attack, Progress, Reconstruction, Tick, check_requirements
    from invertigo.types.batch import Batch
    from invertigo.types.defense import Defense, DefenseTrace, Step
    from invertigo.types.domain import Domain, Identification, Interval, Metric, Scores
    from invertigo.types.errors import (
        ConfigurationError,
        CorruptFileError,
        InvalidValueError,
        InvertigoError,
        MismatchError,
        MissingDataError,
        MissingExtraError,
        OutputError,
        RequirementError,
        UnknownNameError,
        did_you_mean,
    )
    from invertigo.types.observation import (
        Knowledge,
        Observation,
        Requirement,
        buffers_of,
        read_tensors,
        trainable,
    )
    from invertigo.types.paper import INVERTIGO, Paper
    from invertigo.types.registry import Registry
    from invertigo.types.task import Task
    from invertigo.types.threat import ThreatLevel
    from invertigo.types.training import LocalTraining
    from invertigo.types.update import Update, check_fits
    from invertigo.types.view import AdversaryView

_HOMES = {
    "AdversaryView": "view",
    "Attack": "attack",
    "Batch": "batch",
    "ConfigurationError": "errors",
    "CorruptFileError": "errors",
    "Defense": "defense",
    "DefenseTrace": "defense",
    "Domain": "domain",
    "INVERTIGO": "paper",
    "Identification": "domain",
    "Interval": "domain",
    "InvalidValueError": "errors",
    "InvertigoError": "errors",
    "Knowledge": "observation",
    "LocalTraining": "training",
    "Metric": "domain",
    "MismatchError": "errors",
    "MissingDataError": "errors",
    "MissingExtraError": "errors",
    "Observation": "observation",
    "OutputError": "errors",
    "Paper": "paper",
    "Progress": "attack",
    "Reconstruction": "attack",
    "Registry": "registry",
    "Requirement": "observation",
    "RequirementError": "errors",
    "Scores": "domain",
    "Step": "defense",
    "Task": "task",
    "ThreatLevel": "threat",
    "Tick": "attack",
    "UnknownNameError": "errors",
    "Update": "update",
    "buffers_of": "observation",
    "check_fits": "update",
    "check_requirements": "attack",
    "did_you_mean": "errors",
    "read_tensors": "observation",
    "trainable": "observation",
}
__all__ = [
    "INVERTIGO",
    "AdversaryView",
    "Attack",
    "Batch",
    "ConfigurationError",
    "CorruptFileError",
    "Defense",
    "DefenseTrace",
    "Domain",
    "Identification",
    "Interval",
    "InvalidValueError",
    "InvertigoError",
    "Knowledge",
    "LocalTraining",
    "Metric",
    "MismatchError",
    "MissingDataError",
    "MissingExtraError",
    "Observation",
    "OutputError",
    "Paper",
    "Progress",
    "Reconstruction",
    "Registry",
    "Requirement",
    "RequirementError",
    "Scores",
    "Step",
    "Task",
    "ThreatLevel",
    "Tick",
    "UnknownNameError",
    "Update",
    "buffers_of",
    "check_fits",
    "check_requirements",
    "did_you_mean",
    "read_tensors",
    "trainable",
]


def __getattr__(name: str) -> Any:
    """Import a type from its file at first use: errors and names can be had without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'invertigo.types' has no attribute '{name}'")
    value = getattr(import_module(f"invertigo.types.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
