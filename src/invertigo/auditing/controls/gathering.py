"""All four controls of one audit, made once its attacks have run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from invertigo.auditing.case import Case
from invertigo.auditing.controls.fit import fit_control, yardsticks
from invertigo.auditing.controls.positive import SHARE, positive_control, vouching
from invertigo.auditing.controls.replaying import Replayed, replay_control
from invertigo.auditing.controls.schedule import budget_needed, schedule_control
from invertigo.auditing.record import ControlRecord
from invertigo.auditing.session import KEPT, KEPT_FOR_CONTROLS, Session


@dataclass(frozen=True)
class Controls:
    """The records, the replays behind the first one, and the budget that would have finished the schedules."""

    records: tuple[ControlRecord, ...] = ()
    replayed: tuple[Replayed, ...] = ()
    needs_seconds: float | None = None


def make_controls(
    case: Case, session: Session, replayed: Sequence[Replayed], decoys: int, seed: int, *, automatic: bool
) -> Controls:
    """Judge the schedules and the fit, and run the positive control where the verdict may hang on it."""
    scored, records = case.truth is not None, session.records
    replays = replay_control(replayed, scored)
    schedule = schedule_control(records, session.entries)
    places = {(int(s.knowledge.level), s.knowledge.view is not None): s for s in session.seen}
    fit = fit_control(records, yardsticks(case, places))
    worth = automatic and replays.status == schedule.status == "passed" and not session.interrupted
    positive = _positive(case, session, decoys, seed, worth=worth)
    open_time = schedule.status != "passed" and not any(r.recovered for r in records)
    needs = None
    if open_time:
        attacking = sum(r.seconds for r in records)
        overhead = max(0.0, session.budget.spent - attacking) + sum(r.seconds for r in records if r.exact)
        needs = budget_needed([r for r in records if not r.exact], overhead, KEPT + KEPT_FOR_CONTROLS)
    return Controls((replays, schedule, positive, fit), tuple(replayed), needs)


def _positive(case: Case, session: Session, decoys: int, seed: int, *, worth: bool) -> ControlRecord:
    if case.truth is None or not session.observations:
        return ControlRecord(name="positive", status="unknown", summary="There was no truth to make it from.")
    if not worth and vouching(session.records) is None:
        summary = "It was not made, because the audit is open for another reason."
        return ControlRecord(name="positive", status="unknown", summary=summary)
    seconds = min(SHARE * session.budget.seconds, session.budget.left - 2 * session.judging)
    first = next(iter(session.observations.values()))
    return positive_control(case, first, session.entries, session.records, decoys, seed, seconds)
