"""The fourth control: whether the truth explains the update much better than anything that was found."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invertigo.auditing.case import Case
from invertigo.auditing.controls.replaying import crowd
from invertigo.auditing.record import AttackRecord, ControlRecord
from invertigo.auditing.trial import update_residuals
from invertigo.types import Domain, Observation

Place = tuple[int, bool]
"""A rung, and whether the adversary knew the defense."""
MARGIN = 1.05
"""A residual this many times that of the truth explains the update as well: a minimum lies no higher than the truth."""
UNCLOSED = 0.1
"""Part of the way from a blank guess to the truth that may be missing: in noise, both leave nearly all unexplained."""
OF_A_GUESS = 1e-3
"""Part of what a blank guess leaves unexplained: with less, all that the examples put into the update is explained."""
REPRODUCED = {torch.float64: 1e-8, torch.float32: 5e-6}
ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-6}
"""Residuals, by dtype: where an update counts as reproduced at most, and where rounding begins. Others: 1e-3."""


@dataclass(frozen=True)
class Yardstick:
    """What one adversary's candidates are measured by, all up to one factor on the simulated update.

    `truth` and `guess` are the residuals of the truth and of a blank guess with the true labels; None: not to be had.
    """

    truth: float | None
    guess: float | None
    dtype: torch.dtype = torch.float32

    @property
    def enough(self) -> float | None:
        """The residual from which on a candidate explains the update as well as the truth; None: no measure."""
        if self.truth is None or not self.truth < 1:
            return None  # a truth that explains nothing is no measure
        floor = REPRODUCED.get(self.dtype, 1e-3)
        if self.guess is None or not math.isfinite(self.guess):
            return max(self.truth, floor)  # a minimum lies no higher
        floor = min(floor, max(OF_A_GUESS * self.guess, ROUNDING.get(self.dtype, 1e-3)))
        closed = self.truth + UNCLOSED * max(0.0, self.guess - self.truth)
        return max(min(MARGIN * self.truth, closed), floor)


def yardsticks(case: Case, observations: Mapping[Place, Observation]) -> dict[Place, Yardstick]:
    """One for each adversary; where the defense is known, who does not know it is not measured."""
    if case.truth is None:
        return {}
    judged = {p: seen for p, seen in observations.items() if p[1] or (p[0], True) not in observations}
    return {place: _yardstick(case, seen) for place, seen in judged.items()}


def _yardstick(case: Case, seen: Observation) -> Yardstick:
    truth = crowd(case, seen.knowledge.level).fields
    dtype = next(iter(seen.update.tensors.values())).dtype
    return Yardstick(_residual(seen, truth), _residual(seen, _blank(case.task.domain, truth)), dtype)


def _blank(domain: Domain, truth: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The batch with the middle of the range in place of every field that attacks optimise."""
    made = dict(truth)
    for name in domain.example_shapes():
        if name in made and made[name].is_floating_point():
            low, high = (end.to(made[name]) for end in domain.bounds(name))
            made[name] = ((low + high) / 2).expand_as(made[name]).clone()
    return made


def _residual(seen: Observation, fields: Mapping[str, Tensor]) -> float | None:
    view = seen.knowledge.view
    if view is not None and view.unknowns:
        return None  # the client's own draws are part of the truth, and nobody kept them
    try:
        return update_residuals(seen, fields)[1]
    except Exception:  # a simulation that breaks leaves the control unknown, which forbids the verdict
        return None


def fit_control(records: Sequence[AttackRecord], yardsticks: Mapping[Place, Yardstick]) -> ControlRecord:
    """Passed when on every examined rung a wrong candidate explains the update as well as the truth does.

    Then what was sent does not tell the two apart. Where the truth explains it better, the optimiser failed. Rungs on
    which something was rebuilt, and those above them, are left out.
    """
    leaking = min((r.level for r in records if r.recovered), default=math.inf)
    yardsticks = {place: measure for place, measure in yardsticks.items() if place[0] < leaking}
    if leaking < math.inf and not yardsticks:
        return ControlRecord(name="fit", status="not_applicable", summary="Something was rebuilt on the lowest rung.")
    facts: dict[str, float | str | None] = {}
    unknown, lost = [], []
    for place, measure, best in _measured(records, yardsticks):
        facts |= {f"{_name(place)}: truth": measure.truth, f"{_name(place)}: best candidate": best}
        facts[f"{_name(place)}: blank guess"] = measure.guess
        if measure.enough is None or best is None:
            unknown.append(place)
        elif best > measure.enough:
            lost.append((place, measure.truth, best))
    if lost:
        place, truth, best = max(lost, key=lambda one: one[2] - one[1])
        return ControlRecord(
            name="fit",
            status="failed",
            summary=f"On {_name(place)} the truth leaves {truth:.2g} of the update unexplained and the best candidate "
            f"{best:.2g}: the optimiser failed, which says nothing of what the update holds.",
            facts=facts,
        )
    if unknown or not facts:
        where = f" on {_name(unknown[0])}" if unknown else ""
        summary = f"It is not known how well candidates or the truth explain the update{where}."
        return ControlRecord(name="fit", status="unknown", summary=summary, facts=facts)
    summary = "Wrong candidates explain the update as well as the truth does, so it does not tell them apart."
    return ControlRecord(name="fit", status="passed", summary=summary, facts=facts)


def _measured(
    records: Sequence[AttackRecord], yardsticks: Mapping[Place, Yardstick]
) -> Iterator[tuple[Place, Yardstick, float | None]]:
    """Each adversary whose attacks ran, with the residual of the best candidate."""
    for place, measure in yardsticks.items():
        ran = [r for r in records if (r.level, r.informed) == place and r.status == "ran"]
        found = [r.residual_up_to_scale for r in ran if r.residual_up_to_scale is not None]
        if ran:
            yield place, measure, min((value for value in found if math.isfinite(value)), default=None)


def _name(place: Place) -> str:
    return f"rung {place[0]}{' with the defense known' * place[1]}"
