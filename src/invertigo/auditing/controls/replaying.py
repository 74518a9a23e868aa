"""The first control: the truth, put through the step that attacks simulate, must give what was received."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from invertigo.auditing.case import Case
from invertigo.auditing.controls.behind_defense import behind_defense
from invertigo.auditing.record import ControlRecord, FlagRecord
from invertigo.federation import Round
from invertigo.federation.replay import SECONDS, Replay, replay
from invertigo.types import Batch, InvertigoError, Observation, ThreatLevel, Update

SHOWN = 3
"""Layers that a message names."""
WORKED = ("exact", "scaled")


@dataclass(frozen=True)
class Replayed:
    """One replay: on which rung, and how it came out. `found` is None where it could not be made."""

    level: ThreatLevel
    status: str
    found: Replay | None = None
    reason: str = ""

    @property
    def passed(self) -> bool:
        """The simulated step is the client's, up to a factor that the attacks are told."""
        return self.status in WORKED


def replay_rungs(
    case: Case, rounds: Mapping[ThreatLevel, Round], seed: int, seconds: float = SECONDS
) -> list[Replayed]:
    """A replay for the observation of every rung; empty when there is no truth to replay.

    Args:
        seconds: for the search of a cause, where one is needed.
    """
    if case.truth is None:
        return []
    return [_worst(list(_replays(case, level, seen.observation, seed, seconds))) for level, seen in rounds.items()]


def rescaled(rounds: Mapping[ThreatLevel, Round], replayed: Sequence[Replayed]) -> dict[ThreatLevel, Round]:
    """The rounds with updates divided by the factor that a replay found, which an adversary would search for."""
    factors = {one.level: one.found.scale for one in replayed if one.status == "scaled" and one.found is not None}
    return {
        level: replace(seen, observation=_divided(seen.observation, factors[level])) if level in factors else seen
        for level, seen in rounds.items()
    }


def crowd(case: Case, level: ThreatLevel) -> Batch:
    """The private examples behind what rung `level` sees: on rung 0 those of all clients."""
    assert case.truth is not None
    if level is not ThreatLevel.AGGREGATE or case.received is not None:
        return case.truth
    all_of_them = [case.truth, *case.others]
    return Batch({name: torch.cat([one[name] for one in all_of_them]) for name in case.truth.fields})


def _replays(case: Case, level: ThreatLevel, seen: Observation, seed: int, seconds: float) -> Iterator[Replayed]:
    truth = crowd(case, level)

    def of(made: Callable[[], Observation]) -> Replayed:
        return Replayed(level, *_attempted(lambda: replay(made(), truth, seconds=seconds)))

    if case.received is not None and case.defense is not None:
        yield Replayed(level, *_attempted(lambda: behind_defense(case, seen, seed)))
        return
    if case.defense is None and case.releases == 1:
        yield of(lambda: seen)
        return
    bare = replace(case, defense=None, releases=1)
    if case.received is None and bare.recorded is not None:
        # The recorded step is repeated with the defense in place, so it must be the one that is simulated.
        found = of(lambda: bare.observe(level, seed).observation)
        yield found if found.status != "scaled" else replace(found, status="differs")
    again = replace(bare, recorded=None)
    yield of(lambda: again.observe(level, seed).observation)


def _attempted(make: Callable[[], Replay]) -> tuple[str, Replay | None, str]:
    try:
        found = make()
    except InvertigoError as error:
        return "unknown", None, str(error)
    except Exception as error:
        # A model that breaks in simulation must cost the audit its certainty, not its results.
        return "unknown", None, f"{type(error).__name__}: {error}"
    return found.status, found, found.cause


def _worst(found: Sequence[Replayed]) -> Replayed:
    order = ("differs", "impossible", "random", "unknown", "scaled", "exact")
    return min(found, key=lambda one: order.index(one.status))


def _divided(seen: Observation, factor: float) -> Observation:
    def divide(update: Update) -> Update:
        return replace(update, tensors={name: t / factor for name, t in update.tensors.items()})

    return replace(seen, update=divide(seen.update), releases=tuple(map(divide, seen.releases)))


