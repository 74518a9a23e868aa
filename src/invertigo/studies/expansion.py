"""From a study to its cells: every combination, resolved, checked and named by its content."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from invertigo.auditing.overrides import explain
from invertigo.auditing.scenario import Scenario
from invertigo.studies.artifacts import victim_of
from invertigo.studies.axes import Label, Point, points
from invertigo.studies.claims import check_claims
from invertigo.studies.columns import check_columns
from invertigo.studies.dotted import laid_over
from invertigo.studies.identity import key_of
from invertigo.studies.plan import blocks_of, in_shard
from invertigo.studies.plugins import Plugins
from invertigo.studies.spec import Study
from invertigo.types import ConfigurationError, did_you_mean

BUDGET = "24h"
"""Time for a cell whose base names none: a net under a hung attack, and never what ends a schedule."""


@dataclass(frozen=True)
class CellSpec:
    """One audit of a study.

    `coordinates` maps axis to label; `block` counts the batches that together make up the study's `examples`.
    `config` is the resolved scenario; `needs` are the keys of the artifacts that must exist first.
    """

    coordinates: Mapping[str, Label]
    seed: int
    config: Mapping[str, Any] = field(repr=False)
    key: str
    needs: tuple[str, ...] = ()
    block: int = 0
    contents: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Fingerprints of what the key was made of beside `config`, see `studies.contents`."""

    @property
    def title(self) -> str:
        """`attacks=dlg, data.count=4, seed 0`."""
        parts = [f"{axis}={label}" for axis, label in self.coordinates.items()]
        return ", ".join([*parts, f"seed {self.seed}"]) + (f", batch {self.block + 1}" if self.block else "")


def expand(study: Study, preset: str | None = None, *, checked: bool = False) -> list[CellSpec]:
    """The cells of a study at a preset, in the order of its axes; seeds and batches vary fastest.

    Everything that can be checked without running is checked here, for every cell: keys, values, and the names and
    settings of attacks, models and data, and the axes that claims speak of. Cells that resolve to the same audit are
    one cell.

    Args:
        checked: data that are not there, or a model's module, are an error too; as before a run.

    Raises: ConfigurationError, UnknownNameError; with `checked` MissingDataError.
    """
    check_claims(study.claims, _labels_at_any_scale(study))
    study, plugins = study.at(preset), Plugins(checked)
    check_columns(study.axes)
    found: dict[str, CellSpec] = {}
    for combination in combinations(study):
        coordinates = {axis: point.label for axis, point in combination.items()}
        where = ", ".join(f"{axis}={label}" for axis, label in coordinates.items())
        resolved = plugins.settled(resolve(study, combination), where)
        contents = plugins.contents(resolved, where)
        for cell in _repeated(study, coordinates, resolved, contents, plugins):
            found.setdefault(f"{cell.key}{coordinates}", cell)
    if not found:
        raise ConfigurationError(f"Every combination of study '{study.name}' is excluded, so there is nothing to run.")
    return list(found.values())


def resolve(study: Study, combination: Mapping[str, Point]) -> dict[str, Any]:
    """The whole scenario of a combination, before what it names is looked up. Raises: ConfigurationError."""
    where = ", ".join(f"{axis}={point.label}" for axis, point in combination.items())
    base = {"budget": BUDGET, **laid_over({}, study.base)}
    return _resolved(_moved(base, combination), f"Study '{study.name}'" + (f" at {where}" if where else ""))


def _labels_at_any_scale(study: Study) -> dict[str, list[Any]]:
    """The labels of each axis at the study's own scale and at every preset; a claim may need a larger one."""
    found: dict[str, dict[Any, None]] = {}
    for preset in (None, *study.presets):
        for axis, items in study.at(preset).axes.items():
            found.setdefault(axis, {}).update(dict.fromkeys(point.label for point in points(axis, items)))
    return {axis: list(labels) for axis, labels in found.items()}


def shard_of(cells: Sequence[CellSpec], shard: tuple[int, int] | None) -> list[CellSpec]:
    """Part i of n, counted from 1; decided by a cell's own key, so it is the same on every machine.

    A cell keeps its part when axes change, and the parts need not know of each other.
    """
    if shard is None:
        return list(cells)
    return [cell for cell in cells if in_shard(cell.key, shard)]


