"""A table of a study: any axes as rows and columns, a value's mean and half its interval in each place."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from invertigo.auditing.record import MetricRecord
from invertigo.studies.guard_values import GUARD, adversaries
from invertigo.studies.slices import RECORDED, axes_of, check_axes, coordinate, label, plain, reading, select
from invertigo.studies.values import parse_value
from invertigo.types.errors import ConfigurationError

if TYPE_CHECKING:
    from invertigo.auditing.guard_record import AdversaryRecord
    from invertigo.studies.store import CellResult

Format = Literal["markdown", "csv", "latex"]
MISSING = "–"
_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "–": "--", "−": "$-$", "±": r"$\pm$",
}  # fmt: skip


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
        return _FORMATS[how](self)

    def notes(self) -> list[str]:
        """What a reader must know about the numbers."""
        found = ["Each cell by its strongest attack."] if self.strongest else []
        found += [f"Averaged over {', '.join(self.averaged)}."] if self.averaged else []
        if any(entry.half is not None for entry in self.entries.values()):
            found.append("± half of the 95 % interval of the mean over cells.")
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
    check_axes([*axes, *where], axes_of(results), "table")
    twice = sorted({axis for axis in axes if axes.count(axis) > 1})
    if twice:
        raise ConfigurationError(f"The axis '{twice[0]}' is asked for twice; it is a row or a column, not both.")
    places = _places(results, axes, value, where)
    split = [(key[: len(rows)], key[len(rows) :]) for key in places]
    row_keys, column_keys = _natural([r for r, _ in split]), _natural([c for _, c in split])
    entries = {
        (row_keys.index(r), column_keys.index(c)): entry
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
        unit=_unit(results, value),
        averaged=tuple(a for a, v in axes_of(results).items() if len(v) > 1 and a not in {*axes, *where}),
        strongest=value not in GUARD and any(len(_spoken(result, [*axes, *where])) > 1 for result in results),
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
    from invertigo.studies.estimates import mean_interval

    numbers = [number for number in readings if number is not None]
    if not numbers:
        return None
    lacking = len(readings) - len(numbers)
    if len(numbers) < 2:
        return Entry(numbers[0], None, 1, lacking)
    found = mean_interval(numbers)
    return Entry(fmean(numbers), (found.high - found.low) / 2, len(numbers), lacking)


def _unit(results: Sequence[CellResult], value: str) -> str:
    name = parse_value(value).name
    metrics: list[MetricRecord] = next((result.record.metrics for result in results if result.record), [])
    headline = metrics[0].unit if metrics and name == "over_guess" else ""
    return next((metric.unit for metric in metrics if metric.name == name), headline)


def _shown(entry: Entry | None) -> str:
    if entry is None:
        return MISSING
    digits = _digits(entry)
    text = f"{entry.mean:.{digits}f}" + ("" if entry.half is None else f" ± {entry.half:.{digits}f}")
    return text.replace("-", "−") + ("*" if entry.lacking else "")


def _digits(entry: Entry) -> int:
    """Decimals that carry information: two digits of the half-interval, or three of the mean."""
    if entry.half:
        return min(6, max(0, 1 - math.floor(math.log10(entry.half))))
    return min(6, max(0, 2 - math.floor(math.log10(abs(entry.mean))))) if entry.mean else 0


def _heads(table: Table) -> list[str]:
    """Column headings; a table without column axes has one, its value."""
    named = [", ".join(key) for key in table.columns]
    return [head or table.value for head in named]


def _cells(table: Table) -> list[list[str]]:
    places = range(len(table.columns))
    return [[*row, *(_shown(table.entry(i, j)) for j in places)] for i, row in enumerate(table.rows)]


def _markdown(table: Table) -> str:
    rows = [[*table.row_axes, *_heads(table)], *_cells(table)]
    rows = [[cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(rows[0]))]
    lead = len(table.row_axes)

    def line(cells: Sequence[str]) -> str:
        padded = [c.ljust(w) if i < lead else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths))]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if i < lead else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(rows[0]), f"| {' | '.join(rule)} |", *map(line, rows[1:])])


def _csv(table: Table) -> str:
    """One line for each place, in full precision, since a cell of a wide table could hold one number only."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*table.row_axes, *table.column_axes, table.value, "half_interval", "cells", "lacking"])
    for i, row in enumerate(table.rows):
        for j, column in enumerate(table.columns):
            entry = table.entry(i, j)
            mean, half = (None, None) if entry is None else (entry.mean, entry.half)
            counts = [0, ""] if entry is None else [entry.n, entry.lacking]
            writer.writerow(
                [*map(_inert, (*row, *column)), *("" if x is None else repr(x) for x in (mean, half)), *counts]
            )
    return text.getvalue().removesuffix("\n")


def _inert(label: Any) -> Any:
    """A label that a spreadsheet does not take for a formula: an apostrophe goes before one that could be."""
    text = str(label)
    formula = text[:1] in "=+-@\t\r" and text != ""
    try:
        float(text)
    except ValueError:
        return f"'{text}" if formula else label
    return label


def _latex(table: Table) -> str:
    lead = len(table.row_axes)
    lines = [rf"\begin{{tabular}}{{{'l' * lead}{'r' * len(table.columns)}}}", r"\toprule"]
    lines += [_latex_line([*table.row_axes, *_heads(table)]), r"\midrule"]
    lines += [_latex_line(row) for row in _cells(table)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join("".join(_ESCAPES.get(c, c) for c in cell) for cell in cells) + r" \\"


_FORMATS: Mapping[str, Callable[[Table], str]] = {"markdown": _markdown, "csv": _csv, "latex": _latex}
