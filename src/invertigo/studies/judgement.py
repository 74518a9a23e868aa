"""Claims held against results: each holds, does not hold, or is inconclusive, with the figures."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from invertigo.studies.claims import Claim, ClaimRecord, Compare, Correlation, Order, Status, Threshold, varied
from invertigo.studies.estimates import correlation_interval, mean_interval, ratio_interval
from invertigo.studies.slices import axes_of, check_axes, coordinate, label, place, plain, reading, select
from invertigo.studies.values import Reading, parse_value
from invertigo.types import ConfigurationError, Interval

if TYPE_CHECKING:
    from invertigo.studies.store import CellResult

_OPERATORS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
_SHOWN = 3
"""Cells named in a reason; the rest are counted."""

Doubts = list[str]
"""Why a claim cannot be decided, whatever the figures say."""


@dataclass(frozen=True)
class Finding:
    """The figures behind a claim. `interval` is None when nothing could be measured."""

    interval: Interval | None
    comparison: str
    bound: float
    quantity: str
    unit: str
    doubts: Sequence[str] = ()
    notes: Sequence[str] = ()
    steps: Sequence[Finding] = field(default=())

    @property
    def status(self) -> Status:
        """On which side of the bound the interval lies."""
        if self.doubts or self.interval is None or self.interval.n < 2:
            return "inconclusive"
        if self.steps:
            found = {step.status for step in self.steps}
            whole: Status = "holds" if found == {"holds"} else "inconclusive"
            return "does not hold" if "does not hold" in found else whole
        low, high = (_OPERATORS[self.comparison](end, self.bound) for end in (self.interval.low, self.interval.high))
        return "inconclusive" if low != high else "holds" if low else "does not hold"


def judge(claims: Iterable[Claim], results: Sequence[CellResult]) -> list[ClaimRecord]:
    """What became of each claim."""
    return [judge_claim(claim, results) for claim in claims]


def judge_claim(claim: Claim, results: Sequence[CellResult]) -> ClaimRecord:
    """Hold one claim against the results of its study."""
    finding = _find(claim, results)
    interval = finding.interval
    return ClaimRecord(
        name=claim.name,
        sentence=claim.sentence,
        source=claim.source,
        whose=claim.whose,
        status=finding.status,
        estimate=None if interval is None else interval.estimate,
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        n=0 if interval is None else interval.n,
        unit=finding.unit,
        quantity=finding.quantity,
        bound=f"{finding.comparison} {finding.bound:g}" if finding.comparison else "",
        reason=_reason(finding),
    )


def _find(claim: Claim, results: Sequence[CellResult]) -> Finding:
    test = claim.test
    try:
        check_axes(claim.axes, axes_of(results), "These results")
        if isinstance(test, Compare):
            return compare(test, results)
        if isinstance(test, Threshold):
            return threshold(test, results)
        return order(test, results) if isinstance(test, Order) else correlation(test, results)
    except ConfigurationError as error:
        # A preset that drops an axis, or a domain without the metric: nothing was measured, and that is the finding.
        return Finding(None, "", 0.0, "", "", [str(error).rstrip(".")])


def compare(test: Compare, results: Sequence[CellResult]) -> Finding:
    """Left minus right (or their ratio), over pairs of cells that differ in nothing else."""
    value = parse_value(test.value)
    left, right = {**test.where, **test.left}, {**test.where, **test.right}
    names = [a for a in axes_of(results) if a not in varied(test)] if test.paired_by is None else test.paired_by
    keys = [*names, *(["seed"] if test.paired_by is None and "seed" not in {*left, *right} else [])]
    sides, doubts = [], []
    for where in (left, right):
        cells = select(results, where)
        read = [(cell, reading(cell, value, where)) for cell in cells]
        doubts += _unread(read) or ([] if cells else [f"no cell has {_say(where)}"])
        sides.append(_grouped(_replicates(read, test.value), keys))
    lonely = [key for key in {**sides[0], **sides[1]} if not (key in sides[0] and key in sides[1])]
    doubts += [f"{len(lonely)} of {len({**sides[0], **sides[1]})} have no partner on the other side"] if lonely else []
    shared = [key for key in sides[0] if key in sides[1]]
    first, second, unit = _pairs([(sides[0][key], sides[1][key]) for key in shared])
    what = f"{test.value}: {_say(test.left)} {'over' if test.ratio else 'less'} {_say(test.right)}"
    interval = None
    if first:
        differences = [a - b for a, b in zip(first, second)]
        interval = ratio_interval(first, second) if test.ratio else mean_interval(differences)
        doubts += ["the ratio has no meaning, since its denominator is not positive"] if interval is None else []
    return _finding(interval, *test.bound, what, unit, doubts)


def threshold(test: Threshold, results: Sequence[CellResult]) -> Finding:
    """The mean over the cells of a slice; over the private examples when there is one cell."""
    cells = select(results, test.where)
    read = [(cell, reading(cell, parse_value(test.value), test.where)) for cell in cells]
    known = [one for _, one in _replicates(read, test.value)]
    single = len(known) == 1 and len(known[0].examples) > 1
    values = list(known[0].examples) if single else [one.number for one in known if one.number is not None]
    doubts = _unread(read) or ([] if cells else [f"no cell has {_say(test.where)}"])
    what = test.value + (f" where {_say(test.where)}" if test.where else "")
    interval = mean_interval(values) if values else None
    unit = _TRAININGS if test.value == _UTILITY else _EXAMPLES if single else "cells"
    return _finding(interval, test.op, test.number, what, unit, doubts)


def order(test: Order, results: Sequence[CellResult]) -> Finding:
    """Every step along the axis; the claim's figures are those of its weakest step."""
    rising = test.direction == "increasing"
    steps = []
    for low, high in zip(test.along, test.along[1:]):
        left, right = ({test.axis: high}, {test.axis: low}) if rising else ({test.axis: low}, {test.axis: high})
        step = {"value": test.value, "left": left, "right": right, "where": test.where}
        steps.append(compare(Compare.model_validate(step), results))
    measured = [step for step in steps if step.interval is not None]
    weakest = min(measured, key=lambda step: step.interval.estimate if step.interval else 0.0, default=steps[0])
    return Finding(
        interval=weakest.interval,
        comparison=">",
        bound=0.0,
        quantity=f"weakest step, {weakest.quantity}",
        unit=weakest.unit,
        doubts=list(dict.fromkeys(doubt for step in steps for doubt in step.doubts)),
        notes=[f"{step.quantity}: {_figures(step)}" for step in steps] if len(steps) > 1 else [],
        steps=steps,
    )


