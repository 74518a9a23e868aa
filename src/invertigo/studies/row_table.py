"""A table from the Parquet file of a study, place for place the one that reading every cell gives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from invertigo.auditing.record import MetricRecord
from invertigo.studies.guard_values import GUARD
from invertigo.studies.rows import Attack, Cell, Rows, read_rows
from invertigo.studies.slices import RECORDED, label, matches
from invertigo.studies.store import Store, uncollected
from invertigo.studies.table import Table, check_wanted, lay_out, unit_of
from invertigo.studies.values import CLIENT, parse_value


@uncollected()
def quick_table(
    store: Store,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    value: str,
    where: Mapping[str, Any],
    matching: bool = False,
) -> tuple[Table, list[str]] | None:
    """The table and what a reader must know of its cells; None where the cells themselves have to be read.

    Arguments as in `build_table`; `matching` leaves out what the present code would compute anew.
    """
    asked = parse_value(value)
    found = None if asked.name in GUARD else read_rows(store, str(asked), asked.name in CLIENT)
    if found is None:
        return None
    if not rows and not columns:
        rows = list(found.axes) or ["seed"]
    axes = [*rows, *columns]
    check_wanted(axes, where, found.axes)
    left_out = found.standing.changed if matching else frozenset()
    recorded = [axis for axis in RECORDED if axis not in found.axes]
    chosen = _chosen(found, where, recorded)
    ways = _ways(found.cells, [axis for axis in recorded if axis in axes], left_out)
    inside = {axis: wanted for axis, wanted in where.items() if axis in recorded}
    places: dict[tuple[str, ...], list[float | None]] = {}
    for cell in chosen:
        done = cell.done and cell.key not in left_out
        for known in ways:
            if done and known and not any(_is(one, known) for one in cell.attacks):
                continue
            key = tuple(label(known[axis]) if axis in known else found.named(cell, axis) for axis in axes)
            places.setdefault(key, []).append(_number(cell, {**inside, **known}) if done else None)
    table = lay_out(
        places, rows, columns, value=value,
        unit=unit_of([MetricRecord.model_validate(metric) for metric in found.metrics], value),
        averaged=tuple(a for a, v in found.axes.items() if len(v) > 1 and a not in {*axes, *where}),
        strongest=any(len(cell.attacks) > 1 and len(_spoken(cell, [*axes, *where])) > 1 for cell in found.cells),
    )  # fmt: skip
    return table, found.standing.sentences()


def _ways(cells: Sequence[Cell], wanted: Sequence[str], left_out: frozenset[str]) -> list[dict[str, Any]]:
    ways: dict[tuple[Any, ...], dict[str, Any]] = {}
    if not wanted:
        return [{}]
    for cell in cells:
        for one in cell.attacks if cell.done and cell.key not in left_out else ():
            way = {axis: getattr(one, axis) for axis in wanted}
            ways.setdefault(tuple(way.values()), way)
    return list(ways.values()) or [{}]


def _number(cell: Cell, inside: Mapping[str, Any]) -> float | None:
    """The value of the client, or of the strongest attack in question."""
    if cell.of_client:
        number = cell.number
    else:
        asked = [one for one in cell.attacks if one.ran and one.strength is not None and _asked(cell, one, inside)]
        number = max(asked, key=lambda one: one.strength or ()).number if asked else None
    return number if number is not None and math.isfinite(number) else None


def _asked(cell: Cell, one: Attack, inside: Mapping[str, Any]) -> bool:
    informed, level = inside.get("informed"), inside.get("level")
    if informed is not None and bool(informed) != one.informed and any(other.informed for other in cell.attacks):
        return False
    return inside.get("attack") in (None, one.attack) and (level is None or str(level) == str(one.level))


def _chosen(found: Rows, where: Mapping[str, Any], recorded: Sequence[str]) -> list[Cell]:
    """The cells with the coordinates in `where`; what an audit records inside does not count."""
    chosen = list(found.cells)
    for axis, wanted in where.items():
        if axis in found.axes:
            ranks, position = found.having(axis, wanted), found.position[axis]
            chosen = [cell for cell in chosen if cell.place[position] in ranks]
        elif axis not in recorded:
            chosen = [cell for cell in chosen if matches(cell.seed if axis == "seed" else None, wanted)]
    return chosen


def _is(one: Attack, way: Mapping[str, Any]) -> bool:
    return all(getattr(one, axis) == value for axis, value in way.items())


def _spoken(cell: Cell, axes: Sequence[str]) -> set[tuple[Any, ...]]:
    free = [axis for axis in RECORDED if axis not in axes]
    return {tuple(getattr(one, axis) for axis in free) for one in cell.attacks if one.ran}
