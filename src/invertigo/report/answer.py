"""The first screen: who could rebuild what, how sure that is, what was not examined, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from invertigo.auditing.record import AttackRecord, AuditRecord, LevelRecord
from invertigo.report.numbers import duration
from invertigo.report.subject import subject
from invertigo.report.tables import attack_rows
from invertigo.report.words import CONTROL_NAMES, CONTROL_STATES, CONTROLS, SHORTCOMINGS, WHO, spelled

FEW = 30
"""Examples under which a share is only indicative."""
MOST_MISSING = 3
"""Reasons for an open verdict that the first screen has room for."""
State = Literal["good", "bad", "open", "none"]
_STATES: dict[str, State] = {"passed": "good", "failed": "bad", "unknown": "open", "not_applicable": "none"}


@dataclass(frozen=True)
class Finding:
    """What one adversary could rebuild; `condition` tells when the rung is a what-if."""

    who: str
    what: str
    breached: bool
    condition: str = ""


@dataclass(frozen=True)
class Assurance:
    """One reason to believe the verdict, or to doubt it."""

    state: State
    name: str
    text: str


@dataclass(frozen=True)
class Check:
    """A control in full: what it asked, what it found, and the numbers behind that."""

    state: State
    name: str
    asks: str
    summary: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Answer:
    """The verdict in words, for a reader who knows nothing of the field."""

    subject: str
    headline: str
    findings: tuple[Finding, ...]
    sure: tuple[Assurance, ...]
    unexamined: tuple[tuple[str, str], ...]
    """(who or what, why)"""
    todo: tuple[str, ...]


def answer(record: AuditRecord) -> Answer:
    """Everything of the first screen."""
    known: set[int] = set()
    return Answer(
        subject=subject(record),
        headline=spelled(_headline(record), known),
        findings=tuple(_findings(record)),
        sure=tuple(_assurances(record)),
        unexamined=tuple(_unexamined(record)),
        todo=tuple(spelled(one, known) for one in _todo(record)),
    )


def _headline(record: AuditRecord) -> str:
    """The verdict's own, unless a control speaks there in numbers: then what that means."""
    verdict, failed = record.verdict, [c for c in record.controls if c.status in ("failed", "unknown")]
    if verdict.status != "inconclusive" or not failed:
        return verdict.headline
    before, but, reason = verdict.headline.partition(", but ")
    spoken = [c.name for c in failed if reason[1:].rstrip(".") == c.summary[1:].rstrip(".")]
    return f"{before}{but}{SHORTCOMINGS[spoken[0]]}." if spoken else verdict.headline


def checks(record: AuditRecord) -> Iterator[Check]:
    """The controls, for the part of the page that gives them in detail."""
    for one in record.controls:
        facts = tuple((name.replace("_", " "), _fact(value)) for name, value in one.facts.items())
        yield Check(_STATES[one.status], CONTROL_NAMES[one.name], CONTROLS[one.name], one.summary, facts)


def _fact(value: float | str | None) -> str:
    return value if isinstance(value, str) else "–" if value is None else f"{value:.4g}"


def _findings(record: AuditRecord) -> Iterator[Finding]:
    """From the weakest adversary up, those that reach the same together, until none of the stronger adds anything."""
    examined = [level for level in record.levels if level.examined]
    most = max((level.recovered for level in examined), default=0)
    for what, group in groupby(examined, key=lambda level: _rebuilt(record, level)):
        same = list(group)
        breached = same[0].recovered > 0
        named = same[0] if breached else same[-1]
        who = WHO[named.level]
        if not breached and len(same) > 1:
            who = f"{'all ' * (same == examined)}{len(same)} adversaries, the strongest of them {who}"
        yield Finding(who, what, breached, _condition(named))
        if breached and named.recovered == most:
            if named is not examined[-1]:
                yield Finding("every stronger adversary that was examined", "at least as much", True)
            return