def correlation(test: Correlation, results: Sequence[CellResult]) -> Finding:
    """Spearman's correlation over the cells of a slice."""
    axes = axes_of(results)
    cells = select(results, test.where)
    columns = [[(cell, _quantity(cell, name, axes, test.where)) for cell in cells] for name in (test.x, test.y)]
    doubts = list(dict.fromkeys(doubt for column in columns for doubt in _unread(column)))
    doubts += [] if cells else [f"no cell has {_say(test.where)}"]
    trained = _UTILITY in (test.x, test.y)
    found: dict[str, list[tuple[float, float]]] = {}
    for number, ((cell, a), (_, b)) in enumerate(zip(*columns)):
        if a.number is not None and b.number is not None:
            found.setdefault(_training(cell) if trained else str(number), []).append((a.number, b.number))
    pairs = [(fmean(a for a, _ in same), fmean(b for _, b in same)) for same in found.values()]
    interval = correlation_interval([a for a, _ in pairs], [b for _, b in pairs]) if pairs else None
    doubts += [f"{test.x} or {test.y} does not vary over these cells"] if pairs and interval is None else []
    comparison, bound = (">=", test.at_least) if test.at_least is not None else ("<=", test.at_most or 0.0)
    unit = _TRAININGS if trained else "cells"
    return _finding(interval, comparison, bound, f"rank correlation of {test.x} and {test.y}", unit, doubts)


_EXAMPLES = "private examples of one cell"
_TRAININGS = "trainings"
_UTILITY = "utility"


def _replicates(read: Sequence[tuple[CellResult, Reading]], value: str) -> list[tuple[CellResult, Reading]]:
    """The readings that exist and were made independently: a training that several cells report counts once."""
    known = [(cell, one) for cell, one in read if one.number is not None]
    return known if value != _UTILITY else list({_training(cell): (cell, one) for cell, one in known[::-1]}.values())


def _training(cell: CellResult) -> str:
    """What decides a training on the released updates. Attacks do not, nor which examples they are made on."""
    scenario = {} if cell.record is None else cell.record.scenario
    return plain([_pool(cell), [scenario.get(part) for part in ("model", "local", "defense", "utility")]])


def _finding(
    interval: Interval | None, comparison: str, bound: float, quantity: str, unit: str, doubts: Doubts
) -> Finding:
    notes = []
    if interval is not None and interval.n < 2:
        doubts = [*doubts, f"one value has no spread; {unit} to compare are too few"]
    elif interval is not None and interval.n < 30:
        notes = [f"Indicative: fewer than 30 {unit}."]
    return Finding(interval, comparison, bound, quantity, unit, doubts, notes)


