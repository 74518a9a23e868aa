"""The rows that the page and the terminal both print: attacks first, then the guesses that read nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

from invertigo.auditing.record import AttackRecord, AuditRecord, MetricRecord


@dataclass(frozen=True)
class Summary:
    """Aggregates of a per-example score; `worst` and `best` are seen from the private person's side."""

    worst: float
    best: float
    median: float
    mean: float
    values: Sequence[float] = field(default=(), repr=False)


def summarise(values: Sequence[float], metric: MetricRecord) -> Summary | None:
    """Worst, best, median and mean; None when there is no value or one of them is NaN."""
    if not values or any(math.isnan(value) for value in values):
        return None
    low, high = min(values), max(values)
    worst, best = (high, low) if metric.privacy_loss else (low, high)
    return Summary(worst, best, median(values), fmean(values), tuple(values))


@dataclass(frozen=True)
class Row:
    """One attack, or one guess that reads nothing from the update."""

    label: str
    summaries: dict[str, Summary | None]
    attack: AttackRecord | None = None


def attack_rows(record: AuditRecord) -> list[Row]:
    """The attacks, strongest first; those that did not run come last, in the order they were tried."""
    ran = sorted(record.ran, key=lambda attack: strength(record, attack), reverse=True)
    rest = [attack for attack in record.attacks if attack.status != "ran"]
    return [Row(_called(attack), _summaries(record, attack.scores), attack) for attack in [*ran, *rest]]


def _called(attack: AttackRecord) -> str:
    return f"{attack.attack}, informed" if attack.informed else attack.attack


def baseline_rows(record: AuditRecord) -> list[Row]:
    """The no-information guesses, best one first."""
    rows = [Row(baseline.label, _summaries(record, baseline.scores)) for baseline in record.baselines]
    headline = record.metrics[0]
    return sorted(rows, key=lambda row: _median(row, headline), reverse=True)


def gain(record: AuditRecord, row: Row) -> float | None:
    """By how much the row's median beats the best guess that reads nothing; positive means information leaked."""
    headline, best = record.metrics[0], next(iter(baseline_rows(record)), None)
    mine = row.summaries.get(headline.name)
    theirs = best.summaries.get(headline.name) if best else None
    if mine is None or theirs is None:
        return None
    return (mine.median - theirs.median) * (1 if headline.privacy_loss else -1)


def strength(record: AuditRecord, attack: AttackRecord) -> tuple[float, ...]:
    """Sort key: examples recovered, then identified, then the worst headline score; the lower rung wins a tie."""
    headline = record.metrics[0]
    summary = summarise(attack.scores.get(headline.name, []), headline)
    worst = -math.inf if summary is None else summary.worst * (1 if headline.privacy_loss else -1)
    return float(attack.recovered), float(attack.identified), worst, -float(attack.level)


def leaked_order(record: AuditRecord, attack: AttackRecord) -> list[int]:
    """Indices of the private examples, the most exposed one first."""
    headline = record.metrics[0]
    sign = 1 if headline.privacy_loss else -1
    values = attack.scores.get(headline.name, [])
    return sorted(range(len(values)), key=lambda i: (math.isnan(values[i]), -sign * values[i]))


def strongest(record: AuditRecord) -> AttackRecord | None:
    """The attack whose pictures the report shows."""
    return max(record.ran, key=lambda attack: strength(record, attack), default=None)


def cite(record: AuditRecord, paper: str) -> str:
    """`Zhu et al. (2019)` for the key of a citation; any other text as it is."""
    entry = record.citations.get(paper, "")
    author, year = (re.search(rf"^\s*{name} = {{(.*)}}", entry, re.M) for name in ("author", "year"))
    if author is None or year is None:
        return paper
    names = author[1].split(" and ")
    first = names[0].split(",")[0] if "," in names[0] or names[0].startswith("The ") else names[0].split()[-1]
    return f"{first}{' et al.' if len(names) > 1 else ''} ({year[1]})"


def _summaries(record: AuditRecord, scores: dict[str, list[float]]) -> dict[str, Summary | None]:
    return {metric.name: summarise(scores.get(metric.name, []), metric) for metric in record.metrics}


def _median(row: Row, metric: MetricRecord) -> float:
    summary = row.summaries[metric.name]
    return -math.inf if summary is None else summary.median * (1 if metric.privacy_loss else -1)
