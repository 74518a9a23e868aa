"""A study's results from its Parquet file, where that holds all that its cells do: for tables of any size."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from invertigo.studies.columns import column_of
from invertigo.studies.frame import FACTS, text_of
from invertigo.studies.place import Local
from invertigo.studies.slices import label, matches, plain
from invertigo.studies.standing import Standing, standing_of
from invertigo.studies.store import Store

RESULTS = "results.parquet"
_ALWAYS = ("seed", "block", "cell", "status", "rests_on", "attack_name", "attack_level", "attack_informed")
_OF_ATTACKS = ("attack_status", "recovered", "identified")


@dataclass(frozen=True)
class Attack:
    """One attack of a cell, as far as a table reads it; `worst` is its most exposed example by the headline metric."""

    attack: str
    level: int
    informed: bool
    ran: bool
    strength: tuple[float, ...] | None
    number: float | None


@dataclass(frozen=True)
class Cell:
    """One cell: the ranks of its coordinates on the axes, its attacks, and the value where that is the client's."""

    key: str
    place: tuple[int, ...]
    seed: int
    done: bool
    number: float | None
    attacks: list[Attack]
    rests_on: str = ""
    of_client: bool = False


@dataclass(frozen=True)
class Rows:
    """All cells in the order of the study, with what a table says about them."""

    cells: Sequence[Cell]
    axes: Mapping[str, list[Any]]
    metrics: Sequence[Mapping[str, Any]]
    contents: Mapping[str, Mapping[str, str]]
    value: str

    @cached_property
    def standing(self) -> Standing:
        """How many cells no longer match the present code."""
        return standing_of({cell.key: self.contents.get(cell.rests_on) for cell in self.cells if cell.done})

    @cached_property
    def labels(self) -> dict[str, list[str]]:
        """What each value of each axis is called, by its rank."""
        return {axis: [label(value) for value in values] for axis, values in self.axes.items()}

    def named(self, cell: Cell, axis: str) -> str:
        """What a cell's coordinate, or its seed, is called."""
        if axis in self.axes:
            return self.labels[axis][cell.place[self.position[axis]]]
        return label(cell.seed if axis == "seed" else None)

    @cached_property
    def position(self) -> dict[str, int]:
        """Where each axis stands in `Cell.place`."""
        return {axis: i for i, axis in enumerate(self.axes)}

    def having(self, axis: str, wanted: Any) -> set[int]:
        """Ranks of the values of an axis that `wanted` means."""
        return {rank for rank, value in enumerate(self.axes[axis]) if matches(value, wanted)}


def read_rows(store: Store, value: str, client: bool) -> Rows | None:
    """The cells with `value` read from `results.parquet`; None where it is not there, not current, or lacks the value.

    Args:
        client: the value is of the client, not of an attack.
    """
    found = _open(store)
    if found is None:
        return None
    facts, held, table = found
    column = column_of(value)
    if not facts["metrics"] or column not in held:
        return None
    headline = f"{column_of(facts['metrics'][0]['name'])}_worst"
    names = {axis: column_of(axis) for axis in facts["axes"]}
    wanted = [name for name in {*names.values(), *_ALWAYS, *_OF_ATTACKS, headline, column} if name in held]
    columns = table(wanted)
    sign = 1.0 if facts["metrics"][0]["privacy_loss"] else -1.0
    cells = _cells(columns, facts["axes"], names, column, headline, sign, client)
    ways = {tuple(way): i for i, way in enumerate(facts["ways"])}
    for cell in cells:
        cell.attacks.sort(key=lambda one: ways[one.attack, one.level, one.informed])
    return Rows(cells, facts["axes"], facts["metrics"], facts["contents"], value)


def _open(store: Store) -> tuple[dict[str, Any], set[str], Any] | None:
    if find_spec("pyarrow") is None:
        return None
    content = _current(store)
    if content is None:
        return None
    import pyarrow
    import pyarrow.parquet

    source = content if isinstance(content, Path) else pyarrow.BufferReader(content)
    file = pyarrow.parquet.ParquetFile(source)
    kept = (file.schema_arrow.metadata or {}).get(FACTS.encode())
    if kept is None:
        return None
    facts, names = json.loads(kept), set(file.schema_arrow.names)
    cells = set(file.read(["cell"]).column(0).to_pylist())
    if not store.place.names("cells") <= cells | set(facts.get("others", [])):
        return None  # cells have come since

    def table(wanted: list[str]) -> dict[str, list[Any]]:
        read = file.read(wanted)
        return {name: read.column(name).to_pylist() for name in wanted}

    return facts, names, table


def _current(store: Store) -> Path | bytes | None:
    """The file, where no cell has been put in its place since it was written."""
    if not isinstance(store.place, Local):
        return store.place.read(RESULTS)
    path, cells = store.place.root / RESULTS, store.place.root / "cells"
    try:
        written = path.stat().st_mtime_ns
        moved = max((max(seen.st_mtime_ns, seen.st_ctime_ns) for seen in _stats(cells)), default=0)
    except OSError:
        return None
    return path if moved <= written else None


def _stats(folder: Path) -> list[os.stat_result]:
    with os.scandir(folder) as entries:
        return [entry.stat() for entry in entries]


def _cells(
    columns: Mapping[str, list[Any]],
    axes: Mapping[str, list[Any]],
    names: Mapping[str, str],
    value: str,
    headline: str,
    sign: float,
    client: bool,
) -> list[Cell]:
    count = len(columns["cell"])
    nothing: list[Any] = [None] * count

    def column(name: str) -> list[Any]:
        return columns.get(name, nothing)

    known = {axis: _known(values) for axis, values in axes.items()}
    ranks = [[known[axis][_plain(v)] for v in column(names[axis])] for axis in axes]
    places = list(zip(*ranks)) if ranks else [()] * count
    facts = zip(*(column(name) for name in (*_ALWAYS, *_OF_ATTACKS, headline, value)))
    cells: dict[Any, Cell] = {}
    for place, row in zip(places, facts):
        seed, block, key, status, rests, name, level, informed, ran, recovered, identified, worst, number = row
        where = (key, place, seed, block)
        if where not in cells:
            own = number if client else None
            cells[where] = Cell(key, place, seed, status == "done", own, [], rests or "", client)
        if name is not None:
            strength = None if worst is None else (recovered or 0.0, identified or 0.0, sign * worst, -float(level))
            found = Attack(name, level, bool(informed), ran == "ran", strength, number)
            cells[where].attacks.append(found)
    # As the study lists them: the ranks are in `where`; a Parquet file is sorted by size and letter.
    return [cells[where] for where in sorted(cells, key=lambda where: where[1])]


def _known(values: Sequence[Any]) -> dict[Any, int]:
    """The rank of each value of an axis by what a column may hold of it: a text, where they are of several types."""
    texts = {text_of(value): i for i, value in enumerate(values)}
    return {**texts, **{_plain(value): i for i, value in enumerate(values)}}


def _plain(value: Any) -> Any:
    """A key that tells 1 from yes; a whole number in a column of fractions is that number all the same."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return plain(value) if isinstance(value, (list, dict)) else value
