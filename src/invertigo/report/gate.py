"""Limits for continuous integration: `psnr.worst > 20` fails a build; what cannot be known never passes it."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from invertigo.auditing.gaps import is_certified
from invertigo.auditing.record import AttackRecord, AuditRecord, MetricRecord, count_recovered
from invertigo.auditing.unproven import unproven
from invertigo.types.errors import ConfigurationError, did_you_mean

AGGREGATES = ("worst", "best", "mean", "median")
COUNTS = ("recovered", "identified", "labels.accuracy", "level")
_OPERATORS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "==": operator.eq}
_EXPRESSION = re.compile(
    r"\s*(?P<name>[A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*)?)\s*(?P<op><=|>=|==|<|>)\s*"
    r"(?P<bound>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*"
)


@dataclass(frozen=True)
class Limit:
    """`quantity op bound`: the build fails when the comparison holds."""

    quantity: str
    aggregate: str
    comparison: str
    bound: float

    def __str__(self) -> str:
        name = f"{self.quantity}.{self.aggregate}" if self.aggregate else self.quantity
        return f"{name} {self.comparison} {self.bound:g}"


@dataclass(frozen=True)
class Finding:
    """A limit beside the value that was measured (None: it was not measured)."""

    limit: Limit
    value: float | None
    certain: bool = True
    """More attacks could only exceed it further: it bounds what was rebuilt from above."""

    @property
    def exceeded(self) -> bool:
        """The forbidden comparison holds."""
        return self.value is not None and _OPERATORS[self.limit.comparison](self.value, self.limit.bound)


@dataclass(frozen=True)
class Gate:
    """The answer to a build: `within`, `exceeded` or `inconclusive`, with its evidence."""

    title: str
    findings: tuple[Finding, ...]
    doubts: tuple[str, ...]
    """Why the result cannot be believed either way; any doubt makes it inconclusive."""

    @property
    def status(self) -> Literal["within", "exceeded", "inconclusive"]:
        """What was rebuilt was rebuilt, whatever else is in doubt; that nothing more can be, is what doubt forbids."""
        beyond = [finding for finding in self.findings if finding.exceeded]
        if any(finding.certain for finding in beyond):
            return "exceeded"
        if self.doubts:
            return "inconclusive"
        return "exceeded" if beyond else "within"

    @property
    def exit_code(self) -> int:
        """0 within limits, 1 exceeded, 3 inconclusive."""
        return {"within": 0, "exceeded": 1, "inconclusive": 3}[self.status]


PRECEDENCE = (1, 3, 0)
"""Of several audits: one beyond its limit fails the build; else one that cannot tell keeps it from passing."""


def exit_code_of(gates: Sequence[Gate]) -> int:
    """The exit code of several audits together: 1 when any is exceeded, else 3 when any is inconclusive, else 0."""
    return min((gate.exit_code for gate in gates), key=PRECEDENCE.index, default=3)


def parse_limit(text: str, record: AuditRecord) -> Limit:
    """Read `metric[.aggregate] op number`; a metric without an aggregate means its worst example.

    Raises: ConfigurationError for another grammar, an unknown metric or an unknown aggregate.
    """
    match = _EXPRESSION.fullmatch(text)
    if match is None:
        raise ConfigurationError(
            f"The limit {text!r} cannot be read. Write `metric[.aggregate] op number`, for example "
            f"'psnr.worst > 20' or 'recovered > 0'; operators are {' '.join(_OPERATORS)}."
        )
    name, comparison, bound = match["name"], match["op"], float(match["bound"])
    if name in COUNTS:
        return Limit(name, "", comparison, bound)
    quantity, _, aggregate = name.partition(".")
    metrics = [metric.name for metric in record.metrics]
    if quantity not in metrics:
        known = [*metrics, *COUNTS]
        raise ConfigurationError(
            f"The limit {text!r} names '{name}', which this result does not have."
            f"{did_you_mean(name, known) or did_you_mean(quantity, known)} Known: {', '.join(known)}."
        )
    if aggregate and aggregate not in AGGREGATES:
        raise ConfigurationError(
            f"The limit {text!r} asks for the aggregate '{aggregate}'.{did_you_mean(aggregate, AGGREGATES)} "
            f"Known: {', '.join(AGGREGATES)}."
        )
    return Limit(quantity, aggregate or "worst", comparison, bound)


def check(
    record: AuditRecord, limits: Sequence[str] = (), *, level: int | None = None, require_controls: bool = True
) -> Gate:
    """Hold a result against its limits (default: `recovered > 0`); `level` ignores attacks on higher rungs.

    Each example counts with the strongest of all attacks on it, whichever attack that was.

    Args:
        require_controls: that no more can be rebuilt than was, is believed only when the controls passed that must
            stand behind it, on rungs up to `level`.
    """
    parsed = [parse_limit(text, record) for text in (limits or ["recovered > 0"])]
    attacks = [attack for attack in record.ran if level is None or attack.level <= level]
    findings = tuple(Finding(limit, measure(record, attacks, limit), _bounds_leaks(record, limit)) for limit in parsed)
    return Gate(record.title, findings, tuple(_doubts(record, findings, level, require_controls)))


def measure(record: AuditRecord, attacks: Sequence[AttackRecord], limit: Limit) -> float | None:
    """The value that a limit speaks of; None when the audit did not measure it."""
    if limit.quantity == "level":
        if record.verdict.status == "resists":
            return math.inf
        return None if record.verdict.level is None else float(record.verdict.level)
    if not attacks:
        return None
    if limit.quantity == "recovered":
        return _recovered(record, attacks)
    if limit.quantity == "identified":
        ranked = [attack.ranks for attack in attacks if attack.ranks and attack.decoys]
        return float(sum(1 in ranks for ranks in zip(*ranked))) if ranked else None
    if limit.quantity == "labels.accuracy":
        inferred = [a.label_accuracy for a in attacks if a.labels == "inferred" and a.label_accuracy is not None]
        return max(inferred, default=None)
    metric = next(metric for metric in record.metrics if metric.name == limit.quantity)
    values = _strongest_per_example(attacks, metric)
    if not values or any(math.isnan(value) for value in values):
        return None
    most, least = (max, min) if metric.privacy_loss else (min, max)
    return {"worst": most, "best": least, "mean": fmean, "median": median}[limit.aggregate](values)


def _recovered(record: AuditRecord, attacks: Sequence[AttackRecord]) -> float | None:
    """Without a truth to count by, a certified solution shows at least one example."""
    if any(attack.outcomes for attack in attacks):
        return float(count_recovered(attacks))
    return 1.0 if record.verdict.status == "leaks" and any(map(is_certified, attacks)) else None


def _strongest_per_example(attacks: Sequence[AttackRecord], metric: MetricRecord) -> list[float]:
    scores = [attack.scores[metric.name] for attack in attacks if attack.scores.get(metric.name)]
    most = max if metric.privacy_loss else min
    return [math.nan if any(map(math.isnan, values)) else most(values) for values in zip(*scores)]


def _bounds_leaks(record: AuditRecord, limit: Limit) -> bool:
    """The limit is exceeded by more being rebuilt, rather than by less."""
    metric = next((metric for metric in record.metrics if metric.name == limit.quantity), None)
    upwards = limit.quantity != "level" if metric is None else metric.privacy_loss
    return limit.comparison in ((">", ">=") if upwards else ("<", "<="))


def _doubts(record: AuditRecord, findings: Sequence[Finding], level: int | None, require_controls: bool) -> list[str]:
    doubts = [f"The audit is inconclusive: {record.verdict.headline}"] * (record.verdict.status == "inconclusive")
    doubts += [f"Fatal flag '{flag.code}': {flag.message}" for flag in record.flags if flag.severity == "fatal"]
    if record.verdict.status != "inconclusive":
        missing = unproven(record, level, require_controls=require_controls)
        if any(finding.limit.quantity == "level" for finding in findings):
            missing += _below_the_leak(record, require_controls)
        doubts += [f"That no more can be rebuilt is not shown: {reason}." for reason in missing]
    doubts += [f"'{finding.limit}' was not measured." for finding in findings if finding.value is None]
    return doubts


def _below_the_leak(record: AuditRecord, require_controls: bool) -> list[str]:
    """Why the lowest rung with a leak may not be the lowest, where attacks set out on rungs below it."""
    lowest = record.verdict.level
    if lowest is None or not any(attack.level < lowest for attack in record.attacks):
        return []
    return unproven(record, lowest - 1, require_controls=require_controls)