@dataclass(frozen=True)
class _Group:
    """The cells of one side of a pair: their mean, their examples, and the mean of each batch of examples."""

    number: float
    examples: tuple[float, ...]
    batches: Mapping[int, float]
    pool: str


def _grouped(read: Sequence[tuple[CellResult, Reading]], keys: Sequence[str]) -> dict[str, _Group]:
    """The readings that exist, averaged within each key."""
    found: dict[str, list[tuple[CellResult, Reading]]] = {}
    for cell, one in read:
        if one.number is not None:
            found.setdefault(plain([coordinate(cell, key) for key in keys]), []).append((cell, one))
    return {key: _group(members) for key, members in found.items()}


def _group(members: Sequence[tuple[CellResult, Reading]]) -> _Group:
    """One side of a pair; the batches of one point and seed are put together in the order of their examples."""
    ordered = sorted(members, key=lambda member: member[0].block)
    numbers = {cell.block: one.number for cell, one in ordered if one.number is not None}
    pools = {_pool(cell) for cell, _ in ordered}
    whole = len(pools) == 1 and len(numbers) == len(ordered) and all(one.examples for _, one in ordered)
    examples = tuple(value for _, one in ordered for value in one.examples) if whole else ()
    mean = fmean(one.number for _, one in ordered if one.number is not None)
    return _Group(mean, examples, numbers if len(numbers) == len(ordered) else {}, min(pools))


def _pool(cell: CellResult) -> str:
    """What the private examples of a point and seed are drawn from; equal pools hold the same examples."""
    data = _data(cell)
    drawn = {key: value for key, value in data.items() if key != "skip" and not (key == "count" and data.get("pool"))}
    return plain([drawn, cell.seed])


def _data(cell: CellResult) -> Mapping[str, Any]:
    return {} if cell.record is None else cell.record.scenario.get("data") or {}


def _pairs(groups: Sequence[tuple[_Group, _Group]]) -> tuple[list[float], list[float], str]:
    """Both sides' numbers, pair by pair: of batches where both sides have the same ones, else of whole points.

    A single pair is split into its examples, when both sides hold the same ones.
    """
    if groups and all(a.batches and a.batches.keys() == b.batches.keys() and a.pool == b.pool for a, b in groups):
        split = [(a.batches[batch], b.batches[batch]) for a, b in groups for batch in a.batches]
    else:
        split = [(a.number, b.number) for a, b in groups]
    if len(split) == 1:
        ((one, other),) = groups
        if len(one.examples) == len(other.examples) > 1 and one.pool == other.pool:
            return list(one.examples), list(other.examples), _EXAMPLES
    return [a for a, _ in split], [b for _, b in split], "pairs of cells"


def _quantity(cell: CellResult, name: str, axes: Mapping[str, Sequence[Any]], where: Mapping[str, Any]) -> Reading:
    if name not in axes:
        return reading(cell, parse_value(name), where)
    value = coordinate(cell, name)
    if isinstance(value, (bool, int, float)):
        return Reading(float(value))
    return Reading(None, reason=f"{name} is {value!r}, no number")


def _unread(read: Iterable[tuple[CellResult, Reading]]) -> Doubts:
    """One doubt for all cells of a slice that have no value."""
    cells = list(read)
    reasons = [f"{place(cell)} ({one.reason})" for cell, one in cells if one.number is None]
    if not reasons:
        return []
    told = list(dict.fromkeys(reasons))  # cells that differ in their private examples only have the same name
    rest = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return [f"{len(reasons)} of {len(cells)} cells have no value: {'; '.join(told[:_SHOWN])}{rest}"]


def _say(where: Mapping[str, Any]) -> str:
    return ", ".join(f"{axis}={label(value)}" for axis, value in where.items()) or "everything"


def _figures(step: Finding) -> str:
    if step.interval is None:
        return "not measured"
    return f"{step.interval.estimate:.3g} ({step.interval.low:.3g} to {step.interval.high:.3g})"


def _reason(finding: Finding) -> str:
    doubts = [doubt[:1].upper() + doubt[1:] + "." for doubt in dict.fromkeys(finding.doubts)]
    if not doubts and finding.status == "inconclusive" and not finding.steps:
        doubts = [f"The interval has {finding.bound:g} inside it."]
    elif not doubts and finding.status == "inconclusive":
        doubts = ["Not every step is decided."]
    return " ".join([*doubts, *(f"{n.rstrip('.')}." for n in finding.notes)])
