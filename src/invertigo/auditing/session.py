"""The attacks of an audit, one after another, on every rung and inside the budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from torch import Tensor

from invertigo.auditing.budget import Budget
from invertigo.auditing.portfolio import Entry
from invertigo.auditing.record import AttackRecord
from invertigo.auditing.trial import Trial, attempt
from invertigo.types import Attack, Observation, Progress, Reconstruction, ThreatLevel, Tick

PRIOR_ITERATIONS = 300
"""Priors alone settle within a few hundred iterations."""
TOO_LITTLE = 0.1
"""Seconds below which starting an optimisation is pointless."""


@dataclass(frozen=True)
class Stage:
    """Progress of an audit: run `number` of `count`, with the running attack's own progress beside it."""

    level: int
    attack: str
    number: int
    count: int
    done: int
    total: int
    objective: float
    seconds: float
    seconds_left: float


AuditProgress = Callable[[Stage], bool | None]
"""Called now and then while an audit runs; returning True stops the running attack with its best so far."""
Scoring = Callable[[Entry, Observation, Trial], AttackRecord]
"""Turns what an attack rebuilt into a record with scores; it knows the truth, the attacks do not."""


@dataclass
class Session:
    """Runs the attacks and gathers records and tensors; `interrupted` is set by Ctrl-C."""

    observations: Mapping[ThreatLevel, Observation]
    entries: Sequence[Entry]
    judge: Scoring
    budget: Budget
    seed: int
    progress: AuditProgress | None = None
    quiet_refusals: bool = False
    """Leave out attacks that a rung does not allow, because the user did not ask for them by name."""
    records: list[AttackRecord] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    interrupted: bool = False

    def run(self) -> None:
        """Exact attacks on every rung first, then the optimisation attacks, from the lowest rung up."""
        plan = [(level, e) for exact in (True, False) for level in self.observations for e in self._on(level, exact)]
        for number, (level, entry) in enumerate(plan):
            reason = self._why_not(level, entry)
            if reason:
                self.records.append(_unrun(level, entry, "skipped", reason))
                continue
            self._attempt(level, entry, number, plan)

    def prior_only(self, level: ThreatLevel) -> Iterator[tuple[Entry, Reconstruction]]:
        """What each optimisation attack that ran draws from its priors alone, with the matching term off."""
        ran = {record.attack: ThreatLevel(record.level) for record in reversed(self.records) if record.status == "ran"}
        for entry in self.entries:
            blind = _without_matching(entry.attack)
            if blind is None or self.interrupted or entry.name not in ran:
                continue
            trial = attempt(
                Entry(blind, pinned=True),
                self.observations[max(level, ran[entry.name])],  # lower rungs may lack what it needs
                seed=self.seed,
                seconds=max(1.0, min(0.1 * self.budget.seconds, self.budget.left)),
            )
            if trial.reconstruction is not None:
                yield entry, trial.reconstruction

    def _on(self, level: ThreatLevel, exact: bool) -> list[Entry]:
        chosen = [entry for entry in self.entries if entry.attack.exact == exact]
        if not self.quiet_refusals:
            return chosen
        return [entry for entry in chosen if not self.observations[level].unmet(entry.attack.requires)]

    def _attempt(
        self, level: ThreatLevel, entry: Entry, number: int, plan: Sequence[tuple[ThreatLevel, Entry]]
    ) -> None:
        waiting = sum(not self._why_not(le, e) for le, e in plan[number:])
        seconds = self.budget.left if entry.attack.exact else self.budget.share(waiting)
        observation = self.observations[level]
        try:
            watch = self._watch(level, entry, number + 1, len(plan))
            trial = attempt(entry, observation, seed=self.seed, seconds=seconds, progress=watch)
            record = self.judge(entry, observation, trial)
        except KeyboardInterrupt:
            self.interrupted = True
            self.records.append(_unrun(level, entry, "skipped", "interrupted"))
            return
        if trial.reconstruction is not None:
            self.tensors |= {f"{record.tensors}/{name}": t for name, t in trial.reconstruction.fields.items()}
        self.records.append(record)

    def _why_not(self, level: ThreatLevel, entry: Entry) -> str:
        """Why this run is not worth making; empty when it is."""
        if self.interrupted:
            return "the audit was interrupted"
        for record in self.records:
            if record.level <= level and record.outcomes and set(record.outcomes) == {"exact"}:
                return f"{record.attack} already rebuilt everything exactly on rung {record.level}"
        if not entry.attack.exact and self.budget.share(1) < TOO_LITTLE:
            return "no time was left in the budget"
        return ""

    def _watch(self, level: ThreatLevel, entry: Entry, number: int, count: int) -> Progress | None:
        if self.progress is None:
            return None
        report = self.progress

        def forward(tick: Tick) -> bool | None:
            return report(
                Stage(
                    level=int(level),
                    attack=entry.name,
                    number=number,
                    count=count,
                    done=tick.done,
                    total=tick.total,
                    objective=tick.objective,
                    seconds=tick.seconds,
                    seconds_left=tick.seconds_left,
                )
            )

        return forward


def _without_matching(attack: Attack) -> Attack | None:
    known = {f.name for f in fields(attack)}  # type: ignore[arg-type]
    if attack.exact or "prior_only" not in known:
        return None
    changes: dict[str, object] = {"prior_only": True}
    if "iterations" in known:
        changes["iterations"] = min(attack.iterations, PRIOR_ITERATIONS)  # type: ignore[attr-defined]
    if "restarts" in known:
        changes["restarts"] = 1
    return replace(attack, **changes)  # type: ignore[type-var]


def _unrun(level: ThreatLevel, entry: Entry, status: str, reason: str) -> AttackRecord:
    return AttackRecord.model_validate(
        {
            "level": int(level),
            "attack": entry.name,
            "paper": entry.attack.paper.key,
            "exact": entry.attack.exact,
            "status": status,
            "reason": reason,
        }
    )
