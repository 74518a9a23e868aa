"""Core types: what flows from the client to the report."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invertigo.types.active import ActiveAttack
    from invertigo.types.attack import Attack, Progress, Reconstruction, Tick, check_requirements
    from invertigo.types.batch import Batch
    from invertigo.types.defense import ANY_DOMAIN, Defense, DefenseTrace, Step, protects
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
    from invertigo.types.guard import (
        Decision,
        Declared,
        Finding,
        Gate,
        Guard,
        GuardVerdict,
        LayerSignals,
        Local,
        Look,
        Received,
        Signals,
        UseSignals,
    )
    from invertigo.types.handed_over import tensors_in
    from invertigo.types.history import History, Visit
    from invertigo.types.observation import (
        Knowledge,
        Observation,
        Requirement,
        buffers_of,
        read_tensors,
        trainable,
    )
    from invertigo.types.paper import INVERTIGO, Paper
    from invertigo.types.plant import Plant
    from invertigo.types.registry import Registry
    from invertigo.types.task import StepLoss, Task
    from invertigo.types.threat import ThreatLevel
    from invertigo.types.training import LocalTraining, ParameterGroup
    from invertigo.types.update import Update, check_fits, rounding, widened
    from invertigo.types.view import AdversaryView
    from invertigo.types.wrappers import bare, duplicate, renamed

_HOMES = {
    "ANY_DOMAIN": "defense",
    "ActiveAttack": "active",
    "AdversaryView": "view",
    "Attack": "attack",
    "Batch": "batch",
    "ConfigurationError": "errors",
    "CorruptFileError": "errors",
    "Decision": "guard",
    "Look": "guard",
    "Declared": "guard",
    "Defense": "defense",
    "DefenseTrace": "defense",
    "Domain": "domain",
    "Finding": "guard",
    "Gate": "guard",
    "Guard": "guard",
    "GuardVerdict": "guard",
    "History": "history",
    "INVERTIGO": "paper",
    "Identification": "domain",
    "Interval": "domain",
    "InvalidValueError": "errors",
    "InvertigoError": "errors",
    "Knowledge": "observation",
    "LayerSignals": "guard",
    "Local": "guard",
    "LocalTraining": "training",
    "ParameterGroup": "training",
    "Metric": "domain",
    "MismatchError": "errors",
    "MissingDataError": "errors",
    "MissingExtraError": "errors",
    "Observation": "observation",
    "OutputError": "errors",
    "Paper": "paper",
    "Plant": "plant",
    "Progress": "attack",
    "Received": "guard",
    "Reconstruction": "attack",
    "Registry": "registry",
    "Requirement": "observation",
    "RequirementError": "errors",
    "Scores": "domain",
    "Signals": "guard",
    "UseSignals": "guard",
    "Step": "defense",
    "StepLoss": "task",
    "Task": "task",
    "ThreatLevel": "threat",
    "Tick": "attack",
    "UnknownNameError": "errors",
    "Update": "update",
    "bare": "wrappers",
    "Visit": "history",
    "buffers_of": "observation",
    "check_fits": "update",
    "check_requirements": "attack",
    "did_you_mean": "errors",
    "duplicate": "wrappers",
    "protects": "defense",
    "read_tensors": "observation",
    "renamed": "wrappers",
    "rounding": "update",
    "tensors_in": "handed_over",
    "trainable": "observation",
    "widened": "update",
}
__all__ = [
    "ANY_DOMAIN",
    "INVERTIGO",
    "ActiveAttack",
    "AdversaryView",
    "Attack",
    "Batch",
    "ConfigurationError",
    "CorruptFileError",
    "Decision",
    "Declared",
    "Defense",
    "DefenseTrace",
    "Domain",
    "Finding",
    "Gate",
    "Guard",
    "GuardVerdict",
    "History",
    "Identification",
    "Interval",
    "InvalidValueError",
    "InvertigoError",
    "Knowledge",
    "LayerSignals",
    "Local",
    "LocalTraining",
    "Look",
    "Metric",
    "MismatchError",
    "MissingDataError",
    "MissingExtraError",
    "Observation",
    "OutputError",
    "Paper",
    "ParameterGroup",
    "Plant",
    "Progress",
    "Received",
    "Reconstruction",
    "Registry",
    "Requirement",
    "RequirementError",
    "Scores",
    "Signals",
    "Step",
    "StepLoss",
    "Task",
    "ThreatLevel",
    "Tick",
    "UnknownNameError",
    "Update",
    "UseSignals",
    "Visit",
    "bare",
    "buffers_of",
    "check_fits",
    "check_requirements",
    "did_you_mean",
    "duplicate",
    "protects",
    "read_tensors",
    "renamed",
    "rounding",
    "tensors_in",
    "trainable",
    "widened",
]


def __getattr__(name: str) -> Any:
    """Import a type from its file at first use: errors and names can be had without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'invertigo.types' has no attribute '{name}'")
    value = getattr(import_module(f"invertigo.types.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
