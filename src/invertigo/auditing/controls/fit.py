"""The fourth control: whether the truth explains the update much better than anything that was found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from invertigo.auditing.case import Case
from invertigo.auditing.controls.replaying import crowd
from invertigo.auditing.record import AttackRecord, ControlRecord
from invertigo.auditing.trial import update_residual
from invertigo.types import Observation

Place = tuple[int, bool]
"""A rung, and whether the adversary knew the defense."""
MARGIN = 1.05
"""A residual this many times that of the truth still explains the update as well: a minimum can lie no higher."""
ROUNDING = {torch.float64: 1e-6, torch.float32: 3e-4, torch.bfloat16: 5e-2, torch.float16: 2e-2}
"""Relative residuals under which nothing is left to explain, by the dtype of the update."""


def truth_residuals(case: Case, observations: Mapping[Place, Observation]) -> dict[Place, float | None]:
    """Relative residual of the truth in each adversary's own simulation; None where it cannot be put through it."""
    if case.truth is None:
        return {}
    return {place: _residual(case, seen) for place, seen in observations.items()}


def _residual(case: Case, seen: Observation) -> float | None:
    view = seen.knowledge.view
    if view is not None and view.unknowns:
        return None  # the client's own draws are part of the truth, and nobody kept them
    try:
        return update_residual(seen, crowd(case, seen.knowledge.level).fields)
    except Exception:  # a simulation that breaks leaves the control unknown, which forbids the verdict
        return None


def floor_of(seen: Observation) -> float:
    """The residual that rounding leaves in this update."""
    return max(ROUNDING.get(t.dtype, 3e-4) for t in seen.update.tensors.values())


def fit_control(
    records: Sequence[AttackRecord], truths: Mapping[Place, float | None], floors: Mapping[Place, float]
) -> ControlRecord:
    """Passed when on every examined rung a wrong candidate explains the update as well as the truth does.

    Then what was sent does not tell the two apart. Where the truth explains it better, the optimiser failed.
    """
    if any(r.recovered for r in records):
        return ControlRecord(name="fit", status="not_applicable", summary="Something was rebuilt.")
    facts: dict[str, float | str | None] = {}
    open_places, lost = [], []
    for place, truth in truths.items():
        if not place[1] and (place[0], True) in truths:
            continue  # who knows the defense reads the update rightly, and decides
        ran = [r for r in records if (r.level, r.informed) == place and r.status == "ran"]
        if not ran:
            continue
        best = min((r.residual for r in ran if r.residual is not None and math.isfinite(r.residual)), default=None)
        facts |= {f"{_name(place)}: truth": truth, f"{_name(place)}: best candidate": best}
        if truth is None or best is None or not truth < 1:  # a truth that explains nothing is no measure
            open_places.append(place)
        elif best > max(MARGIN * truth, floors[place]):
            lost.append((place, truth, best))
    if lost:
        place, truth, best = max(lost, key=lambda one: one[2] - one[1])
        return ControlRecord(
            name="fit",
            status="failed",
            summary=f"On {_name(place)} the truth leaves {truth:.2g} of the update unexplained and the best candidate "
            f"{best:.2g}: the optimiser failed, which says nothing of what the update holds.",
            facts=facts,
        )
    if open_places or not facts:
        where = f" on {_name(open_places[0])}" if open_places else ""
        summary = f"It is not known how well candidates or the truth explain the update{where}."
        return ControlRecord(name="fit", status="unknown", summary=summary, facts=facts)
    summary = "Wrong candidates explain the update as well as the truth does, so it does not tell them apart."
    return ControlRecord(name="fit", status="passed", summary=summary, facts=facts)


def _name(place: Place) -> str:
    return f"rung {place[0]}{' with the defense known' * place[1]}"
