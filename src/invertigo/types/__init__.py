"""Core types: what flows from the client to the report."""

from invertigo.types.attack import Attack, Progress, Reconstruction, Tick, check_requirements
from invertigo.types.batch import Batch
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

__all__ = [
    "INVERTIGO",
    "Attack",
    "Batch",
    "ConfigurationError",
    "CorruptFileError",
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
