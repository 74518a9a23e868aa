"""Parts of a study: which cells have given coordinates, and what a coordinate is called."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from invertigo.studies.values import Reading, Value, read
from invertigo.types.errors import ConfigurationError, did_you_mean

if TYPE_CHECKING:
    from invertigo.studies.store import CellResult

RECORDED = ("attack", "level", "informed")
"""Axes that every audit has inside: which attack, on which rung, by an adversary who knows the defense or not.

An axis of the study with that name goes first.
"""


def label(value: Any) -> str:
    """A coordinate as people read it: a mapping by its name and other settings, a list by its members."""
    if isinstance(value, Mapping):
        rest = [f"{key}={label(v)}" for key, v in value.items() if key != "name"]
        return " ".join([str(value["name"])] * ("name" in value) + rest)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(label, value))
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def plain(value: Any) -> str:
    """A coordinate as text that two equal coordinates share, whatever order their keys were written in."""
    return json.dumps(value, sort_keys=True, default=str)


def matches(coordinate: Any, wanted: Any) -> bool:
    """Is this the coordinate that `wanted` means: the value itself, its label, its name, or one of a list of them."""
    if coordinate == wanted and isinstance(coordinate, bool) == isinstance(wanted, bool):
        return True
    if isinstance(wanted, (list, tuple)) and not isinstance(coordinate, (list, tuple)):
        return any(matches(coordinate, one) for one in wanted)
    if isinstance(wanted, str):
        named = coordinate.get("name") if isinstance(coordinate, Mapping) else None
        return wanted in (named, label(coordinate))
    return False


def axes_of(results: Iterable[CellResult]) -> dict[str, list[Any]]:
    """Every axis with its values, both in the order of the study."""
    found: dict[str, dict[Any, Any]] = {}
    for result in results:
        for axis, value in result.coordinates.items():
            # The type keeps 1, 1.0 and yes apart; text is only made of what cannot be hashed.
            key = plain(value) if isinstance(value, (Mapping, list, tuple)) else (type(value), value)
            found.setdefault(axis, {}).setdefault(key, value)
    return {axis: list(values.values()) for axis, values in found.items()}


def check_axes(names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raises: ConfigurationError for an axis that the study does not have."""
    options = [*known, *(name for name in (*RECORDED, "seed") if name not in known)]
    for name in names:
        if name not in options:
            raise ConfigurationError(
                f"{what}: the study has no axis '{name}'.{did_you_mean(name, options)} Known: {', '.join(options)}."
            )


def select(results: Sequence[CellResult], where: Mapping[str, Any]) -> list[CellResult]:
    """The cells whose coordinates are as in `where`; what an audit records inside (`RECORDED`) does not count."""
    return [result for result in results if all(_has(result, axis, wanted) for axis, wanted in where.items())]


def reading(result: CellResult, value: Value, where: Mapping[str, Any]) -> Reading:
    """`value` of one cell, for the attack and the rung that `where` names."""
    if result.record is None:
        return Reading(None, reason=_absent(result))
    inside = {axis: where.get(axis) for axis in RECORDED if axis not in result.coordinates}
    found = read(result.record, value, **inside)
    if found.number is not None and not math.isfinite(found.number):
        return Reading(None, reason=f"{value} is {found.number}, which has no mean")
    return found


def coordinate(result: CellResult, axis: str) -> Any:
    """A cell's value on an axis of the study, or its seed; None where it has none."""
    if axis in result.coordinates:
        return result.coordinates[axis]
    return result.seed if axis == "seed" else None


def place(result: CellResult, without: Iterable[str] = ()) -> str:
    """A cell's coordinates and seed in words, less the axes in `without`."""
    parts = [f"{axis}={label(v)}" for axis, v in result.coordinates.items() if axis not in set(without)]
    return ", ".join([*parts, f"seed={result.seed}"])


def _has(result: CellResult, axis: str, wanted: Any) -> bool:
    if axis in RECORDED and axis not in result.coordinates:
        return True
    return matches(coordinate(result, axis), wanted)


def _absent(result: CellResult) -> str:
    if result.failure is None:
        return "not computed yet"
    last = result.failure.strip().splitlines()[-1:] or ["no reason kept"]
    return f"failed: {last[0]}"
