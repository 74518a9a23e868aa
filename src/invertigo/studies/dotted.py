"""Dotted keys of a scenario: whether one exists, and values laid over a mapping that others keep sharing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_origin

from pydantic import BaseModel

from invertigo.auditing.overrides import held_under, sections
from invertigo.types import ConfigurationError, did_you_mean


def laid_over(mapping: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`mapping` with `changes` by dotted or nested key. Only what changes is copied, so that grids stay cheap.

    A list or a scalar replaces what was there; a mapping is merged into a mapping.
    """
    result = dict(mapping)
    for key, value in changes.items():
        head, _, rest = str(key).partition(".")
        if rest:
            value = {rest: value}
        below = result.get(head)
        result[head] = laid_over(held_under(head, below, value), value) if isinstance(value, Mapping) else value
    return result


def key_problem(model: type[BaseModel], key: str) -> str | None:
    """Why `key` is no dotted key of `model`, with the nearest one that is; None when it is one."""
    section, done = model, ""
    for part in key.split("."):
        fields = section.model_fields
        if part not in fields:
            if section.model_config.get("extra") == "allow":
                return None
            near = did_you_mean(part, fields)
            return near.replace("'", f"'{done}", 1) if near else f" Known: {', '.join(fields)}."
        below = sections(fields[part].annotation)
        done += f"{part}."
        if not below:
            # What a section without a model holds (the options of a network) is checked by whoever reads it.
            return None if _open(fields[part].annotation) or done == f"{key}." else f" '{done[:-1]}' holds no keys."
        section = below[0]
    return None


def check_key(model: type[BaseModel], key: str, prefix: str) -> None:
    """Refuse a dotted key that `model` does not have. Raises: ConfigurationError naming it and its nearest in full."""
    problem = key_problem(model, key)
    if problem is not None:
        named = problem.replace(" Did you mean '", f" Did you mean '{prefix}", 1)
        raise ConfigurationError(f"Unknown key '{prefix}{key}'.{named}")


def _open(annotation: Any) -> bool:
    return get_origin(annotation) is dict or annotation is dict
