"""What an audit holds of a client's defense: set up before it is observed, read by who knows it, and written down."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from invertigo import defenses
from invertigo.auditing.record import DefenseRecord
from invertigo.federation import Round
from invertigo.types import (
    AdversaryView,
    ConfigurationError,
    Defense,
    DefenseTrace,
    InvertigoError,
    Observation,
    ThreatLevel,
    protects,
)

LOSSES = frozenset({"epsilon", "delta"})
"""Facts that add up over releases: the largest counts, not the mean."""


@dataclass(frozen=True)
class Reading:
    """The observations of each rung in the hands of an adversary who knows the defense.

    `why_not` says why there are none: the knowledge changes nothing, or it cannot be applied here.
    """

    informed: Mapping[ThreatLevel, Observation] = field(default_factory=dict)
    knows: str = ""
    why_not: str = ""
    failed: bool = False
    """The knowledge could not be applied; not that it changes nothing."""


def make_defense(wanted: str | Mapping[str, Any] | Defense) -> Defense:
    """The defense by name, by name and settings, or as it is.

    Raises: UnknownNameError, ConfigurationError for a setting it does not have.
    """
    if isinstance(wanted, Mapping):
        settings = {name: value for name, value in wanted.items() if name != "name"}
        if not isinstance(wanted.get("name"), str):
            raise ConfigurationError(f"The defense {dict(wanted)!r} has no name; `invertigo list defenses` lists them.")
        return defenses.make(wanted["name"], **settings)
    return defenses.make(wanted)


def check_protects(defense: Defense, domain: str) -> None:
    """Raises: ConfigurationError when the defense is not made for such data."""
    if not protects(defense, domain):
        raise ConfigurationError(
            f"Defense '{defense.name}' protects {', '.join(sorted(defense.domains))}, not {domain}, so it would leave "
            "this client as it is. Choose another one from `invertigo list defenses`."
        )


def settings_of(defense: Defense) -> dict[str, Any]:
    """Every setting with its value, as plain data where it is plain."""
    return {f.name: _plain(getattr(defense, f.name)) for f in dataclasses.fields(defense)}  # type: ignore[arg-type]


def read_informed(defense: Defense | None, observations: Mapping[ThreatLevel, Observation]) -> Reading:
    """Every observation as an adversary reads it who knows the defense and its settings."""
    if defense is None or not observations:
        return Reading()
    try:
        views = {level: defense.adversary_view(seen) for level, seen in observations.items()}
    except InvertigoError as error:
        return Reading(why_not=str(error), failed=True)
    knows = next(iter(views.values())).knows
    if all(_changes_nothing(view) for view in views.values()):
        return Reading(knows=knows, why_not="Knowing this defense changes no attack, so the attacks above are both.")
    return Reading({level: seen.informed(views[level]) for level, seen in observations.items()}, knows)


def describe_defense(
    defense: Defense, rounds: Sequence[Round], reading: Reading, *, releases: int, replaces_task: bool
) -> DefenseRecord:
    """The defense with what it did on the lowest rung; `releases` counts those that the adversary holds."""
    record = DefenseRecord(
        name=defense.name,
        paper=defense.paper.key,
        settings=settings_of(defense),
        releases=releases,
        replaces_task=replaces_task,
        knows=reading.knows,
        uninformed=reading.why_not,
    )
    traces = rounds[0].traces if rounds else ()
    return record.model_copy(update=_measured(traces)) if traces else record


def mean_facts(traces: Sequence[DefenseTrace]) -> dict[str, float]:
    """What the traces report by themselves, over all of them."""
    names = dict.fromkeys(name for trace in traces for name in trace.facts)
    return {name: _over(name, [float(t.facts[name]) for t in traces if name in t.facts]) for name in names}


def _measured(traces: Sequence[DefenseTrace]) -> dict[str, Any]:
    means = {
        name: fmean(float(getattr(trace, name)) for trace in traces)
        for name in ("cosine", "changed", "visible", "norm_ratio", "bytes", "raw_bytes")
    }
    return means | {"undefended": sum(trace.undefended for trace in traces), "facts": mean_facts(traces)}


def _over(name: str, values: Sequence[float]) -> float:
    return max(values) if name in LOSSES else fmean(values)


def _changes_nothing(view: AdversaryView) -> bool:
    return replace(view, knows="") == AdversaryView("")


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(one) for one in value]
    return str(value)
