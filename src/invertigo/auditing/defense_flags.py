"""Sanity flags about a client's defense: that it acted, and that it was attacked by someone who knows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean

from invertigo.auditing.evidence import Evidence
from invertigo.auditing.record import AttackRecord, DefenseRecord, FlagRecord, MetricRecord

APART = 3.0
"""Decibels by which an informed attack must beat a naive one before a reader is told."""
LEARNED = 0.05
"""Accuracy above chance from which on a model has learned something."""


def _inert(evidence: Evidence) -> Iterator[FlagRecord]:
    if evidence.defense is not None and evidence.defense.inert:
        yield FlagRecord(
            code="inert_defense",
            severity="warning",
            message=f"The defense {evidence.defense.name} changed nothing: what was sent is the raw update.",
            remedy=f"Check its settings ({_settings(evidence.defense)}) and run it at a strength that bites.",
        )


def _undefended(evidence: Evidence) -> Iterator[FlagRecord]:
    d = evidence.defense
    if d is not None and d.undefended and not d.inert and not d.replaces_task:
        yield FlagRecord(
            code="undefended_releases",
            severity="warning",
            message=f"{d.undefended} of {d.releases} releases of {d.name} were the raw update; each of them leaks all.",
            remedy="A defense that falls back to the raw update protects nobody: choose another fallback.",
        )


def _naive_attack_weaker(evidence: Evidence) -> Iterator[FlagRecord]:
    naive, informed = ([a for a in evidence.ran if a.outcomes and a.informed == knows] for knows in (False, True))
    if evidence.defense is None or not naive or not informed:
        return
    before, after = (max(a.recovered for a in those) for those in (naive, informed))
    told, metric = f"{before} examples", evidence.metrics[0]
    lead = _best_mean(informed, metric) - _best_mean(naive, metric)
    if after <= before and not (metric.unit == "dB" and lead >= APART):
        return
    if after <= before:
        told = f"{metric.label} {abs(_best_mean(naive, metric)):.1f} {metric.unit} instead of "
        told += f"{abs(_best_mean(informed, metric)):.1f}"
    else:
        told += f" rebuilt instead of {after}"
    yield FlagRecord(
        code="naive_attack_weaker",
        severity="info",
        message=f"Attacked naively only, {evidence.defense.name} would look safer than it is: {told}.",
    )


def _knowledge_unused(evidence: Evidence) -> Iterator[FlagRecord]:
    d = evidence.defense
    if d is not None and d.uninformed and not d.knows:
        yield FlagRecord(
            code="no_informed_attack",
            severity="warning",
            message=f"No attack here knew the defense {d.name}: {d.uninformed.rstrip('.')}.",
            remedy="A defense that was not attacked by someone who knows it must not be believed.",
        )


def _nothing_learned(evidence: Evidence) -> Iterator[FlagRecord]:
    """Without the defense, the training that shows its cost must get somewhere."""
    u = evidence.utility
    bare = None if u is None else u.accuracy if evidence.defense is None else u.undefended_accuracy
    if u is not None and bare is not None and bare <= u.chance + LEARNED:
        yield FlagRecord(
            code="nothing_learned",
            severity="warning",
            message=f"Even without a defense the model learned nothing: accuracy {bare:.1%}, by chance {u.chance:.1%}.",
            remedy="Raise utility.rounds or utility.learning_rate; until it learns, no cost of a defense is measured.",
        )


def _best_mean(attacks: Sequence[AttackRecord], metric: MetricRecord) -> float:
    """The best mean headline score, turned so that larger means more was rebuilt."""
    sign = 1 if metric.privacy_loss else -1
    return max((sign * fmean(a.scores[metric.name]) for a in attacks if a.scores.get(metric.name)), default=-math.inf)


def _settings(defense: DefenseRecord) -> str:
    return ", ".join(f"{name}={value}" for name, value in defense.settings.items()) or "it has none"


DEFENSE_RULES: tuple[Callable[[Evidence], Iterator[FlagRecord]], ...] = (
    _inert,
    _undefended,
    _knowledge_unused,
    _naive_attack_weaker,
    _nothing_learned,
)
