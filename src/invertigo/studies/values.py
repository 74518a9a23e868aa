"""What a claim or a table reads from one cell: `psnr.mean`, `recovered`, `labels.accuracy`, `over_guess`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from invertigo.auditing.record import AttackRecord, AuditRecord, BaselineRecord, MetricRecord
from invertigo.studies.guard_values import GUARD, read_guard
from invertigo.types.errors import ConfigurationError, did_you_mean

AGGREGATES = ("mean", "median", "worst", "best")
"""Of a per-example score; `worst` and `best` are seen from the private person's side."""

COUNTS: Mapping[str, str] = {
    "recovered": "private examples rebuilt",
    "recovered.share": "share of the private examples rebuilt",
    "identified": "private examples picked out among strangers",
    "identified.share": "share of the private examples picked out among strangers",
    "labels.accuracy": "share of the labels inferred",
    "over_guess": "headline score above the best guess that reads nothing",
    "residual": "relative distance of the rebuilt examples' update from the observed one",
}
"""Values of an attack that are no score, with what they mean."""

CLIENT: Mapping[str, str] = {
    "utility": "accuracy of a model that was trained on the released updates",
    "undefended.share": "share of the releases that are the raw update",
    "defense.cosine": "cosine of the release to the raw update",
    "defense.bytes": "bytes of one release",
}
"""Values of the client, whatever the attack."""


@dataclass(frozen=True)
class Value:
    """A named number of a cell: a metric with its aggregate, or one of COUNTS (then `aggregate` is empty)."""

    name: str
    aggregate: str = ""

    def __str__(self) -> str:
        return f"{self.name}.{self.aggregate}" if self.aggregate else self.name


@dataclass(frozen=True)
class Reading:
    """A value read from one cell, or the reason why it could not be.

    `examples` are the per-example values behind a mean, in the order of the truth; empty where there are none.
    """

    number: float | None
    examples: tuple[float, ...] = ()
    reason: str = ""


def parse_value(text: str) -> Value:
    """`metric.aggregate`, a bare metric (its mean), or one of COUNTS. Raises: ConfigurationError."""
    if text in COUNTS or text in CLIENT or text in GUARD:
        return Value(text)
    name, _, aggregate = text.partition(".")
    if not name.isidentifier() or (aggregate and aggregate not in AGGREGATES):
        near = did_you_mean(text, [*COUNTS, *CLIENT, *GUARD, *(f"{name}.{a}" for a in AGGREGATES)])
        raise ConfigurationError(
            f"'{text}' is no value of a cell.{near} Write metric.aggregate with {', '.join(AGGREGATES)}, "
            f"or one of {', '.join([*COUNTS, *CLIENT, *GUARD])}."
        )
    return Value(name, aggregate or "mean")


def strongest(
    record: AuditRecord, *, attack: Any = None, level: Any = None, informed: Any = None
) -> AttackRecord | None:
    """The attack that rebuilt most among those called `attack` on rung `level` (None: any).

    `informed` is False for the adversary who does not know the defense, True for the one who does (where there is no
    defense, or nothing to know of it, the two are one), and None for the stronger of both.
    Most examples recovered, then most identified, then the most exposed example; the lower rung wins a tie.
    """
    headline = record.metrics[0]
    sign = 1 if headline.privacy_loss else -1

    def strength(one: AttackRecord) -> tuple[float, ...]:
        most = max(sign * s for s in one.scores[headline.name])
        return float(one.recovered), float(one.identified), float(most), -float(one.level)

    asked = [one for one in record.ran if _asked(record, one, attack, level, informed)]
    scored = [one for one in asked if one.scores.get(headline.name)]
    return max(scored, key=strength, default=None)


def read(record: AuditRecord, value: Value, *, attack: Any = None, level: Any = None, informed: Any = None) -> Reading:
    """`value` of the strongest attack in question, of the client, or of its guard; arguments as in `strongest`.

    For a guard, `attack` is the label or the attack of an adversary, or a list of them.

    Raises: ConfigurationError for a metric nobody reports.
    """
    _check_metric(record, value)
    if value.name in CLIENT:
        return _of_client(record, value.name)
    if value.name in GUARD:
        return _of_guard(record, value.name, attack)
    chosen = strongest(record, attack=attack, level=level, informed=informed)
    if chosen is None:
        return Reading(None, reason=_why_none(record, attack, level, informed))
    return read_attack(record, chosen, value)


def read_attack(record: AuditRecord, attack: AttackRecord, value: Value) -> Reading:
    """`value` of one attack that ran."""
    if value.name in COUNTS:
        return _READERS[value.name](record, attack)
    metric = next(metric for metric in record.metrics if metric.name == value.name)
    scores = attack.scores.get(value.name, [])
    if not scores:
        return Reading(None, reason=f"{attack.attack} has no {metric.label}")
    number = float(aggregate(scores, metric, value.aggregate))
    return Reading(number, tuple(scores) if value.aggregate == "mean" else ())