def _rebuilt(record: AuditRecord, level: LevelRecord) -> str:
    if not any(attack.outcomes for attack in record.ran):
        return "not scored, for lack of the private examples"
    if not level.recovered:
        return f"none of {record.num_examples}"
    best = _speaker(record, level)
    exact = best.outcomes.count("exact") if best else 0
    how = "exactly" if exact == level.recovered else f"recognisably{f' ({exact} of them exactly)' * bool(exact)}"
    return f"{level.recovered} of {record.num_examples}, {how}"


def _speaker(record: AuditRecord, level: LevelRecord) -> AttackRecord | None:
    """The attack that a rung's counts come from."""
    wanted = (level.strongest, level.strongest_level, level.strongest_informed)
    return next((a for a in record.ran if (a.attack, a.level, a.informed) == wanted), None)


def _condition(level: LevelRecord) -> str:
    """What a rung takes for granted where something was rebuilt on it, beyond what its name says."""
    plain = level.reason.startswith(("same as", "assumes that")) or not level.recovered
    return "" if plain else level.reason


def _assurances(record: AuditRecord) -> Iterator[Assurance]:
    yield _sample(record)
    yield _portfolio(record)
    for control in record.controls:
        state = _STATES[control.status]
        meaning = f": {SHORTCOMINGS[control.name]}" if state in ("bad", "open") else ""
        yield Assurance(state, CONTROL_NAMES[control.name], CONTROL_STATES[control.status] + meaning)
    if not record.controls:
        yield Assurance("open", "controls", "none on record: this result is from before they were kept")


def _sample(record: AuditRecord) -> Assurance:
    n, status = record.num_examples, record.verdict.status
    few = ", which is few" if n < FEW else ""
    examined = [level for level in record.levels if level.examined]
    level = next((one for one in examined if one.level == record.verdict.level), examined[-1] if examined else None)
    share = ""
    if level is not None and level.recovered_interval is not None and status != "inconclusive":
        low, high = (round(100 * end) for end in level.recovered_interval)
        share = f"{low} to {high} % of such examples come back" if status == "leaks" else f"at most {high} % come back"
        share = f": {share} (95 % interval)"
    return Assurance("open" if few else "good", "sample", f"{n} {'example' if n == 1 else 'examples'}{few}{share}")


def _portfolio(record: AuditRecord) -> Assurance:
    names = list(dict.fromkeys(row.attack.attack for row in attack_rows(record) if row.attack in record.ran))
    ran = f"{len(names)} {'attack' if len(names) == 1 else 'attacks'} ran ({', '.join(names)})" if names else "none ran"
    if record.portfolio == "chosen" and record.verdict.status != "leaks":
        return Assurance("bad", "attacks", f"{ran}, chosen by hand: this says nothing about others")
    return Assurance("good" if names else "bad", "attacks", ran)


def _unexamined(record: AuditRecord) -> Iterator[tuple[str, str]]:
    for level in record.levels:
        if not level.examined:
            yield WHO[level.level], spelled(level.reason, {level.level})
    for status, words in (("failed", "broke off with an error"), ("skipped", "had no turn")):
        names = _names(record.attacks, status)
        if names and (status == "failed" or record.verdict.status != "leaks"):
            yield names, words


def _names(attacks: Sequence[AttackRecord], status: str) -> str:
    ran = {attack.attack for attack in attacks if attack.status == "ran"}
    return ", ".join(dict.fromkeys(a.attack for a in attacks if a.status == status and a.attack not in ran))


def _todo(record: AuditRecord) -> Iterator[str]:
    """What is missing beyond the controls that are named already, what would finish it, and the way out."""
    verdict, named = record.verdict, {control.summary for control in record.controls}
    missing = [sentence for sentence in verdict.missing if sentence not in named]
    yield from missing[:MOST_MISSING]
    if len(missing) > MOST_MISSING:
        yield f"{len(missing) - MOST_MISSING} more reasons are given with the verdict's details."
    if verdict.status == "inconclusive" and verdict.needs_seconds is None:
        yield "More time alone would not settle it."
    elif verdict.needs_seconds is not None and "budget" not in verdict.remedy:
        needed, had = duration(verdict.needs_seconds), duration(record.budget_seconds)
        yield f"A budget of about {needed} would let every attack finish; this audit had {had}."
    if verdict.remedy:
        yield verdict.remedy
