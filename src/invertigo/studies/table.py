"""A table of a study: any axes as rows and columns, a value's mean and half its interval in each place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from invertigo.auditing.record import MetricRecord
from invertigo.studies.guard_values import GUARD, adversaries
from invertigo.studies.slices import RECORDED, axes_of, check_axes, coordinate, label, plain, reading, select
from invertigo.studies.student import half_width
from invertigo.studies.values import parse_value
from invertigo.types.errors import ConfigurationError

if TYPE_CHECKING:
    from invertigo.auditing.guard_record import AdversaryRecord
    from invertigo.studies.store import CellResult

Format = Literal["markdown", "csv", "latex"]


@dataclass(frozen=True)
class Entry:
    """One place of a table: the mean over `n` cells, half the width of its interval, and how many lack a value."""

    mean: float
    half: float | None
    n: int
    lacking: int


@dataclass(frozen=True)
class Table:
    """Rows and columns by their labels; `entries[row, column]` is None where no cell has a value."""

    row_axes: tuple[str, ...]
    column_axes: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    columns: tuple[tuple[str, ...], ...]
    entries: Mapping[tuple[int, int], Entry]
    value: str
    unit: str = ""
    averaged: tuple[str, ...] = ()
    """Axes with several values that stand in neither rows nor columns."""
    strongest: bool = False
    """Cells tried several attacks, of which the strongest speaks."""

    def entry(self, row: int, column: int) -> Entry | None:
        """What stands in a place."""
        return self.entries.get((row, column))

    @property
    def incomplete(self) -> bool:
        """Some place lacks a cell that it should be the mean of."""
        return any(entry.lacking for entry in self.entries.values())

    def format(self, how: Format = "markdown") -> str:
        """The table as text."""
        from invertigo.studies.table_formats import FORMATS

        return FORMATS[how](self)

    def notes(self) -> list[str]:
        """What a reader must know about the numbers."""
        found = ["Each cell by its strongest attack."] if self.strongest else []
        found += [f"Averaged over {', '.join(self.averaged)}."] if self.averaged else []
        if any(entry.half is not None for entry in self.entries.values()):
            found.append("± half of Student's 95 % interval of the mean over cells.")
        return found + (["* some cells have no value; the mean is of the others."] if self.incomplete else [])


def build_table(
    results: Sequence[CellResult],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    value: str = "psnr.mean",
    where: Mapping[str, Any] | None = None,
) -> Table:
    """Lay out `value` by the axes in `rows` and `columns`, over seeds and whatever stands in neither.

    `attack` and `level` are axes of every study: those of the study, or what its audits recorded. Without them a cell
    speaks through its strongest attack.

    Raises: ConfigurationError for an axis that the study does not have, or a metric that no cell reports.
    """
    where, axes = dict(where or {}), [*rows, *columns]
    check_wanted(axes, where, axes_of(results))
    return lay_out(
        _places(results, axes, value, where),
        rows,
        columns,
        value=value,
        unit=_unit(results, value),
        averaged=tuple(a for a, v in axes_of(results).items() if len(v) > 1 and a not in {*axes, *where}),
        strongest=value not in GUARD and any(len(_spoken(result, [*axes, *where])) > 1 for result in results),
    )


def check_wanted(axes: Sequence[str], where: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuse axes that the study does not have, or that are asked for twice. Raises: ConfigurationError."""
    check_axes([*axes, *where], known, "table")
    twice = sorted({axis for axis in axes if axes.count(axis) > 1})
    if twice:
        raise ConfigurationError(f"The axis '{twice[0]}' is asked for twice; it is a row or a column, not both.")


