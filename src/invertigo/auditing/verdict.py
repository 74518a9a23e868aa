"""The answer of an audit, in words that need no knowledge of the field."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from invertigo.auditing.controls.schedule import solved_below
from invertigo.auditing.gaps import FORBIDDING, gaps, is_certified
from invertigo.auditing.record import (
    CONTROLS,
    AttackRecord,
    ControlRecord,
    FlagRecord,
    LevelRecord,
    VerdictRecord,
    count_recovered,
)

WHO = {
    0: "An honest-but-curious server that sees only the sum of several clients' updates",
    1: "An honest-but-curious server that sees one update",
    2: "A server that sees one update and learns the labels or the batch statistics from elsewhere",
    3: "A server that sees one update of a client training in inference mode, or with its buffers",
    4: "A server that sees one update and holds data of the same kind",
    5: "A server that crafts the model it sends",
}


@dataclass(frozen=True)
class Circumstances:
    """What the verdict needs to know beside the results: the words for the examples, and what leaks here."""

    noun: str = "example"
    num_examples: int | None = None
    scored: bool = True
    interrupted: bool = False
    remedies: tuple[str, ...] = ()
    controls: tuple[ControlRecord, ...] = ()
    automatic: bool = True
    """The attacks and rungs contain those that an audit chooses by itself."""
    needs_seconds: float | None = None
    """Budget that would let every attack finish its schedule, where time is what lacked."""

    @property
    def any(self) -> str:
        """`any of the 4 images`."""
        return f"the one {self.noun}" if self.num_examples == 1 else f"any of the {self.num_examples} {self.noun}s"

    def count(self, number: int) -> str:
        """`3 of 4 images`."""
        total = self.num_examples
        plural = self.noun if (total or number) == 1 else self.noun + "s"
        return f"{number} of {total} {plural}" if total else f"{number} {plural}"


def decide(
    levels: Sequence[LevelRecord],
    attacks: Sequence[AttackRecord],
    flags: Sequence[FlagRecord],
    circumstances: Circumstances,
) -> VerdictRecord:
    """`leaks` at the lowest rung where an example was rebuilt; `resists` only when nothing was, by every attack that
    applies, and every control passed; `inconclusive` whenever it could be either."""
    lowest = next((level for level in levels if level.examined and level.recovered), None)
    if lowest is not None:
        return _leaks(lowest, levels, attacks, flags, circumstances)
    certified = next((a for a in attacks if is_certified(a)), None) if not circumstances.scored else None
    if certified is not None:
        return _certified(certified, circumstances)
    doubts = reasons_to_doubt(levels, attacks, flags, circumstances)
    if not circumstances.automatic:
        return _not_rebuilt(doubts, attacks, circumstances)
    return _inconclusive(doubts, circumstances) if doubts else _resists(levels, circumstances)


def reasons_to_doubt(
    levels: Sequence[LevelRecord],
    attacks: Sequence[AttackRecord],
    flags: Sequence[FlagRecord],
    circumstances: Circumstances,
) -> list[str]:
    """Why "nothing was rebuilt" is not yet "resists"; each is the end of a sentence that starts with "because"."""
    doubts = [_clause(flag.message) for flag in flags if flag.severity == "fatal"]
    if not circumstances.scored:
        doubts.append("there was no truth to score the reconstructions against")
    if circumstances.interrupted:
        doubts.append("it was interrupted")
    if not any(level.examined for level in levels) or not any(a.status == "ran" for a in attacks):
        doubts.append("no attack could run")
    failed = sorted({a.attack for a in attacks if a.status == "failed"})
    if failed:
        doubts.append(f"{_list(failed)} failed")
    cut = sorted({a.attack for a in attacks if a.status == "ran" and a.stopped in ("budget", "diverged")})
    skipped = sorted({a.attack for a in attacks if a.status == "skipped" and not solved_below(a, attacks)} - set(cut))
    if cut:
        doubts.append(f"{_list(cut)} did not run to the end")
    several = sorted({a.attack for a in attacks if a.status == "ran" and a.stopped == "ambiguous"})
    if several:
        doubts.append(f"{_list(several)} found answers of which the update does not tell which is the true one")
    if skipped and not circumstances.interrupted:
        doubts.append(f"there was no time left for {_list(skipped)}")
    doubts += _uncontrolled(circumstances, flags, told=bool(cut or skipped), alone=not doubts)
    return doubts + [_clause(flag.message) for flag in flags if flag.code in FORBIDDING]


def _uncontrolled(c: Circumstances, flags: Sequence[FlagRecord], *, told: bool, alone: bool) -> list[str]:
    """A clause for each control that did not pass.

    `told`: the schedules' shortfall was already named; `alone`: there is no doubt yet, so even a control that was not
    made for another reason has to be.
    """
    found = {control.name: control for control in c.controls}
    named = {"replay": any(flag.code == "replay_differs" for flag in flags) or not c.scored, "schedule": told}
    named["fit"] = not c.scored
    clauses: list[str] = []
    for name in sorted(CONTROLS, key=lambda name: name == "positive"):
        control = found.get(name)
        if control is None:
            clauses.append(f"the {name} control was not made")
        elif control.status == "passed" or named.get(name):
            continue
        elif name != "positive" or control.status != "unknown" or (alone and not clauses):
            clauses.append(_clause(control.summary))
    return clauses


PLAIN = (
    "the", "a", "an", "it", "on", "of", "no", "there", "these", "this", "every", "only", "attacked", "nothing",
    "wrong", "not", "something",
)  # fmt: skip
"""First words that are no names."""


def _clause(message: str) -> str:
    """A sentence as the end of another one, which starts with "because"; names keep their first letter."""
    plain = message.split(" ", 1)[0].lower() in PLAIN
    return (message[:1].lower() + message[1:] if plain else message).rstrip(".")


def _leaks(
    lowest: LevelRecord,
    levels: Sequence[LevelRecord],
    attacks: Sequence[AttackRecord],
    flags: Sequence[FlagRecord],
    c: Circumstances,
) -> VerdictRecord:
    speaker = (lowest.strongest, lowest.strongest_level, lowest.strongest_informed)
    best = next(a for a in attacks if (a.attack, a.level, a.informed) == speaker and a.recovered)
    exact = best.outcomes.count("exact")
    how = "exactly" if exact == best.recovered else "recognisably"
    if 0 < exact < best.recovered:
        how = f"recognisably, {exact} of them exactly"
    headline = f"{WHO[lowest.level]} rebuilt {c.count(best.recovered)} {how}."
    detail = [f"The strongest attack was {best.attack}{' by an adversary who knows the defense' * best.informed}."]
    if best.ranks:
        detail.append(f"An observer would pick out {best.identified} of {len(best.ranks)} among {best.decoys} others.")
    together = count_recovered([a for a in attacks if a.status == "ran" and a.level <= lowest.level])
    if together > best.recovered:
        detail.append(f"All attacks together rebuilt {c.count(together)}.")
    below = [level.level for level in levels if level.examined and level.level < lowest.level]
    if below:
        missed = gaps(levels, attacks, flags, max(below))
        detail.append(f"On rung {_list([str(b) for b in below])} below it, nothing was rebuilt{_unproven(c, missed)}.")
    if lowest.reason:
        detail.append(f"This rung is {_as_condition(lowest.reason)}.")
    return VerdictRecord(
        status="leaks", headline=headline, detail=" ".join(detail), level=lowest.level, remedy=" ".join(c.remedies)
    )


def _unproven(c: Circumstances, missed: Sequence[str]) -> str:
    """What takes the ground from under "nothing was rebuilt" on the rungs below a leak."""
    passed = {control.name for control in c.controls if control.status == "passed"}
    lacking = [name for name in CONTROLS if name not in passed]
    if not c.automatic:
        return ", by attacks that were chosen by hand"
    if lacking:
        return f", which is no evidence of safety there: not all controls passed ({', '.join(lacking)})"
    return f", which is no evidence of safety there: {'; '.join(missed)}" if missed else ""


def _as_condition(reason: str) -> str:
    return reason if reason.startswith("a ") else f"examined under this condition: {reason}"


def _certified(attack: AttackRecord, c: Circumstances) -> VerdictRecord:
    return VerdictRecord(
        status="leaks",
        level=attack.level,
        headline=f"{WHO[attack.level]} solved for the private {c.noun}s, and the solution reproduces the update.",
        detail=f"{attack.attack} is algebraic: no truth is needed to know that what it solved for was in the batch.",
        remedy=" ".join(c.remedies),
    )


def _inconclusive(doubts: Sequence[str], c: Circumstances) -> VerdictRecord:
    nothing = f"no {c.noun} was rebuilt" if c.scored else f"no {c.noun} is certified to have been rebuilt"
    return VerdictRecord(
        status="inconclusive",
        headline=f"This audit cannot tell: {nothing}, but {doubts[0]}.",
        detail=f"The result is open because {'; '.join(doubts)}. It is no evidence of safety.",
        remedy=_way_on(c),
        missing=[_sentence(doubt) for doubt in doubts],
        needs_seconds=c.needs_seconds,
    )


def _not_rebuilt(doubts: Sequence[str], attacks: Sequence[AttackRecord], c: Circumstances) -> VerdictRecord:
    """What can be said of attacks or rungs that somebody chose: a sentence about the attacks, not about the client."""
    ran = [a for a in attacks if a.status == "ran" and a.outcomes]
    chosen = "the attacks or rungs were chosen by hand, and are fewer than an audit would try by itself"
    if not ran:
        return _inconclusive([*doubts, chosen], c)
    who = _list(list(dict.fromkeys(a.attack for a in ran)))
    rungs = sorted({a.level for a in ran})
    where = f"rung{'s' * (len(rungs) > 1)} {_list([str(rung) for rung in rungs])}"
    return VerdictRecord(
        status="inconclusive",
        headline=f"Not rebuilt by {who} on {where}, which says nothing of other attacks.",
        detail=f"The result is open because {'; '.join([chosen, *doubts])}. It is no evidence of safety.",
        remedy=f"Leave attacks and rungs to the audit. {_way_on(c) if doubts else ''}".strip(),
        missing=[_sentence(doubt) for doubt in (chosen, *doubts)],
        needs_seconds=c.needs_seconds,
    )


def _way_on(c: Circumstances) -> str:
    if c.needs_seconds is not None:
        return f"A budget of about {math.ceil(c.needs_seconds):,} s would let every attack finish its schedule."
    if any(control.name == "schedule" and control.status == "failed" for control in c.controls):
        return "Give the audit a larger budget; this one was too short to tell how large."
    return "Remove what is named above, and run it again."


def _sentence(clause: str) -> str:
    """The clause by itself; the name of an attack stays as it is written."""
    plain = clause.split(" ", 1)[0] in PLAIN
    return f"{clause[:1].upper()}{clause[1:]}." if plain else f"{clause}."


def _resists(levels: Sequence[LevelRecord], c: Circumstances) -> VerdictRecord:
    examined = [level.level for level in levels if level.examined]
    return VerdictRecord(
        status="resists",
        headline=f"No attack of this audit rebuilt {c.any}, up to rung {max(examined)}.",
        detail=(
            f"Rungs {_list([str(e) for e in examined])} of the threat ladder were examined, and every attack ran its "
            "full schedule. The controls passed: the step was replayed, the attacks work on this model where it is "
            "easy, and wrong candidates explain the update as well as the truth does. This holds for these attacks, "
            "this model state and these examples; it is no proof."
        ),
        remedy="A stronger attack, a crafted model (rung 5) or a smaller batch can change this.",
    )


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
