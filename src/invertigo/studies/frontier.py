"""Privacy against utility: what each defense costs and hides, which are dominated, and the cheapest that holds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from invertigo.auditing.record import AttackRecord, AuditRecord, count_recovered
from invertigo.auditing.unproven import unproven
from invertigo.studies.frontier_study import AXIS, NONE, SEPARATOR
from invertigo.studies.slices import label
from invertigo.studies.values import best_guess

if TYPE_CHECKING:
    from invertigo.studies.store import CellResult, Store


LEARNED = 0.05
"""Accuracy above chance from which on a model has learned something."""


class FrontierPoint(BaseModel):
    """One defense at one strength, over all its cells: means over cells of each cell's best attack."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    defense: str
    """Name of the defense; `none` for the client as it is."""
    setting: str
    naive: float
    """Mean headline score of the best attack that does not know the defense."""
    informed: float
    """The same over all attacks, those that know the defense included: never better protected than `naive`."""
    naive_recovered: float
    """Share of the private examples that were rebuilt, in [0, 1]."""
    recovered: float
    guess: float | None
    """The best guess that reads nothing, for comparison."""
    accuracy: float | None = None
    chance: float | None = None
    """Accuracy of always naming the commonest class."""
    bytes: float | None = None
    undefended: float | None = None
    """Share of releases that are the raw update."""
    epsilon: float | None = None
    seconds: float | None = None
    cells: int
    holds: dict[int, bool]
    """By rung: whether nothing was rebuilt by an adversary there or below it; only rungs that were examined."""
    dominated_by: str = ""
    """A point of another defense that hides as much at more accuracy, or more at as much; empty when there is none."""

    @property
    def name(self) -> str:
        """`top_k · k=0.1`."""
        return SEPARATOR.join(part for part in (self.defense, self.setting) if part)


@dataclass(frozen=True)
class Frontier:
    """All points, weak before strong, in the order of the study; `sign` is 1 when a larger score means a loss."""

    points: tuple[FrontierPoint, ...]
    sign: int
    metric: str
    unit: str

    @property
    def curves(self) -> dict[str, list[FrontierPoint]]:
        """The points of each defense; those of the undefended client come first."""
        found: dict[str, list[FrontierPoint]] = {NONE: []}
        for point in self.points:
            found.setdefault(point.defense, []).append(point)
        return {name: points for name, points in found.items() if points}

    @property
    def dominated(self) -> list[str]:
        """Defenses of which every point is dominated."""
        return [name for name, points in self.curves.items() if name != NONE and all(p.dominated_by for p in points)]

    @property
    def rungs(self) -> list[int]:
        """The rungs that were examined somewhere."""
        return sorted({rung for point in self.points for rung in point.holds})

    @property
    def learned(self) -> bool:
        """The undefended client's model got somewhere, so that differences in accuracy mean something."""
        bare = [p for p in self.points if p.defense == NONE and p.accuracy is not None]
        return not bare or any((p.accuracy or 0.0) > (p.chance or 0.0) + LEARNED for p in bare)

    def cheapest(self, level: int) -> FrontierPoint | None:
        """Of the points that hold on `level`, the most accurate, then the one with the fewest bytes."""
        holding = [p for p in self.points if p.holds.get(level) and p.accuracy is not None]
        return max(holding, key=lambda p: (p.accuracy or 0.0, -(p.bytes or 0.0)), default=None)

    def sentence(self, level: int) -> str:
        """The cheapest defense that holds on `level`, with its cost; empty when none was found."""
        best, bare = self.cheapest(level), next((p for p in self.points if p.defense == NONE), None)
        if best is None or best.accuracy is None:
            return ""
        if best.defense == NONE:
            return "nothing is needed: the client holds as it is"
        cost = f"accuracy {best.accuracy:.1%}"
        if bare is not None and bare.accuracy is not None:
            cost += f" instead of {bare.accuracy:.1%}"
        if best.bytes is not None and bare is not None and bare.bytes:
            ratio = f"{best.bytes / bare.bytes:.2g}"
            cost += ", the same bytes" if ratio == "1" else f", {ratio} times the bytes"
        return f"{best.name} ({cost})"


def frontier_of(results: Iterable[CellResult]) -> Frontier | None:
    """The frontier of a study whose cells differ in their defense; None where no client had one."""
    groups: dict[tuple[str, str], list[AuditRecord]] = {}
    for result in results:
        if result.record is not None:
            groups.setdefault(_identity(result, result.record), []).append(result.record)
    records = [record for group in groups.values() for record in group]
    if not records or all(defense == NONE for defense, _ in groups):
        return None
    headline = records[0].metrics[0]
    sign = 1 if headline.privacy_loss else -1
    points = [p for (name, how), group in groups.items() if (p := _point(name, how, group, sign)) is not None]
    compared = [p.model_copy(update={"dominated_by": _dominator(p, points, sign)}) for p in points]
    return Frontier(tuple(compared), sign, headline.label, headline.unit) if compared else None


def _identity(result: CellResult, record: AuditRecord) -> tuple[str, str]:
    """Name and setting of a cell's defense: from the label of its point, else from what the audit recorded."""
    text = result.coordinates.get(AXIS)
    others = ", ".join(f"{axis} {label(v)}" for axis, v in result.coordinates.items() if axis != AXIS)
    if isinstance(text, str) and SEPARATOR in text:
        name, _, setting = text.partition(SEPARATOR)
        return name, ", ".join(part for part in (setting, others) if part)
    if record.defense is None:
        return (NONE if text in (None, NONE) else str(text)), others
    own = "" if text in (None, record.defense.name) else str(text).removeprefix(record.defense.name).strip(" ()")
    return record.defense.name, ", ".join(part for part in (own, others) if part)


