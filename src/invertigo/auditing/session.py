"""The attacks of an audit, one after another, on every rung and inside the budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from torch import Tensor

from invertigo.auditing.budget import Budget
from invertigo.auditing.forecast import Forecast, reduced
from invertigo.auditing.interruption import Stop, stoppable
from invertigo.auditing.portfolio import Entry, plants
from invertigo.auditing.progress import AuditProgress, Stage, beginning, watch
from invertigo.auditing.record import AttackRecord
from invertigo.auditing.trial import Trial, attempt
from invertigo.types import Attack, Observation, Reconstruction, ThreatLevel, Tick

__all__ = ["AuditProgress", "Scoring", "Session", "Stage"]

PRIOR_ITERATIONS = 300
"""Priors alone settle within a few hundred iterations."""
TOO_LITTLE = 0.1
"""Seconds below which starting an optimisation is pointless."""
KEPT, KEPT_FOR_CONTROLS, KEPT_AT_MOST = 0.05, 0.15, 0.5
"""Parts of the budget kept back from the attacks: for what comes after them; for the positive control, as long as
nothing is rebuilt; and in all, with the judging by the pace that it turned out to have."""


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
    forecast: Forecast = field(default_factory=Forecast)
    """What attacks cost here, as far as it has been measured."""
    stop: Stop = field(default_factory=Stop)

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
        with stoppable(self.stop):
            for number, run in enumerate(plan):
                reason = self._why_not(run)
                if reason:
                    self.records.append(_unrun(run, "skipped", reason))
                    continue
                self._attempt(run, number, plan)

    def tell(self, what: str) -> None:
        """Say what the audit turns to, so that no display stands still."""
        if self.progress is not None:
            self.progress(beginning(what, audit_left=max(0.0, self._afterwards())))

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
            needed = max(TOO_LITTLE, self.forecast.needed(entry))
            if blind is None or self.interrupted or entry.name not in ran or seconds < needed:
                continue
            self.tell(f"the priors of {entry.name} alone")
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
        waiting = [one for one in plan[number:] if not self._why_not(one)]
        # An exact attack may take the shares of all: what it finds needs no other.
        seconds = self._share(1) if run.entry.attack.exact else self._share(len(waiting))
        try:
            shown = self._shown(run, number + 1, len(plan))
            trial = attempt(
                run.entry, run.observation, seed=self.seed, seconds=seconds,
                progress=watch(shown, self.progress, lambda: self.stop.asked, lambda tick: self._left(tick, waiting)),
            )  # fmt: skip
            self.forecast.note(run.entry, trial, seconds)
            self.tell(f"scoring {run.entry.name}")
            record = self._judged(run, trial)
            self.interrupted = self.stop.asked
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
        needed = self.forecast.needed(run.entry)
        if not run.entry.attack.exact and self._share(1) < max(TOO_LITTLE, needed):
            return f"no time was left in the budget: it takes {max(TOO_LITTLE, needed):.1f} s to begin"
        return ""

    def _shown(self, run: Run, number: int, count: int) -> Stage:
        """What is told of a run; first that it begins."""
        stage = beginning(run.entry.name, level=int(run.level), number=number, count=count, audit_left=self.budget.left)
        stage = replace(stage, informed=run.informed)
        if self.progress is not None:
            self.progress(stage)
        return stage

    def _left(self, tick: Tick, plan: Sequence[Run]) -> float:
        """Seconds of the whole audit while the first attack of `plan` runs."""
        running, *waiting = plan
        self.forecast.pace[running.entry.name] = tick.seconds / max(1, tick.done)
        own = tick.seconds_left
        after = self._afterwards() + self.judging * (len(waiting) + 1)
        rest = self.forecast.rest([run.entry for run in waiting], max(0.0, self.budget.left - own - after))
        return max(own, min(own + rest + after, max(own, self.budget.left)))

    def _afterwards(self) -> float:
        """Seconds of what follows the attacks: priors alone, and the control that shows that attacks work."""
        if self.interrupted:
            return 0.0
        blind = [entry for entry in self.entries if _without_matching(entry.attack) is not None]
        pace = self.forecast.iteration
        expected = sum((min(0.1 * self.budget.seconds, PRIOR_ITERATIONS * pace(entry)) for entry in blind), 0.0)
        searches = [entry for entry in self.entries if not entry.attack.exact]
        open_anyway = any(one.recovered or _cut_short(one) for one in self.records) or any(map(reduced, searches))
        if self.controlled and not open_anyway:
            share = KEPT_FOR_CONTROLS * self.budget.seconds / max(1, len(searches))
            expected += sum(self.forecast.expected(entry, share) for entry in searches)
        return min(max(0.0, self.budget.left), expected)


def _cut_short(record: AttackRecord) -> bool:
    """Then the audit stays open, and no control could close it."""
    return record.stopped == "budget" or (record.status == "skipped" and "budget" in record.reason)


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
