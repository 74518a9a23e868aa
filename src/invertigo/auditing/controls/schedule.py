"""The second control: every attack ran its full default schedule; and how much time would have let it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from invertigo.auditing.portfolio import Entry
from invertigo.auditing.record import AttackRecord, ControlRecord
from invertigo.types import Attack

EFFORT = ("iterations", "restarts", "approach", "cg_steps", "steps", "epochs", "clients", "batches", "draws")
"""Settings that count work: less than the default is a weaker attack."""
UNFINISHED = ("budget", "diverged")


def defaults(attack: Attack) -> dict[str, object]:
    """The attack's default hyper-parameters."""
    return {f.name: f.default for f in fields(attack)}  # type: ignore[arg-type]


def curtailed(attack: Attack) -> list[tuple[str, int, int]]:
    """(setting, value, default) for each setting that gives the attack less work than its default."""
    usual = {name: value for name, value in defaults(attack).items() if name in EFFORT and isinstance(value, int)}
    given = {name: getattr(attack, name) for name in usual}
    return [(name, given[name], usual[name]) for name in usual if given[name] < usual[name]]  # type: ignore[misc]


def planned(attack: Attack) -> int | None:
    """Iterations of the default schedule; None for an attack that counts none."""
    usual = defaults(attack).get("iterations")
    return usual if isinstance(usual, int) else None


def seconds_needed(attack: Attack, done: int | None, seconds: float) -> float | None:
    """Time of the full default schedule, by the pace of the `done` iterations that took `seconds`."""
    usual = planned(attack)
    if usual is None or not done:
        return None
    narrowed = [(value, full) for name, value, full in curtailed(attack) if name == "restarts"]
    factor = narrowed[0][1] / max(narrowed[0][0], 1) if narrowed else 1.0
    return seconds * max(usual / done, 1.0) * factor


def shortfalls(records: Sequence[AttackRecord], entries: Sequence[Entry]) -> list[str]:
    """What keeps the schedules from being complete, a clause for each attack."""
    found: dict[str, None] = {}
    for entry in entries:
        if entry.attack.exact or not any(r.attack == entry.name and r.status == "ran" for r in records):
            continue
        for name, given, usual in curtailed(entry.attack):
            found[f"{entry.name} was set to {given:,} of its {usual:,} {name.replace('_', ' ')}"] = None
    for record in records:
        if record.status == "ran" and record.stopped in UNFINISHED:
            found[f"{record.attack} {_how_far(record)}"] = None
    skipped = sorted({r.attack for r in records if r.status == "skipped" and not solved_below(r, records)})
    if skipped:
        found[f"there was no time left for {', '.join(skipped)}"] = None
    return list(found)


def _how_far(record: AttackRecord) -> str:
    if record.iterations is not None and record.planned_iterations:
        return f"did not run to the end ({record.iterations:,} of {record.planned_iterations:,} iterations)"
    return "did not run to the end"


def solved_below(record: AttackRecord, records: Sequence[AttackRecord]) -> bool:
    """An attack on this rung or below rebuilt everything exactly, so there was nothing left to do here."""
    return any(r.level <= record.level and r.outcomes and set(r.outcomes) == {"exact"} for r in records)


def schedule_control(records: Sequence[AttackRecord], entries: Sequence[Entry]) -> ControlRecord:
    """Passed when every attack ran all the iterations and restarts that it has by default."""
    short = shortfalls(records, entries)
    searched = [r for r in records if r.status == "ran" and not r.exact]
    facts: dict[str, float | str | None] = {
        f"{r.attack}, rung {r.level}{', informed' * r.informed}": f"{r.iterations} of {r.planned_iterations}"
        for r in searched
        if r.iterations is not None and r.planned_iterations is not None
    }
    if not any(r.status == "ran" for r in records):
        return ControlRecord(name="schedule", status="unknown", summary="No attack ran.")
    if short:
        summary = "; ".join(short)
        return ControlRecord(name="schedule", status="failed", summary=f"{_upper(summary)}.", facts=facts)
    summary = "Every attack ran its full default schedule." if searched else "Only algebra ran, which has no schedule."
    return ControlRecord(name="schedule", status="passed", summary=summary, facts=facts)


def budget_needed(records: Sequence[AttackRecord], overhead: float, reserve: float) -> float | None:
    """The least budget under which equal shares of what is left would let every attack finish.

    Args:
        overhead: seconds that went into everything but the attacks.
        reserve: part of a budget that is kept back from the attacks.
    """
    counted = [r for r in records if r.status in ("ran", "skipped") and not solved_below(r, records)]
    known = {r.attack: r.seconds_needed for r in counted if r.seconds_needed is not None}
    needs = [_need(record, known) for record in counted]
    if not known:
        return None
    spent, least = overhead, 0.0
    for number, need in enumerate(needs):
        least = max(least, spent + need * (len(needs) - number))
        spent += need
    return least / (1 - reserve)


def _need(record: AttackRecord, known: dict[str, float]) -> float:
    if record.seconds_needed is not None:
        return record.seconds_needed
    if record.exact or (record.planned_iterations is None and record.status == "ran"):
        return record.seconds
    return known.get(record.attack) or max(known.values(), default=record.seconds)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
