"""The attacks of an audit, one after another, on every rung and inside the budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from torch import Tensor

from invertigo.auditing.budget import Budget
from invertigo.auditing.portfolio import Entry, plants
from invertigo.auditing.record import AttackRecord
from invertigo.auditing.trial import Trial, attempt
from invertigo.types import Attack, Observation, Progress, Reconstruction, ThreatLevel, Tick

PRIOR_ITERATIONS = 300
"""Priors alone settle within a few hundred iterations."""
TOO_LITTLE = 0.1
"""Seconds below which starting an optimisation is pointless."""
KEPT, KEPT_FOR_CONTROLS, KEPT_AT_MOST = 0.05, 0.15, 0.5
"""Parts of the budget kept back from the attacks: for what comes after them; for the positive control, as long as
nothing is rebuilt; and in all, with the judging by the pace that it turned out to have."""


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
    informed: bool = False


AuditProgress = Callable[[Stage], bool | None]
"""Called now and then while an audit runs; returning True stops the running attack with its best so far."""
Scoring = Callable[[Entry, Observation, Trial], AttackRecord]
"""Turns what an attack rebuilt into a record with scores; it knows the truth, the attacks do not."""


@dataclass(frozen=True)
class Run:
    """One attack to be made: by whom, on what."""

    level: ThreatLevel
    entry: Entry
    observation: Observation

    @property
    def informed(self) -> bool:
        """The adversary knows the client's defense."""
        return self.observation.knowledge.view is not None


