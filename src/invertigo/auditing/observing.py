"""What the adversary of every rung holds, before any attack looks at it."""

from __future__ import annotations

from collections.abc import Sequence

from invertigo.auditing.case import Case
from invertigo.auditing.ladder import Rung
from invertigo.auditing.portfolio import Entry
from invertigo.auditing.protection import read_informed
from invertigo.federation import Round
from invertigo.types import ActiveAttack, InvertigoError, MismatchError, Observation, ThreatLevel


def observe_rungs(case: Case, rungs: Sequence[Rung], seed: int) -> tuple[list[Rung], dict[ThreatLevel, Round]]:
    """Observations of every rung that is attacked; a what-if that cannot be computed is not examined."""
    kept: list[Rung] = []
    found: dict[ThreatLevel, Round] = {}
    for rung in rungs:
        try:
            if rung.attacked and rung.level is not ThreatLevel.MALICIOUS:
                found[rung.level] = case.observe(rung.level, seed)
        except InvertigoError as error:
            if not found:
                raise
            rung = Rung(rung.level, False, f"it could not be computed: {error}")
        except Exception as error:  # the user's own model and loss run here
            said = f"{type(error).__name__}: {error}"
            if not found:
                raise MismatchError(
                    f"The model or its loss could not be run on the private batch ({said}). Check the shapes and types "
                    "of inputs and targets, or say how the loss is made: step=lambda call, fields: ..."
                ) from error
            rung = Rung(rung.level, False, f"it could not be computed: {said}")
        kept.append(rung)
    return kept, found


def observe_plants(
    case: Case, rungs: Sequence[Rung], entries: Sequence[Entry], seed: int
) -> tuple[dict[str, list[Observation]], dict[str, str]]:
    """What each attack of a malicious server receives from the model it planted, and why others cannot plant."""
    found: dict[str, list[Observation]] = {}
    misfits: dict[str, str] = {}
    if not any(rung.attacked and rung.level is ThreatLevel.MALICIOUS for rung in rungs):
        return found, misfits
    for entry in entries:
        if not isinstance(entry.attack, ActiveAttack):
            continue
        try:
            seen = {ThreatLevel.MALICIOUS: case.planted(entry.attack, seed).observation}
            found[entry.name] = [*seen.values(), *read_informed(case.defense, seen).informed.values()]
        except InvertigoError as error:
            misfits[entry.name] = str(error)
    return found, misfits
