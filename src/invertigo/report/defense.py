"""The panel on a client's defense: what it did, what it cost, and what each adversary made of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from invertigo.auditing.record import AttackRecord, AuditRecord, DefenseRecord, UtilityRecord
from invertigo.report.numbers import number

Fact = tuple[str, str]


@dataclass(frozen=True)
class Duel:
    """One attack on one rung by both adversaries; a dash where it was not run with the knowledge."""

    attack: str
    level: int
    naive: str
    informed: str
    naive_recovered: str
    informed_recovered: str


@dataclass(frozen=True)
class DefensePanel:
    """A defense ready to print."""

    name: str
    paper: str
    settings: str
    knows: str
    uninformed: str
    did: tuple[Fact, ...]
    cost: tuple[Fact, ...]
    duels: tuple[Duel, ...]
    score: str


def defense_panel(record: AuditRecord) -> DefensePanel | None:
    """What the page says about the defense; None where there is none and no utility was measured."""
    defense, utility, headline = record.defense, record.utility, record.metrics[0]
    if defense is None and utility is None:
        return None
    return DefensePanel(
        name=defense.name if defense else "no defense",
        paper=defense.paper if defense else "",
        settings=", ".join(f"{k} = {v}" for k, v in defense.settings.items()) if defense else "",
        knows=defense.knows if defense else "",
        uninformed=defense.uninformed if defense else "",
        did=tuple(_did(defense)) if defense else (),
        cost=tuple(_cost(utility)) if utility else (),
        duels=tuple(_duels(record)) if defense else (),
        score=f"{headline.label}{' in ' + headline.unit if headline.unit else ''}, mean",
    )


def _did(d: DefenseRecord) -> Iterator[Fact]:
    if d.undefended is None or d.cosine is None:
        yield "measured", "nothing: the update was handed over"
        return
    yield "releases that are the raw update", f"{d.undefended} of {d.releases}"
    yield "cosine to the raw update", number(d.cosine)
    yield "entries changed", _percent(d.changed)
    yield "entries not zero", _percent(d.visible)
    yield "length", f"× {number(d.norm_ratio)}"
    yield "bytes sent", f"{_bytes(d.bytes)} instead of {_bytes(d.raw_bytes)}"
    if d.replaces_task:
        yield "model", "changed before training"
    for name, value in d.facts.items():
        yield ("privacy loss ε" if name == "epsilon" else name.replace("_", " ")), f"{value:.4g}"


def _cost(u: UtilityRecord) -> Iterator[Fact]:
    beside = "" if u.undefended_accuracy is None else f", {u.undefended_accuracy:.1%} without the defense"
    yield "accuracy", f"{u.accuracy:.1%}{beside}" + (" (the training diverged)" if u.diverged else "")
    kind = "alike" if u.dirichlet is None else f"skewed, Dirichlet {u.dirichlet:g}"
    yield "trained", f"{u.rounds} rounds, {u.clients} clients ({kind}), {u.examples} examples"
    yield "undefended releases", f"{u.undefended_share:.0%}"
    time = "" if u.undefended_seconds is None else f" instead of {u.undefended_seconds:.1f} s"
    yield "processor time of the clients", f"{u.seconds:.1f} s{time}"
    if "epsilon" in u.facts:
        yield "privacy loss ε of the training", f"{u.facts['epsilon']:.4g}"


def _duels(record: AuditRecord) -> Iterator[Duel]:
    ran = {(a.attack, a.level, a.informed): a for a in record.ran if a.scores.get(record.metrics[0].name)}
    for attack, level in dict.fromkeys((name, rung) for name, rung, _ in ran):
        naive, informed = (ran.get((attack, level, knows)) for knows in (False, True))
        yield Duel(
            attack,
            level,
            _score(record, naive),
            _score(record, informed),
            "–" if naive is None else f"{naive.recovered} of {record.num_examples}",
            "–" if informed is None else f"{informed.recovered} of {record.num_examples}",
        )


def _score(record: AuditRecord, attack: AttackRecord | None) -> str:
    headline = record.metrics[0]
    return "–" if attack is None else number(fmean(attack.scores[headline.name]), headline.unit)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.3g} %"


def _bytes(count: float | None) -> str:
    if count is None:
        return "–"
    for unit, size in (("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"
