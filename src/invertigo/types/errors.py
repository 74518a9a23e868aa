"""Errors that say what was wrong, why it matters and what to do. All derive from `InvertigoError`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InvertigoError(Exception):
    """Base of every error that Invertigo raises on purpose; the command line turns it into exit code 2."""


class MismatchError(InvertigoError, ValueError):
    """A model, an update and a batch that do not belong together (names, shapes, missing or extra tensors)."""


class InvalidValueError(InvertigoError, ValueError):
    """A value outside what is meaningful: NaN, an empty batch, a label outside the classes, a negative rate."""


class RequirementError(InvertigoError):
    """An attack was asked to read an observation that lacks what the attack requires."""


class UnknownNameError(InvertigoError, LookupError):
    """A name that no registry, data set, model or scenario carries."""


class ConfigurationError(InvertigoError, ValueError):
    """A scenario, a `--set` or a `--fail-if` that cannot be understood."""


class CorruptFileError(InvertigoError):
    """A file that is not what its name promises."""


class OutputError(InvertigoError):
    """A result that cannot be written where it was asked for."""


class MissingDataError(InvertigoError):
    """A data set that is not on this machine."""


class MissingExtraError(InvertigoError, ImportError):
    """An optional dependency that is not installed."""


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """` Did you mean 'x'?` when an option is close to `name`, else the empty string."""
    close = difflib.get_close_matches(name, list(options), n=1, cutoff=0.55)
    return f" Did you mean '{close[0]}'?" if close else ""
