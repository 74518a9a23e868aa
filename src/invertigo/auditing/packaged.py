"""YAML that is called by name when it comes with a package, and by path when it is the user's own."""

from __future__ import annotations

from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from invertigo.types import ConfigurationError, CorruptFileError, UnknownNameError, did_you_mean
from invertigo.types.untrusted import read_text, read_yaml


def packaged_names(folder: Traversable) -> list[str]:
    """Names of the YAML files of `folder`, without their suffix."""
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_mapping(source: str | Path, kind: str, folder: Traversable) -> tuple[dict[str, Any], str]:
    """The mapping that a packaged name or a path stands for, and what to call it in messages (`Study 'x'`).

    Raises: UnknownNameError for a name nobody has; ConfigurationError for a file that cannot be read as a mapping.
    """
    text, what = _read(source, kind, folder)
    try:
        mapping = read_yaml(text)
    except ValueError as error:
        raise ConfigurationError(f"{what} is no valid YAML: {error}.") from error
    if not isinstance(mapping, dict):
        raise ConfigurationError(f"{what} must hold `key: value` lines, but holds {type(mapping).__name__}.")
    return mapping, what


def _read(source: str | Path, kind: str, folder: Traversable) -> tuple[str, str]:
    names = packaged_names(folder)
    if str(source) in names:
        return (folder / f"{source}.yaml").read_text(encoding="utf-8"), f"{kind.capitalize()} '{source}'"
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        raise UnknownNameError(
            f"There is no {kind} '{source}'.{did_you_mean(str(source), names)} "
            f"Known: {', '.join(names)}; or give the path of a .yaml file."
        )
    try:
        return read_text(path), f"{kind.capitalize()} file {path.name}"
    except CorruptFileError as error:
        raise ConfigurationError(f"The {kind} file cannot be read: {error}") from error