def replay_control(replayed: Sequence[Replayed], scored: bool) -> ControlRecord:
    """Passed when the step of every rung was reproduced; rung 0 is judged apart, see `unsummed`."""
    judged = [one for one in replayed if one.level is not ThreatLevel.AGGREGATE] or list(replayed)
    if not scored:
        return ControlRecord(name="replay", status="unknown", summary="There was no truth to put through the step.")
    if not judged:
        return ControlRecord(name="replay", status="unknown", summary="No update was observed, so none was replayed.")
    worst = _worst(judged)
    facts: dict[str, float | str | None] = {"seconds": sum(one.found.seconds for one in replayed if one.found)}
    for one in replayed:
        facts[f"rung {int(one.level)}"] = one.status
        if one.found is not None:
            facts[f"rung {int(one.level)}: relative gap"] = one.found.relative_gap
    status = "passed" if worst.passed else "unknown" if worst.status == "unknown" else "failed"
    return ControlRecord(name="replay", status=status, summary=_summary(worst), facts=facts)


def unsummed(replayed: Sequence[Replayed]) -> dict[int, str]:
    """Rung 0 where the sum of several clients is no step of one client: its failures say nothing."""
    return {
        int(one.level): "the mean of several clients' updates is no single step here, and attacks simulate one"
        for one in replayed
        if one.level is ThreatLevel.AGGREGATE and not one.passed and len(replayed) > 1
    }


def replay_flags(replayed: Sequence[Replayed]) -> Iterator[FlagRecord]:
    """What a reader must know of replays that were not to rounding."""
    judged = [one for one in replayed if one.level is not ThreatLevel.AGGREGATE] or list(replayed)
    wrong = [one for one in judged if one.status in ("differs", "impossible")]
    if wrong:
        yield FlagRecord(
            code="replay_differs",
            severity="fatal",
            message=f"On rung {_rungs(wrong)}, {_told(wrong[0])}.",
            remedy="Describe the step as the client carries it out: its loss, local training and mode, and what is "
            "done to gradients before they are sent.",
        )
    if scaled := [one for one in judged if one.status == "scaled" and one.found is not None]:
        factor = scaled[0].found.scale if scaled[0].found else 1.0
        yield FlagRecord(
            code="update_scaled",
            severity="warning",
            message=f"The update on rung {_rungs(scaled)} is {factor:.4g} times what the described step gives; the "
            "attacks were told the factor, for which an adversary would search.",
            remedy="Say how the client scales its update (clipping, accumulation), or read the scores as with search.",
        )


def _summary(worst: Replayed) -> str:
    if worst.status == "exact":
        return "The truth, put through the simulated step, gives the received update to rounding."
    return f"On rung {int(worst.level)}, {_told(worst)}."


def _told(one: Replayed) -> str:
    if one.status == "unknown":
        return f"the step could not be replayed: {one.reason.rstrip('.')}"
    if one.status == "impossible":
        return f"the truth cannot be put through the simulated step{_because(one)}"
    if one.status == "random":
        return f"the client's step draws at random and the attacks could not repeat the draws{_because(one)}"
    assert one.found is not None
    if one.status == "scaled":
        return f"the simulated step gives the received update up to a factor of {one.found.scale:.3g}"
    layers = sorted((gap for gap in one.found.layers), key=lambda gap: -gap.relative_gap)[:SHOWN]
    named = ", ".join(f"{gap.name} ({gap.relative_gap:.1%})" for gap in layers)
    return (
        f"the truth, put through the simulated step, misses the received update by {one.found.relative_gap:.1%} of its "
        f"length, most in {named}{_because(one)}: the attacks were solving another problem than the client's"
    )


def _because(one: Replayed) -> str:
    return f" ({one.reason.rstrip('.')})" if one.reason else ""


def _rungs(those: Sequence[Replayed]) -> str:
    return ", ".join(str(int(one.level)) for one in those)
