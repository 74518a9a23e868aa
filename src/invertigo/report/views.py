"""What one audit looks like on the page: decided here, drawn by the templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from invertigo.auditing.record import AttackRecord, AuditRecord, LevelRecord
from invertigo.report.curves import Curve, curve
from invertigo.report.defense import DefensePanel, defense_panel
from invertigo.report.numbers import duration, number
from invertigo.report.pictures import Exposed, exposed
from invertigo.report.tables import Row, attack_rows, baseline_rows, leaked_order, strongest

if TYPE_CHECKING:
    from invertigo.auditing import Audit

MAX_SHOWN = 32
"""Examples drawn on the page; the rest are in the embedded result."""
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
    figures: tuple[tuple[str, str], ...]
    top: LevelRecord | None
    defense: DefensePanel | None = None

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
        figures=tuple(_figures(record, attack)),
        top=max((level for level in record.levels if level.examined), key=lambda level: level.level, default=None),
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


def _figures(record: AuditRecord, attack: AttackRecord | None) -> list[tuple[str, str]]:
    """The handful of numbers under the headline."""
    headline, total = record.metrics[0], record.num_examples
    examined = [level for level in record.levels if level.examined]
    recovered = max((level.recovered for level in examined), default=0)
    found = [("examples rebuilt", f"{recovered} of {total}")]
    if attack and attack.ranks:
        identified = max(level.identified for level in examined) if examined else attack.identified
        found.append((f"picked out among {attack.decoys} strangers", f"{identified} of {total}"))
    if attack and attack.scores.get(headline.name):
        most = max if headline.privacy_loss else min
        found.append(
            (f"worst {headline.label}", f"{number(most(attack.scores[headline.name]), headline.unit)} {headline.unit}")
        )
    rung = record.verdict.level
    found.append(("lowest rung that suffices", "none" if rung is None else f"rung {rung}"))
    return [*found, ("computing time", duration(record.seconds))]
