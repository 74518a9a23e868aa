"""`--set key=value`: dotted keys laid over a scenario, and typos in any key named in full."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from invertigo.types import ConfigurationError, did_you_mean
from invertigo.types.untrusted import read_yaml

NAMED = frozenset({"defense"})
"""Sections that may be written as a bare name, and whose keys belong to what is named."""


def held_under(key: str, held: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What `changes` to the section `key` are laid over.

    A bare name stands for a section with that name only; settings of one name do not carry over to another.
    """
    if key in NAMED and isinstance(held, str):
        held = {"name": held}
    if not isinstance(held, Mapping):
        return {}
    renamed = key in NAMED and changes.get("name", held.get("name")) != held.get("name")
    return {} if renamed else dict(held)


def apply_overrides(mapping: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `mapping` with each `dotted.key=value` set; values are read as YAML, numbers index into lists."""
    result = deepcopy(dict(mapping))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise ConfigurationError(f"The setting {override!r} has no '='; write key=value, e.g. local.mode=eval.")
        try:
            value = read_yaml(text)
        except ValueError as error:
            raise ConfigurationError(f"The value of {key.strip()!r} is no YAML: {text!r}. Quote it.") from error
        _place(result, key.strip().split("."), value)
    return result


def _place(node: Any, path: list[str], value: Any) -> None:
    dotted = ".".join(path)
    for position, part in enumerate(path):
        last = position == len(path) - 1
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                raise ConfigurationError(f"{dotted!r}: {part!r} is no position in a list of {len(node)} entries.")
            index: Any = int(part)
        elif isinstance(node, dict):
            index = part
        else:
            raise ConfigurationError(
                f"{dotted!r} cannot be set: {'.'.join(path[:position])!r} holds the value {node!r}, not a section."
            )
        if last:
            node[index] = value
        elif isinstance(node, dict) and node.get(index) is None:
            node[index] = {}
        elif isinstance(node[index], str) and (isinstance(node, list) or index in NAMED):
            node[index] = {"name": node[index]}
        node = node[index]


def unknown_keys(model: type[BaseModel], mapping: Any, prefix: str = "") -> Iterator[str]:
    """One sentence for each key of `mapping` that `model` does not have, by its full dotted name."""
    if not isinstance(mapping, Mapping) or model.model_config.get("extra") == "allow":
        return
    for key, value in mapping.items():
        if key not in model.model_fields:
            near = did_you_mean(str(key), model.model_fields)
            near = near.replace("'", f"'{prefix}", 1) if near else f" Known: {', '.join(model.model_fields)}."
            yield f"Unknown key '{prefix}{key}'.{near}"
            continue
        for section in sections(model.model_fields[key].annotation):
            yield from unknown_keys(section, value, f"{prefix}{key}.")


def sections(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field of this type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType):
        return [section for part in get_args(annotation) for section in sections(part)]
    return []


def explain(error: ValidationError, what: str) -> str:
    """A validation error as one sentence per bad value, with its dotted key and the value found."""
    seen: dict[str, str] = {}
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"] if not _is_tag(part)) or "the whole"
        message = problem["msg"].removeprefix("Value error, ")
        seen.setdefault(place, f"'{place}' is {_short(problem['input'])}: {message[:1].lower() + message[1:]}")
    return f"{what}: {'; '.join(seen.values())}."


def _is_tag(part: Any) -> bool:
    return isinstance(part, str) and (part[:1].isupper() or "[" in part or part in ("str", "int", "bool", "float"))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
