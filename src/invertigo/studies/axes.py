"""Axes of a study: the values that a coordinate takes, and the scenario keys that each of them moves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from invertigo.auditing.overrides import NAMED
from invertigo.auditing.scenario import Scenario
from invertigo.studies.dotted import check_key
from invertigo.types.errors import ConfigurationError

Label = str | int | float | bool | None
"""How a coordinate's value is called in tables: itself if it is a scalar, else its label."""
_ITEM = {"label", "set"}


@dataclass(frozen=True)
class Point:
    """One value of an axis: its label, and the dotted keys that it sets."""

    label: Label
    changes: Mapping[str, Any]


def points(axis: str, items: Sequence[Any]) -> list[Point]:
    """The values of `axis` in the order given.

    An item is a value of the scenario key that the axis is named after, or `{label: ..., set: {dotted: value}}` to
    move several keys together under any name. On the axis `attacks` an item may also be one attack. What has a name
    is called by it, and by its settings too only where two have the same name.

    Raises: ConfigurationError for an unknown key (with the nearest one), an empty axis, or two equal labels.
    """
    if not items:
        raise ConfigurationError(f"The axis '{axis}' has no values, so the study would have no cells; give it one.")
    found = _distinguished([_point(axis, item) for item in items], items)
    labels = [repr(point.label) for point in found]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ConfigurationError(
            f"The axis '{axis}' has {twice[0]} twice, so a table could not tell them apart. "
            "Remove one, or label them: {label: ..., set: {...}}."
        )
    return found


def _point(axis: str, item: Any) -> Point:
    if isinstance(item, Mapping) and "set" in item:
        return _labelled(axis, item)
    check_key(Scenario, axis, "axes.")
    if axis in NAMED and item is None:
        return Point("none", {axis: None})
    if axis == "attacks" and item != "auto" and not isinstance(item, list):
        item = [item]
    return Point(_label(item), {axis: item})


def _distinguished(found: list[Point], items: Sequence[Any]) -> list[Point]:
    names = [point.label for point in found]
    settings = [_settings(item) for item in items]
    return [
        Point(f"{point.label} ({mine})", point.changes) if mine and names.count(point.label) > 1 else point
        for point, mine in zip(found, settings)
    ]


def _settings(item: Any) -> str:
    """What stands beside the name of one thing."""
    one = item[0] if isinstance(item, list) and len(item) == 1 else item
    if not isinstance(one, Mapping) or not isinstance(one.get("name"), str) or "set" in one:
        return ""
    return ", ".join(f"{key}={_label(value)}" for key, value in one.items() if key != "name")


def _labelled(axis: str, item: Mapping[str, Any]) -> Point:
    extra = sorted(set(item) - _ITEM)
    if extra or not isinstance(item["set"], Mapping):
        raise ConfigurationError(
            f"A value of the axis '{axis}' must be {{label: ..., set: {{key: value, ...}}}}, but is {dict(item)!r}."
        )
    for key in item["set"]:
        check_key(Scenario, str(key), f"axes.{axis}.set.")
    label = item.get("label")
    if isinstance(label, Mapping | list):
        raise ConfigurationError(f"A label of the axis '{axis}' is {label!r}; write a text or a number.")
    return Point(_label(dict(item["set"])) if label is None else label, dict(item["set"]))


def _label(value: Any) -> Label:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Sequence) and len(value) == 1:
        return _label(value[0])
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return str(value["name"])
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={_label(v)}" for k, v in value.items())
    return json.dumps(value, sort_keys=True, default=str)