def combinations(study: Study) -> Iterator[dict[str, Point]]:
    """Every combination of axis values that is not excluded, the last axis varying fastest."""
    axes = {name: points(name, items) for name, items in study.axes.items()}
    groups = _groups(axes, study.zip)
    excluded = [_exclusion(axes, rule) for rule in study.exclude]
    for chosen in itertools.product(*groups):
        merged = {name: point for part in chosen for name, point in part.items()}
        combination = {name: merged[name] for name in axes}
        if not any(_matches(rule, combination) for rule in excluded):
            yield combination


def _groups(axes: Mapping[str, list[Point]], zipped: Sequence[Sequence[str]]) -> list[list[dict[str, Point]]]:
    """The factors of the product: an axis of its own, or axes that move together."""
    home: dict[str, Sequence[str]] = {}
    for names in zipped:
        for name in names:
            _known_axis(name, axes, "zip")
            if name in home:
                raise ConfigurationError(f"The axis '{name}' stands in `zip` twice; it can move with one group only.")
            home[name] = names
        lengths = {name: len(axes[name]) for name in names}
        if len(set(lengths.values())) > 1:
            raise ConfigurationError(f"Axes in `zip` must be of equal length, but these are not: {lengths}.")
    groups = []
    for name in axes:
        names = home.get(name, [name])
        if name == next(axis for axis in axes if axis in names):
            groups.append([dict(zip(names, together)) for together in zip(*(axes[n] for n in names))])
    return groups


def _exclusion(axes: Mapping[str, list[Point]], rule: Mapping[str, Any]) -> dict[str, list[Any]]:
    read: dict[str, list[Any]] = {}
    for name, values in rule.items():
        _known_axis(name, axes, "exclude")
        read[name] = values if isinstance(values, list) else [values]
        labels = [point.label for point in axes[name]]
        for value in read[name]:
            if value not in labels:
                near = did_you_mean(str(value), map(str, labels))
                raise ConfigurationError(
                    f"exclude: the axis '{name}' has no value {value!r}.{near} It has {', '.join(map(str, labels))}."
                )
    return read


def _matches(rule: Mapping[str, list[Any]], combination: Mapping[str, Point]) -> bool:
    return all(combination[name].label in values for name, values in rule.items())


def _known_axis(name: str, axes: Mapping[str, Any], where: str) -> None:
    if name not in axes:
        raise ConfigurationError(
            f"{where}: there is no axis '{name}'.{did_you_mean(name, axes)} The axes are {', '.join(axes) or 'none'}."
        )


def _moved(base: Mapping[str, Any], combination: Mapping[str, Point]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for name, point in combination.items():
        both = sorted(set(changes) & set(point.changes))
        if both:
            raise ConfigurationError(f"Two axes set '{both[0]}', '{name}' among them; only one of them can.")
        changes |= point.changes
    return laid_over(base, changes)


def _resolved(mapping: Mapping[str, Any], what: str) -> dict[str, Any]:
    try:
        return Scenario.model_validate(mapping).resolved() | {"compare": []}
    except ValidationError as error:
        raise ConfigurationError(explain(error, what)) from error


def _repeated(
    study: Study,
    coordinates: Mapping[str, Label],
    resolved: Mapping[str, Any],
    contents: Mapping[str, str],
    plugins: Plugins,
) -> Iterator[CellSpec]:
    """The same point with every seed, on as many batches as the study's examples take."""
    data = resolved["data"]
    batch = data["count"] * resolved["adversary"]["clients"] if not data["indices"] else 0
    blocks = blocks_of(study, data)
    for seed, block in itertools.product(study.seeds, range(blocks)):
        config = dict(resolved)
        config["seed"] = seed
        if blocks > 1 or (study.examples is not None and not data["indices"]):
            # One pool for all batches, so that their public examples and their trained victim are the same.
            config["data"] = data | {"skip": block * batch, "pool": blocks * batch}
        key, needs = key_of(config, contents), _needs(config, plugins)
        spec = CellSpec(coordinates, seed, config, key, needs, block, contents)
        config["title"] = f"{study.title or study.name}: {spec.title}"
        yield spec


def _needs(config: Mapping[str, Any], plugins: Plugins) -> tuple[str, ...]:
    victim = victim_of(config)
    return () if victim is None else (key_of(victim, plugins.contents({"attacks": [], "guarded": None, **victim})),)
