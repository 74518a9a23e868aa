"""Which rungs of the threat ladder an audit examines, and what it found on each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from invertigo.auditing.record import AttackRecord, LevelRecord
from invertigo.evaluation import proportion
from invertigo.types import ThreatLevel


@dataclass(frozen=True)
class Rung:
    """A rung of the ladder in an audit.

    `same_as` names a lower rung whose results hold here too, because this rung adds nothing for this client.
    """

    level: ThreatLevel
    examined: bool
    reason: str = ""
    same_as: ThreatLevel | None = None

    @property
    def attacked(self) -> bool:
        """Attacks are run on this rung, rather than carried over from a lower one."""
        return self.examined and self.same_as is None


def plan_ladder(
    native: ThreatLevel,
    *,
    mode_matters: bool,
    clients: int = 1,
    public: bool = False,
    public_attacks: bool = False,
    planting_attacks: bool = False,
    requested: Sequence[int] | None = None,
) -> list[Rung]:
    """Every rung of the ladder, from the bottom, with the reason where it is not examined.

    Args:
        native: the rung that this client's own training puts the adversary on (`federation.native_level`).
        mode_matters: the model computes differently in training and in inference mode (BatchNorm, dropout).
        clients: updates summed before the adversary sees them; rung 0 needs at least two.
        public: public data is at hand; `public_attacks`: some chosen attack makes use of it.
        planting_attacks: some chosen attack crafts the model.
        requested: the user's choice of rungs; None leaves the choice to the rules above.
    """
    why_not = {
        level: _impossible(level, native, clients, public, public_attacks, planting_attacks) for level in ThreatLevel
    }
    return [_rung(level, native, mode_matters, why_not[level], requested) for level in ThreatLevel]


def _rung(
    level: ThreatLevel,
    native: ThreatLevel,
    mode_matters: bool,
    impossible: str,
    requested: Sequence[int] | None,
) -> Rung:
    if impossible:
        return Rung(level, False, impossible)
    if requested is not None and level not in requested:
        return Rung(level, False, "not asked for")
    if level == ThreatLevel.INFERENCE_MODE and not mode_matters and native < level:
        return _nothing_new(requested)
    if level == ThreatLevel.INFERENCE_MODE and native < level:
        return Rung(
            level, True, "a what-if: this client trains in training mode; its update was recomputed in inference mode"
        )
    if level == ThreatLevel.STATISTICS:
        return Rung(level, True, "assumes that the adversary learns the labels and the batch statistics from elsewhere")
    return Rung(level, True)


def _impossible(
    level: ThreatLevel, native: ThreatLevel, clients: int, public: bool, public_attacks: bool, planting_attacks: bool
) -> str:
    if level == ThreatLevel.MALICIOUS and not planting_attacks:
        return "no malicious-server attack in this audit; ask for rung 5, or name one"
    if level == ThreatLevel.AGGREGATE and clients < 2:
        return "only one client: there is no sum to hide in"
    if ThreatLevel.UPDATE <= level < native:
        return f"this client already gives what rung {int(native)} needs"
    if level == ThreatLevel.AUXILIARY and not public:
        return "no public data at hand"
    if level == ThreatLevel.AUXILIARY and not public_attacks:
        return "no attack in this audit makes use of public data"
    return ""


def _nothing_new(requested: Sequence[int] | None) -> Rung:
    lower = [level for level in (2, 1) if requested is None or level in requested]
    if not lower:
        return Rung(ThreatLevel.INFERENCE_MODE, True)
    same = ThreatLevel(lower[0])
    reason = f"same as rung {int(same)}: this model computes alike in training and in inference mode"
    return Rung(ThreatLevel.INFERENCE_MODE, True, reason, same)


def climb(
    rungs: Sequence[Rung],
    records: Sequence[AttackRecord],
    headline: str,
    sign: int,
    doubtful: Mapping[int, str] | None = None,
) -> list[LevelRecord]:
    """What was found on each rung: the strongest attack there or below, since a higher rung can do all a lower one can.

    Args:
        headline: name of the headline metric; `sign` is 1 when larger means more was rebuilt, else -1.
        doubtful: rungs on which a failure says nothing, with the reason.
    """
    levels: list[LevelRecord] = []
    for rung in rungs:
        known = [r for r in records if r.level <= rung.level and r.status == "ran" and r.outcomes]
        best = max(known, key=lambda r: _strength(r, headline, sign), default=None)
        went = _as_it_went(rung, records, best)
        if rung.same_as is not None and not levels[int(rung.same_as)].examined:
            went = Rung(rung.level, False, f"same as rung {int(rung.same_as)}, which was not examined")
        if doubtful and int(rung.level) in doubtful and not (best is not None and best.recovered):
            went = Rung(rung.level, False, doubtful[int(rung.level)])
        levels.append(_level(went, best))
    return levels


def _as_it_went(rung: Rung, records: Sequence[AttackRecord], best: AttackRecord | None) -> Rung:
    """A rung on which no attack ran was not examined, whatever had been planned.

    Unless a lower rung gave everything away, so that nothing was left to find.
    """
    here = [record for record in records if record.level == rung.level]
    solved = best is not None and set(best.outcomes) == {"exact"}
    if not rung.attacked or solved or any(record.status == "ran" for record in here):
        return rung
    return Rung(rung.level, False, _why_idle(here))


def _why_idle(here: Sequence[AttackRecord]) -> str:
    for status, what in (
        ("failed", "every attack on it failed"),
        ("skipped", "no attack ran on it"),
        ("refused", "no attack of this audit could read it"),
    ):
        told = next((record.reason for record in here if record.status == status), None)
        if told is not None:
            return f"{what}: {told}"
    return "no attack of this audit can work with what is known there"


def _strength(record: AttackRecord, headline: str, sign: int) -> tuple[int, int, float, int, bool]:
    scores = record.scores.get(headline) or [-math.inf * sign]
    return record.recovered, record.identified, max(sign * s for s in scores), -record.level, not record.informed


def _level(rung: Rung, best: AttackRecord | None) -> LevelRecord:
    level = LevelRecord(level=int(rung.level), summary=rung.level.summary, examined=rung.examined, reason=rung.reason)
    if best is None or (not rung.examined and not best.recovered):
        return level  # no share of nothing: what was not examined has no numbers
    share = proportion(best.recovered, len(best.outcomes))
    return level.model_copy(
        update={
            "strongest": best.attack,
            "strongest_level": best.level,
            "strongest_informed": best.informed,
            "recovered": best.recovered,
            "recovered_interval": (share.low, share.high),
            "identified": best.identified,
        }
    )
