"""Sanity flags about the instrument: that it could work on these examples, and that it was seen to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from invertigo.auditing.evidence import Evidence
from invertigo.auditing.record import AttackRecord, FlagRecord

NEARER = 6.0
"""Decibels: half the error."""
SELDOM = 0.01
"""Of a guess without information, at one attack on one rung. One hit of one example among 100 decoys is as seldom."""
OUTSIDE = 1e-3
"""A quarter of a grey level: rounding of stored pixels, not another normalisation."""
FAINT = 0.05
"""Part of the range that examples must take up, or scores in parts of that range tell little of them."""

Flags = Iterator[FlagRecord]


def _doubtful(e: Evidence) -> Flags:
    doubtful = [a for a in e.ran if a.doubtful]
    if doubtful:
        yield FlagRecord(
            code="doubtful_recognition",
            severity="warning",
            message=f"{_named(doubtful)} drew pictures that resemble private ones, yet score no better than a guess "
            "that reads nothing; they count as not rebuilt, and forbid to say that nothing was.",
            remedy="Look at the pictures; a longer search tells more.",
        )


def _likeness(e: Evidence) -> Flags:
    """Half the error of the best guess, or less, is information from the update, whatever a person would recognise."""
    if not e.metrics or e.metrics[0].unit != "dB":
        return
    name = e.metrics[0].name
    guesses = [b.scores[name] for b in e.baselines if b.scores.get(name)]
    near = [a for a in e.ran if guesses and _nearer(a.scores.get(name, []), a.outcomes, guesses)]
    if near:
        yield FlagRecord(
            code="unrecognised_likeness",
            severity="warning",
            message=f"{_named(near)} came more than {NEARER:g} dB nearer to a private example than every guess that "
            "reads nothing, though it does not count as recognisable.",
            remedy="Look at the pictures: what they show came out of the update.",
        )


def _nearer(scores: Sequence[float], outcomes: Sequence[str], guesses: Sequence[Sequence[float]]) -> bool:
    best = map(max, zip(*guesses))
    return any(o == "nothing" and s > g + NEARER for s, o, g in zip(scores, outcomes, best))


def _identified(e: Evidence) -> Flags:
    """First in the line-up more often than chance: something of the example came through, if only to a machine."""
    beyond = [a for a in e.ran if _chance(a) < SELDOM]
    if beyond:
        yield FlagRecord(
            code="identified_beyond_chance",
            severity="warning",
            message=f"{_named(beyond)} drew pictures by which private examples come first in their line-up more often "
            "than by chance, though they do not count as recognisable.",
            remedy="An observer with a trained eye or a trained network may tell who was in the batch.",
        )


def _chance(attack: AttackRecord) -> float:
    """Probability that a guess without information puts so many of the examples not rebuilt first in the line-up."""
    ranks = [rank for rank, outcome in zip(attack.ranks, attack.outcomes) if outcome == "nothing"]
    hits, n, p = ranks.count(1), len(ranks), 1 / (1 + attack.decoys)
    return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(hits, n + 1)) if hits else 1.0


def _outside_range(e: Evidence) -> Flags:
    if e.outside_range > OUTSIDE:
        yield FlagRecord(
            code="outside_range",
            severity="fatal",
            message=f"The private examples leave the range that their domain states, by up to {e.outside_range:.0%} of "
            "it: attacks search inside the range and scores are taken there, so neither says anything.",
            remedy="State the normalisation that your data have: domain=Images(shape, mean=..., std=...).",
        )


def _faint(e: Evidence) -> Flags:
    pictures = bool(e.metrics) and e.metrics[0].unit == "dB"
    if pictures and e.filled < FAINT:
        yield FlagRecord(
            code="range_unfilled",
            severity="warning",
            message=f"The private examples take up {e.filled:.2%} of the range that their domain states: scores are "
            "parts of that range, so they tell little of what an observer would see.",
            remedy="State the range that your data have: domain=Images(shape, low=..., high=..., mean=..., std=...).",
        )


def _optimiser_failed(e: Evidence) -> Flags:
    for control in e.controls:
        if control.name == "fit" and control.status == "failed" and not any(a.recovered for a in e.attacks):
            yield FlagRecord(
                code="optimiser_failed",
                severity="warning",
                message=control.summary,
                remedy="Give the attacks more restarts, or a stronger optimiser.",
            )
        if control.name == "positive" and control.status == "failed":
            yield FlagRecord(
                code="no_positive_control",
                severity="warning",
                message=control.summary,
                remedy="An audit with a larger budget, or of an earlier state of the model, may show it at work.",
            )


def _named(attacks: Sequence[AttackRecord]) -> str:
    return ", ".join(dict.fromkeys(f"{a.attack} (rung {a.level})" for a in attacks))


CONTROL_RULES: tuple[Callable[[Evidence], Flags], ...] = (
    _doubtful,
    _likeness,
    _identified,
    _outside_range,
    _faint,
    _optimiser_failed,
)
