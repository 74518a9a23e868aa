"""What one audit looks like on the page: decided here, drawn by the templates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from invertigo.auditing.record import AttackRecord, AuditRecord
from invertigo.report.answer import Answer, Check, answer, checks
from invertigo.report.curves import Curve, curve
from invertigo.report.defense import DefensePanel, defense_panel
from invertigo.report.numbers import number
from invertigo.report.pictures import Exposed, Picture, exposed, strangers
from invertigo.report.subject import same_client
from invertigo.report.tables import Row, attack_rows, baseline_rows, leaked_order, strongest

if TYPE_CHECKING:
    from invertigo.auditing import Audit

MAX_SHOWN = 32
"""Examples drawn on the page; the rest are in the embedded result."""
MAX_OPEN = 8
"""Examples drawn at once; those after them are folded."""
PROSE = ("title", "description", "expect", "compare")
"""Keys of a scenario that are no part of the setting."""
OUTCOMES = {
    "exact": "rebuilt exactly",
    "recognisable": "recognisable",
    "nothing": "not recognisable",
    "unscored": "not scored",
}


@dataclass(frozen=True)
class Example:
    """One private example under the strongest attack."""

    number: int
    outcome: str
    scores: tuple[tuple[str, str], ...]
    rank: str
    pictures: Exposed


@dataclass(frozen=True)
class View:
    """One audit, ready to print."""

    record: AuditRecord
    anchor: str
    answer: Answer
    checks: tuple[Check, ...]
    attack: AttackRecord | None
    examples: tuple[Example, ...]
    hidden: int
    attacks: tuple[Row, ...]
    baselines: tuple[Row, ...]
    thumbnails: Mapping[int, Exposed]
    """The most exposed example as each attack rebuilt it, by position in `attacks`."""
    curves: tuple[Curve, ...]
    originals: bool
    redacted: bool
    facts: tuple[tuple[str, str], ...]
    strangers: tuple[Picture, ...] = ()
    """Public examples of the line-up that the first example won, where its original is withheld."""
    defense: DefensePanel | None = None
    beside: tuple[str, ...] = ()
    """What another part of the page says about the same client."""

    @property
    def cautions(self) -> str:
        """`1 fatal flag, 2 cautions`; empty where there are none."""
        severities = [flag.severity for flag in self.record.flags]
        fatal, warnings = severities.count("fatal"), severities.count("warning")
        counts = [(fatal, "fatal flag"), (warnings, "caution")]
        return ", ".join(f"{n} {word}{'s' * (n > 1)}" for n, word in counts if n)

    @property
    def pictured(self) -> bool:
        """There is at least one picture to show."""
        return any(example.pictures.rebuilt or example.pictures.truth for example in self.examples)

    @property
    def differs(self) -> bool:
        """This kind of data shows a difference of two examples, or there is none to show for lack of originals."""
        return any(example.pictures.difference for example in self.examples) or not self.originals

    @property
    def why_hidden(self) -> str:
        """Why the private originals do not appear."""
        if self.redacted:
            return "This copy is redacted: it holds scores only."
        if self.attack and not self.attack.scores:
            return "This audit was not given the private examples."
        if self.record.private:
            return "The originals are private and were left out; --include-originals would show them."
        return "The originals were not kept with this result."


def view(audit: Audit, *, anchor: str, include_originals: bool | None, redact: bool) -> View:
    """Gather what the page says about one audit; `include_originals=None` shows originals of public data only."""
    record, attack = audit.record, strongest(audit.record)
    allowed = not redact and shows_originals(record, include_originals)
    order = (leaked_order(record, attack) or _unscored(audit, attack)) if attack else []
    shown = order[:MAX_SHOWN]
    nothing = {i: Exposed(None, None, None) for i in shown}
    pictures = nothing if redact or attack is None else exposed(audit, attack, originals=allowed, only=shown)
    rows = attack_rows(record)
    return View(
        record=record,
        answer=answer(record),
        checks=tuple(checks(record)),
        defense=defense_panel(record),
        anchor=anchor,
        attack=attack,
        examples=tuple(_example(record, attack, i, pictures[i]) for i in shown) if attack else (),
        hidden=len(order) - len(shown),
        attacks=tuple(rows),
        baselines=tuple(baseline_rows(record)),
        thumbnails={} if redact or not order else _thumbnails(audit, rows, order[0]),
        curves=tuple(c for row in rows if row.attack and (c := curve(row.attack))),
        originals=allowed and audit.originals is not None,
        redacted=redact,
        facts=tuple(facts(record.scenario)),
        strangers=() if redact or allowed or not order else _strangers(audit, attack, order[0]),
    )


def shows_originals(record: AuditRecord, include_originals: bool | None) -> bool:
    """Originals appear when the data are public, or when somebody asked for them."""
    return (not record.private) if include_originals is None else include_originals


def facts(scenario: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Leaves of the scenario as (name, value), nested names joined by dots, unset ones left out."""
    found: list[tuple[str, str]] = []
    for key, value in scenario.items():
        if key in PROSE:
            continue
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found += facts(value, f"{name}.")
        elif isinstance(value, bool):
            found.append((name, "yes" if value else "no"))
        elif value not in (None, "", [], ()):
            found.append((name, ", ".join(map(_entry, value)) if isinstance(value, (list, tuple)) else str(value)))
    return found


