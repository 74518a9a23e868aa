"""What was not seen, although attacks set out to see it: whatever the verdict on other rungs, and without a control."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from invertigo.auditing.record import AttackRecord, FlagRecord, LevelRecord

FORBIDDING = frozenset(
    {
        "no_informed_attack",
        "no_decoys",
        "few_decoys",
        "range_unfilled",
        "doubtful_recognition",
        "unrecognised_likeness",
        "identified_beyond_chance",
        "parameters_unwatched",
    }
)
"""Warnings under which nothing that was not seen may be called absent, beside every fatal flag."""

REPRODUCED = 1e-4
"""A relative residual below this is rounding: the solution reproduces the update."""
EXPLAINED = 1e-3
"""A relative residual below this has vanished for all practical purposes."""


def gaps(
    levels: Sequence[LevelRecord],
    attacks: Sequence[AttackRecord],
    flags: Sequence[FlagRecord],
    level: int | None = None,
) -> list[str]:
    """Why it cannot be believed that no more than was rebuilt can be, up to rung `level`; empty when it can.

    Each is a clause. Where everything was rebuilt exactly there is no more, so there is no gap.
    """
    near = [one for one in attacks if level is None or one.level <= level]
    if any(one.outcomes and set(one.outcomes) == {"exact"} for one in near):
        return []
    return list(_gaps([one for one in levels if level is None or one.level <= level], near, flags, level))


def _gaps(
    levels: Sequence[LevelRecord], attacks: Sequence[AttackRecord], flags: Sequence[FlagRecord], level: int | None
) -> Iterator[str]:
    examined = {one.level for one in levels if one.examined}
    if not examined or not any(one.outcomes for one in attacks):
        yield "nothing was examined" + ("" if level is None else f" up to rung {level}")
    elif level is not None and (unseen := _highest(attacks)) not in examined:
        told = next((one.reason for one in levels if one.level == unseen), "")
        yield f"rung {unseen} was not examined" + (f" ({told})" if told else "")
    if failed := sorted({one.attack for one in attacks if one.status == "failed"}):
        yield f"{', '.join(failed)} failed"
    yield from (f"the flag '{flag.code}' speaks against it" for flag in flags if flag.code in FORBIDDING)


def _highest(attacks: Sequence[AttackRecord]) -> int:
    """The highest rung that attacks set out for: it can do all that a lower one can."""
    return max(one.level for one in attacks)


def stuck(attacks: Sequence[AttackRecord]) -> bool:
    """After a leak: examples are left, and no candidate explains the update, so an optimiser may have got stuck."""
    solved = any(one.outcomes and set(one.outcomes) == {"exact"} for one in attacks)
    misses = [one.residual_up_to_scale for one in attacks if one.residual_up_to_scale is not None]
    return not solved and not any(miss <= EXPLAINED for miss in misses)


def is_certified(attack: AttackRecord) -> bool:
    """An exact attack's solution reproduces the update, which proves the reconstruction without the truth.

    Only where the attack itself says `exact`: not of a part of the batch, of answers that others may be as good as, or
    of a solution that has no equation left over to test it by.
    """
    miss = attack.objective if attack.residual is None else attack.residual
    proven = attack.exact and attack.stopped == "exact"
    return attack.status == "ran" and proven and miss is not None and miss <= REPRODUCED