def aggregate(scores: Sequence[float], metric: MetricRecord, how: str) -> float:
    """One number for a batch: its mean, median, or its worst or best example for the private person."""
    if how in ("worst", "best"):
        return (max if (how == "worst") == metric.privacy_loss else min)(scores)
    return fmean(scores) if how == "mean" else median(scores)


def best_guess(record: AuditRecord) -> BaselineRecord | None:
    """The baseline with the best mean headline score, of those that a guesser without the truth could make."""
    from invertigo.evaluation import Criteria

    headline = record.metrics[0]
    sign = 1 if headline.privacy_loss else -1
    fair = [b for b in record.baselines if b.name not in Criteria().oracles and b.scores.get(headline.name)]
    return max(fair, key=lambda guess: sign * fmean(guess.scores[headline.name]), default=None)


def _asked(record: AuditRecord, one: AttackRecord, attack: Any, level: Any, informed: Any) -> bool:
    if informed is not None and bool(informed) != one.informed and any(a.informed for a in record.attacks):
        return False
    return attack in (None, one.attack) and (level is None or str(level) == str(one.level))


def _of_client(record: AuditRecord, name: str) -> Reading:
    defense, utility = record.defense, record.utility
    if name == "utility":
        return _known(utility.accuracy if utility else None, "the scenario measures no utility")
    if defense is None:
        return Reading(None, reason="the client has no defense")
    if name == "undefended.share":
        sent = None if defense.undefended is None else defense.undefended / defense.releases
        return _known(sent, "the releases were not compared with the raw update")
    return _known(getattr(defense, name.removeprefix("defense.")), "the releases were not measured")


def _of_guard(record: AuditRecord, name: str, attack: Any) -> Reading:
    found = read_guard(record.guard, name, attack) if record.guard else "the scenario has no guarded federation"
    return Reading(None, reason=found) if isinstance(found, str) else Reading(found)


def _why_none(record: AuditRecord, attack: Any, level: Any, informed: Any) -> str:
    asked = [one for one in record.attacks if _asked(record, one, attack, level, informed)]
    if asked:
        one = asked[0]
        return f"{one.attack} has no scores" if one.status == "ran" else f"{one.attack} {one.status}: {one.reason}"
    what = "no attack" if attack is None else f"no attack called {attack}"
    return what + ("" if level is None else f" on rung {level}")


def _check_metric(record: AuditRecord, value: Value) -> None:
    known = [metric.name for metric in record.metrics]
    options = [*known, *COUNTS, *CLIENT, *GUARD]
    if value.name not in options:
        raise ConfigurationError(
            f"No cell reports '{value.name}'.{did_you_mean(value.name, options)} Known: {', '.join(options)}."
        )


def _share(hits: Sequence[bool]) -> Reading:
    values = tuple(map(float, hits))
    return Reading(fmean(values), values) if values else Reading(None, reason="outcomes were not scored")


def _recovered(record: AuditRecord, attack: AttackRecord) -> Reading:
    return _share([outcome != "nothing" for outcome in attack.outcomes])


def _identified(record: AuditRecord, attack: AttackRecord) -> Reading:
    return _share([rank == 1 for rank in attack.ranks])


def _counted(reader: Callable[[AuditRecord, AttackRecord], Reading]) -> Callable[..., Reading]:
    def count(record: AuditRecord, attack: AttackRecord) -> Reading:
        found = reader(record, attack)
        return Reading(None, reason=found.reason) if found.number is None else Reading(float(sum(found.examples)))

    return count


def _over_guess(record: AuditRecord, attack: AttackRecord) -> Reading:
    headline, guess = record.metrics[0], best_guess(record)
    if guess is None:
        return Reading(None, reason="no guess was scored beside the attack")
    sign = 1 if headline.privacy_loss else -1
    mine, theirs = attack.scores[headline.name], guess.scores[headline.name]
    gains = tuple(sign * (a - b) for a, b in zip(mine, theirs))
    return Reading(fmean(gains), gains)


def _known(number: float | None, why: str) -> Reading:
    missing = number is None or math.isnan(number)
    return Reading(None, reason=why) if missing else Reading(number)


_READERS: Mapping[str, Callable[[AuditRecord, AttackRecord], Reading]] = {
    "recovered": _counted(_recovered),
    "recovered.share": _recovered,
    "identified": _counted(_identified),
    "identified.share": _identified,
    "labels.accuracy": lambda _, attack: _known(attack.label_accuracy, f"{attack.attack} inferred no labels"),
    "over_guess": _over_guess,
    "residual": lambda _, attack: _known(attack.residual, f"no update was simulated for {attack.attack}"),
}
