"""Sanity flags about the instrument: that it could work on these examples, and that it was seen to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from invertigo.auditing.evidence import Evidence
from invertigo.auditing.record import AttackRecord, FlagRecord

OUTSIDE = 1e-3
"""A quarter of a grey level: rounding of stored pixels, not another normalisation."""

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


def _outside_range(e: Evidence) -> Flags:
    if e.outside_range > OUTSIDE:
        yield FlagRecord(
            code="outside_range",
            severity="fatal",
            message=f"The private examples leave the range that their domain states, by up to {e.outside_range:.0%} of "
            "it: attacks search inside the range and scores are taken there, so neither says anything.",
            remedy="State the normalisation that your data have: domain=Images(shape, mean=..., std=...).",
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


CONTROL_RULES: tuple[Callable[[Evidence], Flags], ...] = (_doubtful, _outside_range, _optimiser_failed)
