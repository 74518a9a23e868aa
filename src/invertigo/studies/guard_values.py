"""What a claim or a table reads from the guards of one cell: `guard.alarms`, `guard.flagged`, `guard.delay`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from invertigo.auditing.guard_record import AdversaryRecord, AttackedRecord, GuardRecord

GUARD: Mapping[str, str] = {
    "guard.inspections": "models that an honest server sent and a client inspected",
    "guard.alarms": "of these, how many a guard spoke up at",
    "guard.attacked": "crafted models that a client inspected",
    "guard.flagged": "share of the crafted models that a guard spoke up at before the update left",
    "guard.blocked": "share of the crafted models that were refused",
    "guard.harmful": "share of the crafted models that give more away than an honest round does",
    "guard.missed": "share of these whose update left without a word",
    "guard.caught": "share of the campaigns that were noticed in the end",
    "guard.delay": "rounds from the start of a campaign to its first alarm, over campaigns that were noticed",
    "guard.rebuilt": "share of the batch that the attack reads back where nobody stops it",
    "guard.escaped": "largest share of a batch that was read off an update that left",
    "guard.honest": "share of the batch that an honest server could have read instead",
    "guard.area": "area under the ROC curve of the smallest p-value, crafted against honest models",
}
"""Values of a guarded federation, with what they mean. `attack` in a claim or a table chooses the adversary."""


def adversaries(record: GuardRecord, attack: Any = None) -> list[AdversaryRecord]:
    """The adversaries of that label, else of that attack (None: all; a list: any of it), that planted their model."""
    made = [one for one in record.adversaries if one.inspections]
    if attack is None:
        return made
    wanted = {*attack} if isinstance(attack, list | tuple) else {attack}
    labels = {one.name for one in record.adversaries}
    return [one for one in made if one.name in wanted or one.attack in wanted - labels]


def read_guard(record: GuardRecord, name: str, attack: Any = None) -> float | str:
    """A value, or the reason why there is none."""
    if name in _HONEST:
        return _HONEST[name](record)
    chosen = adversaries(record, attack)
    if not chosen:
        asked = [one for one in record.adversaries if attack in (None, one.name, one.attack)]
        return asked[0].skipped if asked and asked[0].skipped else f"no adversary called {attack} attacked"
    if name == "guard.area":
        return _area(record, chosen)
    if name in _CAMPAIGNS:
        return _CAMPAIGNS[name]([rounds for one in chosen for rounds in one.campaigns.values()])
    return _ROUNDS[name]([one for adversary in chosen for one in adversary.inspections])


def delay(campaign: Sequence[AttackedRecord]) -> int | None:
    """Rounds from the start of a campaign until a guard spoke up; None where it never did."""
    return next((one.round - one.started for one in campaign if one.flagged), None)


def _area(record: GuardRecord, chosen: Sequence[AdversaryRecord]) -> float | str:
    from invertigo.guards.evaluation import area

    if not record.honest:
        return "no honest model was inspected"
    return area([h.score for h in record.honest], [one.score for a in chosen for one in a.inspections])


def _delay(campaigns: Sequence[Sequence[AttackedRecord]]) -> float | str:
    known = [d for d in map(delay, campaigns) if d is not None]
    return fmean(known) if known else "no campaign was noticed"


def _missed(rounds: Sequence[AttackedRecord]) -> float | str:
    harmful = [one for one in rounds if one.harmful]
    return fmean(one.missed for one in harmful) if harmful else "nothing more could be read than in an honest round"


def _rebuilt(rounds: Sequence[AttackedRecord]) -> float | str:
    known = [one.rebuilt for one in rounds if one.rebuilt is not None]
    return fmean(known) if known else "reading it back takes an optimiser, which was not run"


_HONEST: Mapping[str, Callable[[GuardRecord], float]] = {
    "guard.inspections": lambda record: float(len(record.honest)),
    "guard.alarms": lambda record: float(sum(one.flagged for one in record.honest)),
}
_CAMPAIGNS: Mapping[str, Callable[[Sequence[Sequence[AttackedRecord]]], float | str]] = {
    "guard.caught": lambda campaigns: fmean(delay(one) is not None for one in campaigns),
    "guard.delay": _delay,
}
_ROUNDS: Mapping[str, Callable[[Sequence[AttackedRecord]], float | str]] = {
    "guard.attacked": lambda rounds: float(len(rounds)),
    "guard.flagged": lambda rounds: fmean(one.flagged for one in rounds),
    "guard.blocked": lambda rounds: fmean(one.decision == "block" for one in rounds),
    "guard.harmful": lambda rounds: fmean(one.harmful for one in rounds),
    "guard.missed": _missed,
    "guard.rebuilt": _rebuilt,
    "guard.escaped": lambda rounds: max((one.rebuilt or 0.0 for one in rounds if not one.flagged), default=0.0),
    "guard.honest": lambda rounds: fmean(one.honest for one in rounds),
}