def _entry(value: Any) -> str:
    """One member of a list: an attack with its settings reads `name (iterations 200)`."""
    if not isinstance(value, Mapping):
        return str(value)
    settings = ", ".join(f"{key} {setting}" for key, setting in value.items() if key != "name")
    return f"{value['name']} ({settings})" if "name" in value else settings


def differences(views: Sequence[View]) -> list[tuple[str, list[str]]]:
    """The facts in which several audits differ, a value for each."""
    tables = [dict(v.facts) for v in views]
    names = dict.fromkeys(name for table in tables for name in table)
    rows = [(name, [table.get(name, "–") for table in tables]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def beside(views: Sequence[View]) -> list[View]:
    """The views, each told when another part rebuilt more of the very client that it speaks about."""
    return [replace(one, beside=tuple(_same_client(one, views))) for one in views]


def _same_client(one: View, views: Sequence[View]) -> Iterator[str]:
    for position, other in enumerate(views, start=1):
        mine, theirs = ((v.attack.recovered if v.attack else 0) for v in (one, other))
        if other is not one and theirs > mine and same_client(one.record, other.record):
            yield (
                f"Part {position} looks at the same client and rebuilt {theirs} of {other.record.num_examples}. "
                "This part tells what its own attacks reach, and nothing about the client's safety."
            )


def _unscored(audit: Audit, attack: AttackRecord) -> list[int]:
    """The rebuilt examples in the attack's own order, when there was no truth to score them against."""
    sizes = [len(t) for name, t in audit.reconstructions.items() if name.startswith(f"{attack.tensors}/")]
    return list(range(min(sizes, default=0)))


def _example(record: AuditRecord, attack: AttackRecord, index: int, pictures: Exposed) -> Example:
    scores = tuple(
        (
            metric.label,
            number(attack.scores[metric.name][index], metric.unit) + (f" {metric.unit}" if metric.unit else ""),
        )
        for metric in record.metrics
        if attack.scores.get(metric.name)
    )
    rank = f"{attack.ranks[index]} of {attack.decoys + 1}" if attack.ranks else ""
    outcome = attack.outcomes[index] if attack.outcomes else "unscored"
    return Example(index + 1, outcome, scores, rank, pictures)


def _thumbnails(audit: Audit, rows: Sequence[Row], example: int) -> dict[int, Exposed]:
    return {
        position: exposed(audit, row.attack, originals=False, only=[example])[example]
        for position, row in enumerate(rows)
        if row.attack is not None and row.attack.status == "ran"
    }


def _strangers(audit: Audit, attack: AttackRecord | None, example: int) -> tuple[Picture, ...]:
    """The line-up is shown of an example that won it, and of no other."""
    won = attack is not None and bool(attack.ranks) and attack.ranks[example] == 1
    return tuple(strangers(audit)) if won else ()