def _point(name: str, setting: str, group: Sequence[AuditRecord], sign: int) -> FrontierPoint | None:
    scored = [record for record in group if any(_headline(record, one) for one in record.ran)]
    if not scored:
        return None
    guesses = [g for record in scored if (g := _guess(record)) is not None]
    return FrontierPoint(
        defense=name,
        setting=setting,
        naive=fmean(_best(record, sign, naive=True) for record in scored),
        informed=fmean(_best(record, sign, naive=False) for record in scored),
        naive_recovered=fmean(_recovered(record, naive=True) for record in scored),
        recovered=fmean(_recovered(record, naive=False) for record in scored),
        guess=fmean(guesses) if guesses else None,
        accuracy=_mean(r.utility.accuracy for r in scored if r.utility),
        chance=_mean(r.utility.chance for r in scored if r.utility),
        bytes=_mean(r.utility.bytes if r.utility else r.defense.bytes if r.defense else None for r in scored),
        undefended=_mean(_undefended(record) for record in scored),
        epsilon=_mean((r.utility or r.defense).facts.get("epsilon") for r in scored if r.utility or r.defense),  # type: ignore[union-attr]
        seconds=_mean(r.utility.seconds for r in scored if r.utility),
        cells=len(scored),
        holds=_holds(scored),
    )


def _undefended(record: AuditRecord) -> float | None:
    if record.defense is None or record.defense.replaces_task:
        return None
    if record.utility is not None:
        return record.utility.undefended_share
    sent = record.defense.undefended
    return None if sent is None else sent / record.defense.releases


def _holds(records: Sequence[AuditRecord]) -> dict[int, bool]:
    """Rungs that leak in any cell, and rungs that every cell shows to hold, see `unproven`.

    A client whose updates are summed leaves the server on rung 0, which then stands for rung 1 too.
    """
    found: dict[int, bool] = {}
    for rung in sorted({level.level for record in records for level in record.levels if level.examined}):
        told = [_shown(record, rung) for record in records]
        if False in told or None not in told:
            found[rung] = False not in told
    if set(found) == {0}:
        found[1] = found[0]
    return found


def _shown(record: AuditRecord, rung: int) -> bool | None:
    """Whether nothing can be rebuilt on a rung; None: this cell cannot tell."""
    level = next((one for one in record.levels if one.level == rung and one.examined), None)
    if level is None or level.recovered:
        return None if level is None else False
    return None if record.verdict.status == "inconclusive" or unproven(record, rung) else True


def _dominator(point: FrontierPoint, points: Sequence[FrontierPoint], sign: int) -> str:
    """The most accurate point of another defense that is as good in both respects and better in one.

    Scores under the best guess carry no information, so they count as the guess.
    """
    mine = leaked(point, sign), point.accuracy
    better = []
    for other in points:
        if other.defense == point.defense or other.accuracy is None or mine[1] is None:
            continue
        theirs = leaked(other, sign), other.accuracy
        if theirs[0] <= mine[0] and theirs[1] >= mine[1] and theirs != mine:
            better.append(other)
    return max(better, key=lambda other: other.accuracy or 0.0).name if better else ""


def leaked(point: FrontierPoint, sign: int) -> float:
    """What leaked, larger is worse, not under the guess that reads nothing."""
    score = sign * point.informed
    return score if point.guess is None else max(score, sign * point.guess)


def _headline(record: AuditRecord, attack: AttackRecord) -> Sequence[float]:
    return attack.scores.get(record.metrics[0].name, [])


def _best(record: AuditRecord, sign: int, *, naive: bool) -> float:
    scores = [fmean(_headline(record, one)) for one in record.ran if _headline(record, one) and _who(one, naive)]
    finite = [min(score, CEILING) for score in scores]
    return sign * max(sign * score for score in finite) if finite else math.nan


CEILING = 150.0
"""Decibels above which one score is as good as another: a perfect reconstruction has infinitely many."""


def _recovered(record: AuditRecord, *, naive: bool) -> float:
    most = count_recovered([one for one in record.ran if _who(one, naive)])
    return most / record.num_examples if record.num_examples else 0.0


def _who(attack: AttackRecord, naive: bool) -> bool:
    return not (naive and attack.informed)


def _guess(record: AuditRecord) -> float | None:
    found = best_guess(record)
    return fmean(found.scores[record.metrics[0].name]) if found is not None else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def with_cheapest(record: AuditRecord, frontier: Frontier) -> AuditRecord:
    """The record of the undefended client, with the cheapest defense that holds on each of its rungs."""
    told: Mapping[int, str] = {rung: frontier.sentence(rung) for rung in frontier.rungs}
    levels = [
        level.model_copy(update={"defense": told.get(level.level) or None}) if level.examined else level
        for level in record.levels
    ]
    return record.model_copy(update={"levels": levels})


def write_frontier(store: Store, results: Iterable[CellResult], frontier: Frontier) -> list[str]:
    """Write `frontier.json` and, with what would stop each adversary, `undefended.json`; return their names.

    Raises: OutputError.
    """
    summary = {
        "metric": frontier.metric,
        "unit": frontier.unit,
        "points": [json.loads(point.model_dump_json()) for point in frontier.points],
        "dominated": frontier.dominated,
        "cheapest": {str(rung): frontier.sentence(rung) for rung in frontier.rungs},
    }
    files = {"frontier.json": json.dumps(summary, indent=1, ensure_ascii=False) + "\n"}
    bare = (r.record for r in results if r.record is not None and _identity(r, r.record)[0] == NONE)
    first = next(bare, None)
    if first is not None:
        files["undefended.json"] = with_cheapest(first, frontier).model_dump_json(indent=1)
    for name, content in files.items():
        store.place.write(name, content.encode("utf-8"))
    return list(files)