def lay_out(
    places: Mapping[tuple[str, ...], Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    value: str,
    unit: str,
    averaged: tuple[str, ...],
    strongest: bool,
) -> Table:
    """The table of `places`: the readings of each combination of row and column labels."""
    split = [(key[: len(rows)], key[len(rows) :]) for key in places]
    row_keys, column_keys = _natural([r for r, _ in split]), _natural([c for _, c in split])
    row_at, column_at = ({key: i for i, key in enumerate(keys)} for keys in (row_keys, column_keys))
    entries = {
        (row_at[r], column_at[c]): entry
        for (r, c), readings in zip(split, places.values())
        if (entry := _entry(readings)) is not None
    }
    return Table(
        row_axes=tuple(rows),
        column_axes=tuple(columns),
        rows=tuple(row_keys),
        columns=tuple(column_keys),
        entries=entries,
        value=str(parse_value(value)),
        unit=unit,
        averaged=averaged,
        strongest=strongest,
    )


def _places(
    results: Sequence[CellResult], axes: Sequence[str], value: str, where: Mapping[str, Any]
) -> dict[tuple[str, ...], list[float | None]]:
    """The readings of each place, in the order of the study."""
    found: dict[tuple[str, ...], list[float | None]] = {}
    guarded = value in GUARD
    ways = _recorded_ways(results, axes, guarded)
    for result in select(results, where):
        for way in (way for way in ways if _tried(result, way, guarded)):
            key = tuple(label(way[axis] if axis in way else coordinate(result, axis)) for axis in axes)
            found.setdefault(key, []).append(reading(result, parse_value(value), {**where, **way}).number)
    return found


def _recorded_ways(results: Sequence[CellResult], axes: Sequence[str], guarded: bool) -> list[dict[str, Any]]:
    """Every combination of attack and rung that the audits recorded, of those that the table asks for.

    For a value of a guard, the attacks are the adversaries of the guarded federation.
    """
    known = axes_of(results)
    wanted = [axis for axis in RECORDED if axis in axes and axis not in known]
    ways: dict[str, dict[str, Any]] = {}
    for result in results:
        if guarded and wanted == ["attack"]:
            ways |= {plain(one.name): {"attack": one.name} for one in _adversaries(result)}
            continue
        for one in result.record.attacks if result.record else ():
            way = {axis: getattr(one, axis) for axis in wanted}
            ways.setdefault(plain(way), way)
    return list(ways.values()) or [{}]


def _spoken(result: CellResult, axes: Sequence[str]) -> set[tuple[Any, ...]]:
    """The attacks of a cell that the table does not tell apart."""
    ran = result.record.ran if result.record else ()
    return {tuple(getattr(one, axis) for axis in RECORDED if axis not in axes) for one in ran}


def _adversaries(result: CellResult) -> list[AdversaryRecord]:
    return adversaries(result.record.guard) if result.record and result.record.guard else []


def _tried(result: CellResult, way: Mapping[str, Any], guarded: bool) -> bool:
    """A cell that was audited stands only where it tried an attack; one that was not stands everywhere, lacking."""
    if result.record is None or not way:
        return True
    if guarded and set(way) == {"attack"}:
        return any(one.name == way["attack"] for one in _adversaries(result))
    return any(all(getattr(one, axis) == value for axis, value in way.items()) for one in result.record.attacks)


def _natural(keys: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Each key once; axes of numbers by size, others in the order of the study."""
    orders = []
    for position in range(len(next(iter(keys), ()))):
        values = list(dict.fromkeys(key[position] for key in keys))
        with suppress(ValueError):  # names keep the order in which the study lists them
            values.sort(key=float)
        orders.append({value: i for i, value in enumerate(values)})
    return sorted(dict.fromkeys(keys), key=lambda key: tuple(order[part] for order, part in zip(orders, key)))


def _entry(readings: Sequence[float | None]) -> Entry | None:
    numbers = [number for number in readings if number is not None]
    if not numbers:
        return None
    lacking = len(readings) - len(numbers)
    if len(numbers) < 2:
        return Entry(numbers[0], None, 1, lacking)
    return Entry(fmean(numbers), half_width(numbers), len(numbers), lacking)


def _unit(results: Sequence[CellResult], value: str) -> str:
    return unit_of(next((result.record.metrics for result in results if result.record), []), value)


def unit_of(metrics: Sequence[MetricRecord], value: str) -> str:
    """What `value` is measured in, the first of `metrics` being the headline."""
    name = parse_value(value).name
    headline = metrics[0].unit if metrics and name == "over_guess" else ""
    return next((metric.unit for metric in metrics if metric.name == name), headline)
