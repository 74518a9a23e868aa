"""Optional dependencies, imported where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from invertigo.types.errors import MissingExtraError


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or name the extra that installs it. Raises: MissingExtraError."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"This needs '{module.split('.')[0]}', which is not installed: pip install 'invertigo[{extra}]'."
        ) from error