@dataclass
class Session:
    """Runs the attacks and gathers records and tensors; `interrupted` is set by Ctrl-C."""

    observations: Mapping[ThreatLevel, Observation]
    entries: Sequence[Entry]
    judge: Scoring
    budget: Budget
    seed: int
    progress: AuditProgress | None = None
    informed: Mapping[ThreatLevel, Observation] = field(default_factory=dict)
    """The same observations in the hands of an adversary who knows the client's defense, where there is one."""
    planted: Mapping[str, Sequence[Observation]] = field(default_factory=dict)
    """For each attack of a malicious server, what it receives from the model that it planted: naive, then informed."""
    misfits: Mapping[str, str] = field(default_factory=dict)
    """Attacks of a malicious server that found no place in this model, with the reason."""
    quiet_refusals: bool = False
    """Leave out attacks that a rung does not allow, because the user did not ask for them by name."""
    records: list[AttackRecord] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    interrupted: bool = False
    judging: float = 0.0
    """Seconds that judging one reconstruction takes, the longest so far."""
    controlled: bool = True
    """Time must be left to show that the attacks work, should they rebuild nothing."""

    def run(self) -> None:
        """Exact attacks on every rung first, then the optimisation attacks, from the lowest rung up.

        Each is run by an adversary who does not know the defense, and then by one who does.
        """
        plan = [
            Run(level, entry, seen)
            for exact in (True, False)
            for level in self.observations
            for entry in self._on(level, exact)
            for seen in self._adversaries(level)
        ] + [
            Run(ThreatLevel.MALICIOUS, entry, seen)
            for entry in self.entries
            for seen in self.planted.get(entry.name, ())
        ]
        if not self.quiet_refusals:
            self.records += [
                _refused(entry, self.misfits[entry.name]) for entry in self.entries if entry.name in self.misfits
            ]
        for number, run in enumerate(plan):
            reason = self._why_not(run)
            if reason:
                self.records.append(_unrun(run, "skipped", reason))
                continue
            self._attempt(run, number, plan)

    @property
    def seen(self) -> list[Observation]:
        """Every observation that attacks were run on, of honest servers."""
        return [*self.observations.values(), *self.informed.values()]

    def _adversaries(self, level: ThreatLevel) -> list[Observation]:
        return [self.observations[level], *([self.informed[level]] if level in self.informed else [])]

    def prior_only(self, level: ThreatLevel) -> Iterator[tuple[Entry, Reconstruction]]:
        """What each optimisation attack that ran draws from its priors alone, with the matching term off."""
        ran = {record.attack: ThreatLevel(record.level) for record in reversed(self.records) if record.status == "ran"}
        for entry in self.entries:
            blind = _without_matching(entry.attack)
            seconds = min(0.1 * self.budget.seconds, self.budget.left - self.judging)
            if blind is None or self.interrupted or entry.name not in ran or seconds < TOO_LITTLE:
                continue
            trial = attempt(
                Entry(blind, pinned=True),
                self.observations[max(level, ran[entry.name])],  # lower rungs may lack what it needs
                seed=self.seed,
                seconds=seconds,
            )
            if trial.reconstruction is not None:
                yield entry, trial.reconstruction

    def _on(self, level: ThreatLevel, exact: bool) -> list[Entry]:
        chosen = [entry for entry in self.entries if entry.attack.exact == exact and not plants(entry.attack)]
        if not self.quiet_refusals:
            return chosen
        return [entry for entry in chosen if not self.observations[level].unmet(entry.attack.requires)]

    def _attempt(self, run: Run, number: int, plan: Sequence[Run]) -> None:
        waiting = sum(not self._why_not(one) for one in plan[number:])
        seconds = self.budget.left if run.entry.attack.exact else self._share(waiting)
        try:
            watch = self._watch(run, number + 1, len(plan))
            trial = attempt(run.entry, run.observation, seed=self.seed, seconds=seconds, progress=watch)
            record = self._judged(run, trial)
        except KeyboardInterrupt:
            self.interrupted = True
            self.records.append(_unrun(run, "skipped", "interrupted"))
            return
        if trial.reconstruction is not None and record.tensors:
            self.tensors |= {f"{record.tensors}/{name}": t for name, t in trial.reconstruction.fields.items()}
        self.records.append(record)

    def _judged(self, run: Run, trial: Trial) -> AttackRecord:
        """The record; a judge that stumbles over one reconstruction costs no other result."""
        started = time.monotonic()
        try:
            return self.judge(run.entry, run.observation, trial)
        except Exception as error:
            reason = f"what it rebuilt could not be judged: {type(error).__name__}: {error}"
            return _unrun(run, "failed", reason)
        finally:
            self.judging = max(self.judging, time.monotonic() - started)

    def _share(self, waiting: int) -> float:
        """An equal part of what is left, without what judging and the controls will need."""
        kept = KEPT + KEPT_FOR_CONTROLS * (self.controlled and not any(record.recovered for record in self.records))
        kept += self.judging * (waiting + 1) / self.budget.seconds
        share = self.budget.share(waiting, min(KEPT_AT_MOST, kept))
        # The first search gets its chance, however long it took to come to it.
        return share if self._searched else max(share, 0.1 * self.budget.seconds)

    @property
    def _searched(self) -> bool:
        return any(record.status == "ran" and not record.exact for record in self.records)

    def _why_not(self, run: Run) -> str:
        """Why this run is not worth making; empty when it is."""
        if self.interrupted:
            return "the audit was interrupted"
        for record in self.records:
            if record.level <= run.level and record.outcomes and set(record.outcomes) == {"exact"}:
                return f"{record.attack} already rebuilt everything exactly on rung {record.level}"
        if not run.entry.attack.exact and self._share(1) < TOO_LITTLE:
            return "no time was left in the budget"
        return ""

    def _watch(self, run: Run, number: int, count: int) -> Progress | None:
        if self.progress is None:
            return None
        report = self.progress

        def forward(tick: Tick) -> bool | None:
            return report(
                Stage(
                    level=int(run.level),
                    attack=run.entry.name,
                    number=number,
                    count=count,
                    done=tick.done,
                    total=tick.total,
                    objective=tick.objective,
                    seconds=tick.seconds,
                    seconds_left=tick.seconds_left,
                    informed=run.informed,
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


def _unrun(run: Run, status: str, reason: str) -> AttackRecord:
    return _without_result(run.level, run.entry, status, reason, informed=run.informed)


def _refused(entry: Entry, reason: str) -> AttackRecord:
    return _without_result(ThreatLevel.MALICIOUS, entry, "refused", reason, informed=False)


def _without_result(level: ThreatLevel, entry: Entry, status: str, reason: str, *, informed: bool) -> AttackRecord:
    return AttackRecord.model_validate(
        {
            "level": int(level),
            "attack": entry.name,
            "paper": entry.attack.paper.key,
            "exact": entry.attack.exact,
            "informed": informed,
            "status": status,
            "reason": reason,
        }
    )
