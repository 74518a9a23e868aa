"""The study behind a privacy-utility frontier: one client under many defenses, each from weak to strong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from invertigo import defenses
from invertigo.auditing.local_section import LocalSection
from invertigo.auditing.scenario import DataSection, Scenario, UtilitySection
from invertigo.studies.spec import Study, parse_study
from invertigo.types import ConfigurationError, UnknownNameError, did_you_mean, protects

AXIS = "defense"
NONE = "none"
SEPARATOR = " · "
"""Between the name of a defense and its strength in the label of a point."""
CHANGES: Mapping[str, str] = {
    "secure_aggregation": "the server sees only the sum over so many clients",
    "local_steps": "the client takes so many local epochs and sends the difference",
    "batch_size": "the client computes its update on so many times as many examples",
}
"""Ways of training that protect like a defense, with what they change."""
STEPS = (2, 4, 8)
"""Clients, epochs or times as many examples that stand for their strengths."""


def frontier_study(
    scenario: Scenario,
    wanted: Sequence[str] | None = None,
    *,
    points: int = 3,
    iterations: int = 300,
    seeds: Sequence[int] = (0,),
) -> Study:
    """A grid of `scenario` without a defense, and with each of `wanted` at up to `points` strengths.

    Args:
        wanted: names of defenses and of `CHANGES`; None is all that are made for images.
        iterations: of the attack, where the scenario leaves the attacks to the audit.
        seeds: each draws other examples.

    Raises: UnknownNameError; ConfigurationError.
    """
    if points < 1:
        raise ConfigurationError(f"A curve of {points} points is none; ask for at least 1.")
    names = [*_fitting(), *CHANGES] if wanted is None else list(dict.fromkeys(wanted))
    items = [{"label": NONE, "set": {"defense": None}}]
    items += [item for name in names if name != NONE for item in _items(name, scenario, points)]
    return parse_study(
        {
            "name": "frontier",
            "title": f"What protects this client, and at what price: {scenario.title or 'a scenario'}",
            "base": _base(scenario, items, iterations),
            "axes": {AXIS: items},
            "seeds": list(seeds),
        },
        "The frontier",
    )


def _fitting() -> list[str]:
    return [name for name in defenses.registry if protects(defenses.registry[name], "images")]


def _items(name: str, scenario: Scenario, points: int) -> Iterator[dict[str, Any]]:
    if name in CHANGES:
        for factor in _spread(STEPS, points):
            yield {"label": f"{name}{SEPARATOR}{factor}", "set": _change(name, factor, scenario)}
        return
    if name not in defenses.registry:
        known = [*defenses.registry, *CHANGES]
        raise UnknownNameError(
            f"There is no defense '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}, or all."
        )
    kind = defenses.registry[name]
    if not kind.strengths:
        yield {"label": name, "set": {"defense": {"name": name}}}
    for value in _spread(kind.strengths, points):
        settings = {"name": name, **_own(scenario, name), kind.strength: value}
        yield {"label": f"{name}{SEPARATOR}{kind.strength}={_text(value)}", "set": {"defense": settings}}


def _own(scenario: Scenario, name: str) -> dict[str, Any]:
    """Settings that the scenario itself gives this defense."""
    section = scenario.defended
    return section.settings if section is not None and section.name == name else {}


def _spread(values: Sequence[Any], points: int) -> list[Any]:
    """At most so many of `values`, from the first to the last; the middle one where only one is asked for."""
    if points >= len(values):
        return list(values)
    if points == 1:
        return [values[len(values) // 2]]
    return [values[round(i * (len(values) - 1) / (points - 1))] for i in range(points)]


def _change(name: str, factor: int, scenario: Scenario) -> dict[str, Any]:
    if name == "secure_aggregation":
        return {"defense": None, "adversary.clients": factor, "adversary.levels": [0]}
    if name == "local_steps":
        return {"defense": None, "local.sends": "difference", "local.epochs": factor}
    utility = scenario.utility or UtilitySection.model_validate({})
    wider = {"utility.batch_size": utility.batch_size * factor}
    return {"defense": None, "data.indices": None, "data.count": _count(scenario.data) * factor, **wider}


def _count(data: DataSection) -> int:
    return len(data.indices) if data.indices else data.count


def _base(scenario: Scenario, items: Sequence[Mapping[str, Any]], iterations: int) -> dict[str, Any]:
    base = scenario.model_dump(mode="json", exclude_unset=True)
    base.pop("compare", None)
    base.pop("budget", None)
    utility = {**base.get("utility", {}), "undefended": False} if scenario.utility else {"undefended": False}
    adversary = {"levels": [_native(scenario.local)], **base.get("adversary", {})}
    if scenario.attacks == "auto":
        base["attacks"] = ["linear_layer", {"name": "inverting_gradients", "iterations": iterations}]
    data = dict(base.get("data", {}))
    if not scenario.data.indices:
        data["pool"] = max(_needed(item["set"], scenario) for item in items)
    return {**base, "defense": None, "utility": utility, "adversary": adversary, "data": data}


def _needed(changes: Mapping[str, Any], scenario: Scenario) -> int:
    """Private examples of all clients, kept out of the public ones at every point so that all share one public."""
    clients = changes.get("adversary.clients", scenario.adversary.clients)
    return changes.get("data.count", _count(scenario.data)) * clients


def _native(local: LocalSection) -> int:
    """The lowest rung that every model has for this client."""
    return 3 if local.mode == "eval" or local.shares_buffers else 1


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
