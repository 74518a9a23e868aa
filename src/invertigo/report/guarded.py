"""What guards noticed, as a page draws it: a ROC curve, how soon campaigns were noticed, and a line per adversary."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from invertigo.auditing.guard_record import AdversaryRecord, AttackedRecord, GuardRecord
from invertigo.report.charts import HEIGHT, WIDTH, Mark, Panel, Scale, Series, nice_scale, ticks
from invertigo.report.numbers import number
from invertigo.studies.guard_values import delay
from invertigo.studies.store import CellResult

KINDS: Mapping[str, str] = {"tuned": "rules were chosen on it", "held": "held out", "drift": "slow drift"}
SHARE = Scale(0.0, 1.0, 0.25)


@dataclass(frozen=True)
class AdversaryLine:
    """An adversary over all federations, every figure as text; an empty one was not measured."""

    name: str
    kind: str
    attacked: str
    flagged: str
    blocked: str
    delay: str
    rebuilt: str
    honest: str
    harmful: str
    missed: str
    rules: str


@dataclass(frozen=True)
class GuardView:
    """Guards in all federations of a study. `bound` is the 95 % bound on the rate of alarms when there was none."""

    federations: int
    inspections: int
    alarms: int
    bound: str
    roc: Panel | None
    noticed: Panel | None
    legend: tuple[tuple[int, str], ...]
    lines: tuple[AdversaryLine, ...]
    misfits: tuple[tuple[str, str], ...]
    """Adversaries that no model had a place for, with the reason."""


def guard_view(results: Iterable[CellResult]) -> GuardView | None:
    """The guards of all cells together; None where no cell has one."""
    guards = [result.record.guard for result in results if result.record and result.record.guard]
    if not guards:
        return None
    honest = sorted(one.score for guard in guards for one in guard.honest)
    alarms = sum(one.flagged for guard in guards for one in guard.honest)
    met: dict[str, list[AdversaryRecord]] = {}
    for guard in guards:
        for one in guard.adversaries:
            met.setdefault(one.name, []).append(one)
    made = {name: [one for one in many if one.inspections] for name, many in met.items()}
    kinds = {kind: [o for many in made.values() for o in many if _kind(o) == kind] for kind in KINDS}
    kinds = {kind: many for kind, many in kinds.items() if many}
    numbers = {kind: position + 1 for position, kind in enumerate(kinds)}
    return GuardView(
        federations=len(guards),
        inspections=len(honest),
        alarms=alarms,
        # With no alarm in n independent looks, the rate is under 3/n with a confidence of 95 %.
        bound="" if alarms or not honest else number(100 * 3 / len(honest)),
        roc=_roc(honest, alarms, kinds, numbers) if honest and kinds else None,
        noticed=_noticed(kinds, numbers, guards) if kinds else None,
        legend=tuple((numbers[kind], KINDS[kind]) for kind in kinds),
        lines=tuple(_line(name, many) for name, many in made.items() if many),
        misfits=tuple((name, met[name][0].skipped) for name, many in made.items() if not many),
    )


def _kind(one: AdversaryRecord) -> str:
    return "drift" if one.drift is not None else "tuned" if one.tuned else "held"


def _roc(
    honest: Sequence[float], alarms: int, kinds: Mapping[str, list[AdversaryRecord]], numbers: Mapping[str, int]
) -> Panel:
    """Share of crafted models above each threshold, against the share of honest ones; the mark is the guard's own."""
    series = []
    for kind, many in kinds.items():
        rounds = [one for adversary in many for one in adversary.inspections]
        crafted = sorted(one.score for one in rounds)
        points = {(0.0, 0.0), (1.0, 1.0)}
        for threshold in {*honest, *crafted}:
            points.add((_above(honest, threshold), _above(crafted, threshold)))
        flagged, false = fmean(one.flagged for one in rounds), alarms / len(honest)
        marks = [Mark(x * WIDTH, (1 - y) * HEIGHT, 0.0, 0.0, "") for x, y in sorted(points)]
        said = f"{KINDS[kind]}: {100 * flagged:.1f} % of crafted, {100 * false:.2g} % of honest models"
        own = Mark(false * WIDTH, (1 - flagged) * HEIGHT, 0.0, 0.0, said)
        series.append(Series(KINDS[kind], numbers[kind], (*marks, own)))
    across, up = ticks(SHARE, WIDTH, False), ticks(SHARE, HEIGHT, True)
    return Panel("", tuple(series), across, up, "share of honest models above a threshold", "of crafted ones")


def _noticed(
    kinds: Mapping[str, list[AdversaryRecord]], numbers: Mapping[str, int], guards: Sequence[GuardRecord]
) -> Panel:
    """Share of the campaigns that were noticed within so many rounds of their start."""
    last = max(guard.rounds for guard in guards) - 1
    scale = nice_scale([0.0, float(max(last, 1))])
    series = []
    for kind, many in kinds.items():
        delays = [delay(rounds) for adversary in many for rounds in adversary.campaigns.values()]
        marks = []
        for within in range(last + 1):
            share = fmean(d is not None and d <= within for d in delays)
            text = f"{KINDS[kind]}, within {within} rounds: {100 * share:.1f} % of {len(delays)} campaigns"
            marks.append(Mark(scale(float(within)) * WIDTH, (1 - share) * HEIGHT, 0.0, 0.0, text))
        series.append(Series(KINDS[kind], numbers[kind], tuple(marks)))
    up = ticks(SHARE, HEIGHT, True)
    return Panel("", tuple(series), ticks(scale, WIDTH, False), up, "rounds since the start", "campaigns noticed")


def _above(scores: Sequence[float], threshold: float) -> float:
    return 1 - bisect_left(scores, threshold) / len(scores)


def _line(name: str, many: Sequence[AdversaryRecord]) -> AdversaryLine:
    rounds = [one for adversary in many for one in adversary.inspections]
    delays = [d for a in many for d in map(delay, a.campaigns.values()) if d is not None]
    rebuilt = [one.rebuilt for one in rounds if one.rebuilt is not None]
    harmful = [one for one in rounds if one.harmful]
    spoken = [rule for one in rounds for rule in one.rules]
    rules = sorted(set(spoken), key=lambda rule: (-spoken.count(rule), rule))
    return AdversaryLine(
        name=name,
        kind=KINDS[_kind(many[0])],
        attacked=str(len(rounds)),
        flagged=_percent([one.flagged for one in rounds]),
        blocked=_percent([one.decision == "block" for one in rounds]),
        delay=f"{fmean(delays):.1f}" if delays else "",
        rebuilt=_percent(rebuilt) if rebuilt else "",
        honest=_percent([one.honest for one in rounds]) if rebuilt else "",
        harmful=f"{len(harmful)}",
        missed=_missed(harmful),
        rules=", ".join(rules[:3]),
    )


def _missed(harmful: Sequence[AttackedRecord]) -> str:
    return str(sum(one.missed for one in harmful)) if harmful else ""


def _percent(values: Sequence[float | bool]) -> str:
    return f"{100 * fmean(values):.0f}"
