"""A client's guard: three gates, a budget of false alarms, and a memory."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

from invertigo.guards.budget import Budget
from invertigo.guards.registry import registry
from invertigo.guards.signals import signals_of
from invertigo.types import (
    Decision,
    Declared,
    Finding,
    Gate,
    Guard,
    GuardVerdict,
    History,
    InvalidValueError,
    Local,
    Received,
)

SEVERITY: dict[Decision, int] = {"pass": 0, "warn": 1, "block": 2}


def every_guard() -> tuple[Guard, ...]:
    """All registered guards with their defaults."""
    return tuple(registry[name]() for name in registry)


@dataclass(frozen=True, kw_only=True)
class Inspector:
    """Runs guards at three gates and decides: before loading, before training, before sending.

    A verdict tells malice (improbable under an honest server) from a leak (the batch is recoverable, whoever the server
    is) and from a defect (nothing that could be trained on). An honest server is blocked with at most the probability
    `budget.block` over all rounds, and warned of with at most `budget.warn`, as far as the null laws hold.

    Args:
        guards: by default every registered one.
        declared: what the federation told its clients beforehand; see `types.Declared`.
        examples: of the client's batch that are examined, from its start.
    """

    guards: tuple[Guard, ...] = field(default_factory=every_guard)
    budget: Budget = field(default_factory=Budget)
    declared: Declared = field(default_factory=Declared)
    examples: int = 64

    def __post_init__(self) -> None:
        if self.examples < 1:
            raise InvalidValueError(f"Inspector.examples is {self.examples}; at least one example must be examined.")

    def inspect(
        self, received: Received, history: History, local: Local, gates: Sequence[Gate] = get_args(Gate)
    ) -> GuardVerdict:
        """Look at what was received, at these gates in order, as far as `local` allows; stop at a gate that blocks.

        Nothing is written to. Pass the verdict to `History.add` when the round is over, whatever was decided.
        """
        started = time.perf_counter()
        local = replace(local, declared=self.declared if local.declared == Declared() else local.declared)
        if local.batch is not None:
            examined = local.batch.select(slice(0, min(self.examples, len(local.batch))))
            local = replace(local, whole=local.whole or local.batch, batch=examined)
        whole = GuardVerdict("pass", round=local.round, fingerprint=received.fingerprint)
        for gate in gates:
            if gate != "load" and local.signals is None:
                local = replace(local, signals=signals_of(received, local))
            whole = joined(whole, self._gate(gate, received, history, local))
            if whole.decision == "block":
                break
        return replace(whole, seconds=time.perf_counter() - started)

    def _gate(self, gate: Gate, received: Received, history: History, local: Local) -> GuardVerdict:
        found: list[Finding] = []
        skipped: dict[str, str] = {}
        for guard in (g for g in self.guards if g.gate == gate):
            reason = _unmet(guard, history, local)
            if reason:
                skipped[guard.name] = reason
            else:
                found += guard.inspect(received, history, local)
        decided = self.budget.decide(found, history.inspections)
        alarms: list[tuple[Finding, Decision]] = [pair for pair in decided if pair[1] != "pass"]
        alarms.sort(key=lambda pair: (-SEVERITY[pair[1]], pair[0].kind == "leak", _p(pair[0])))
        decision: Decision = alarms[0][1] if alarms else "pass"  # the most severe stands first
        return GuardVerdict(decision, tuple(f for f, _ in alarms), tuple(found), _figures(found), skipped)


def _unmet(guard: Guard, history: History, local: Local) -> str:
    signals = local.signals
    refusal = signals.refusal if signals is not None else None
    reasons = {
        "probe": refusal or ("" if local.batch is not None else "there is no probe batch"),
        "update": "" if local.update is not None else "there is no update yet",
        "history": "" if history.settled else "no earlier round has passed",
        "fingerprint": "" if local.declared.fingerprint else "no fingerprint was announced",
        "classes": "" if local.task.num_classes else "the task does not say how many classes there are",
        "initial": "the initialisation was not declared"
        if local.declared.initial is None
        else ("this is not the first model" if history.visits else ""),
    }
    return next((reasons[need] for need in sorted(guard.needs) if reasons.get(need)), "")


def _figures(found: Sequence[Finding]) -> dict[str, float]:
    """The largest statistic of each figure."""
    figures: dict[str, float] = {}
    for finding in found:
        if math.isfinite(finding.statistic):
            name = finding.figure or finding.rule
            figures[name] = max(figures.get(name, -math.inf), finding.statistic)
    return figures


def _p(finding: Finding) -> float:
    return 0.0 if finding.p_value is None else finding.p_value


def joined(first: GuardVerdict, second: GuardVerdict) -> GuardVerdict:
    """What two looks at one round came to, the worst findings first."""
    return replace(
        first,
        decision=max((first.decision, second.decision), key=SEVERITY.__getitem__),
        findings=tuple(sorted((*first.findings, *second.findings), key=lambda f: (f.kind == "leak", _p(f)))),
        observed=first.observed + second.observed,
        figures={**first.figures, **second.figures},
        skipped={**first.skipped, **second.skipped},
        seconds=first.seconds + second.seconds,
    )
