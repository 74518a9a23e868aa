"""Lines, heat maps, scatters and intervals of a study, as numbers that a template draws in SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from invertigo.studies.claims import ClaimRecord
from invertigo.studies.table import Table

WIDTH, HEIGHT = 320.0, 180.0
SERIES = 6
"""Lines that a reader can tell apart; each has its own colour and its own mark."""


@dataclass(frozen=True)
class Mark:
    """A measured point, with the ends of its interval; `text` is what it says when pointed at."""

    x: float
    y: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Series:
    """One line of a panel."""

    name: str
    number: int
    marks: tuple[Mark, ...]

    @property
    def path(self) -> str:
        """Its marks joined."""
        return "M" + "L".join(f"{mark.x:.1f} {mark.y:.1f}" for mark in self.marks)


@dataclass(frozen=True)
class Panel:
    """A line chart or a scatter in a WIDTH × HEIGHT box; ticks are (position, label)."""

    title: str
    series: tuple[Series, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    x_name: str
    y_name: str


@dataclass(frozen=True)
class Tile:
    """A place of a heat map: its value, and how far up the scale it stands, in percent; None where there is none."""

    text: str
    percent: int | None
    title: str


@dataclass(frozen=True)
class Heat:
    """A heat map: rows of tiles under column headings."""

    row_name: str
    column_name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Tile, ...]], ...]
    low: str
    high: str


@dataclass(frozen=True)
class Forest:
    """A claim's interval beside its bound, in percent of the width."""

    low: float
    high: float
    estimate: float
    bound: float


def lines(tables: Sequence[tuple[str, Table]], name: str) -> list[Panel]:
    """A panel for each table: columns along x, a line for each row; all share one vertical scale."""
    ends = [
        end
        for _, table in tables
        for e in table.entries.values()
        for end in (e.mean - (e.half or 0), e.mean + (e.half or 0))
    ]
    if not ends:
        return []
    scale = nice_scale(ends)
    return [_panel(title, table, name, scale) for title, table in tables]


def scatter(points: Sequence[tuple[str, float, float]], x_name: str, y_name: str) -> Panel | None:
    """Points (label, x, y) on one panel; None for fewer than two."""
    if len(points) < 2:
        return None
    across, up = nice_scale([x for _, x, _ in points]), nice_scale([y for _, _, y in points])
    marks = [
        Mark(across(x) * WIDTH, (1 - up(y)) * HEIGHT, 0.0, 0.0, f"{label}: {_short(x)}, {_short(y)}")
        for label, x, y in points
    ]
    return Panel(
        "", (Series("", 1, tuple(marks)),), ticks(across, WIDTH, False), ticks(up, HEIGHT, True), x_name, y_name
    )


def heat(table: Table) -> Heat | None:
    """A heat map of a table; None where nothing was measured."""
    means = [entry.mean for entry in table.entries.values()]
    if not means:
        return None
    low, span = min(means), max(means) - min(means)

    def tile(row: int, column: int) -> Tile:
        entry = table.entry(row, column)
        where = ", ".join([*table.rows[row], *table.columns[column]])
        if entry is None:
            return Tile("–", None, f"{where}: no value")
        percent = round(100 * (entry.mean - low) / span) if span else 50
        half = "" if entry.half is None else f" ± {_short(entry.half)}"
        return Tile(_short(entry.mean), percent, f"{where}: {_short(entry.mean)}{half} {table.unit}, {entry.n} cells")

    rows = [(", ".join(key), tuple(tile(i, j) for j in range(len(table.columns)))) for i, key in enumerate(table.rows)]
    return Heat(
        ", ".join(table.row_axes),
        ", ".join(table.column_axes),
        tuple(", ".join(key) for key in table.columns),
        tuple(rows),
        _short(min(means)),
        _short(max(means)),
    )


def forest(claim: ClaimRecord) -> Forest | None:
    """The interval of a claim on a scale of its own; None where nothing was measured."""
    if claim.estimate is None or claim.low is None or claim.high is None or not claim.bound:
        return None
    bound = float(claim.bound.split()[-1])
    low, high = min(claim.low, bound), max(claim.high, bound)
    margin = 0.08 * (high - low) or 1.0
    start, span = low - margin, high - low + 2 * margin
    place = [round(100 * (value - start) / span, 2) for value in (claim.low, claim.high, claim.estimate, bound)]
    return Forest(*place)


@dataclass(frozen=True)
class Scale:
    """A range with round ends, mapped to [0, 1]."""

    start: float
    stop: float
    step: float

    def __call__(self, value: float) -> float:
        """Where `value` stands between the ends."""
        return (value - self.start) / (self.stop - self.start)


def _panel(title: str, table: Table, name: str, scale: Scale) -> Panel:
    count = len(table.columns)
    across = [WIDTH * (i + 0.5) / count for i in range(count)]
    series = []
    for row, key in enumerate(table.rows[:SERIES]):
        marks = []
        for column, x in enumerate(across):
            entry = table.entry(row, column)
            if entry is None:
                continue
            half = entry.half or 0.0
            low, y, high = ((1 - scale(v)) * HEIGHT for v in (entry.mean - half, entry.mean, entry.mean + half))
            text = f"{', '.join([*key, *table.columns[column]])}: {_short(entry.mean)}" + (
                f" ± {_short(half)}" if half else ""
            )
            marks.append(Mark(x, y, low, high, f"{text} {table.unit}".strip()))
        series.append(Series(", ".join(key), row + 1, tuple(marks)))
    return Panel(
        title,
        tuple(one for one in series if one.marks),
        tuple((x, ", ".join(key)) for x, key in zip(across, table.columns)),
        ticks(scale, HEIGHT, True),
        ", ".join(table.column_axes),
        name,
    )


def nice_scale(values: Sequence[float]) -> Scale:
    """A scale that holds all of `values`, with round ends: steps of 1, 2 or 5 times a power of ten, about five."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    raw = span / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    start, stop = math.floor(low / step) * step, math.ceil(high / step) * step
    return Scale(start, stop if stop > start else start + step, step)


def ticks(scale: Scale, length: float, downwards: bool) -> tuple[tuple[float, str], ...]:
    """(position, label) of each step of a scale along `length`."""
    count = round((scale.stop - scale.start) / scale.step)
    values = [scale.start + i * scale.step for i in range(count + 1)]
    return tuple((length * (1 - scale(v) if downwards else scale(v)), f"{v:.4g}".replace("-", "−")) for v in values)


def _short(value: float) -> str:
    """Three significant digits."""
    text = f"{value:#.3g}".rstrip(".") if abs(value) < 1000 else f"{value:.0f}"
    return text.replace("-", "−")
