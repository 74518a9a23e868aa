"""What a study looks like on the page: decided here, drawn by the template."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invertigo.auditing.record import MetricRecord
from invertigo.report.charts import SERIES, Forest, Heat, Panel, forest, heat, lines, scatter
from invertigo.report.files import RESULT, TENSORS, load
from invertigo.report.frontier import FrontierView, frontier_view
from invertigo.report.guarded import GuardView, guard_view
from invertigo.report.numbers import number
from invertigo.report.pictures import Exposed, exposed
from invertigo.report.tables import leaked_order, strongest
from invertigo.report.views import OUTCOMES, shows_originals
from invertigo.studies.claims import ClaimRecord
from invertigo.studies.conclusion import Conclusion
from invertigo.studies.frontier import frontier_of
from invertigo.studies.frontier_study import AXIS
from invertigo.studies.slices import axes_of, label, plain, reading
from invertigo.studies.store import CellResult
from invertigo.studies.table import Table, build_table
from invertigo.studies.values import parse_value

PANELS = 8
"""Line charts of one figure; beyond, the remaining axes are averaged over."""
PICTURED = 48
"""Points of the grid whose reconstructions are drawn."""
_SIGNS = {"holds": "resists", "does not hold": "leaks", "inconclusive": "inconclusive"}


@dataclass(frozen=True)
class Judged:
    """A claim, its sign, and its interval beside its bound."""

    record: ClaimRecord
    sign: str
    forest: Forest | None


@dataclass(frozen=True)
class Figure:
    """A heat map, or line charts on one scale, with what was averaged over."""

    title: str
    heat: Heat | None = None
    panels: tuple[Panel, ...] = ()
    legend: tuple[tuple[int, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CellView:
    """A cell in the list of all cells; `folder` is relative to the page, empty where it was never written."""

    key: str
    coordinates: tuple[str, ...]
    seed: int
    block: int
    status: str
    score: str
    recovered: str
    attack: str
    failure: str
    folder: str


@dataclass(frozen=True)
class Sample:
    """The most exposed private example of one cell, as its strongest attack rebuilt it."""

    place: str
    attack: str
    outcome: str
    score: str
    pictures: Exposed
    folder: str


@dataclass(frozen=True)
class StudyView:
    """A study, ready to print."""

    conclusion: Conclusion
    title: str
    axes: Mapping[str, tuple[str, ...]]
    metric: MetricRecord | None
    claims: tuple[Judged, ...]
    figures: tuple[Figure, ...]
    utility: Panel | None
    frontier: FrontierView | None
    guarded: GuardView | None
    samples: tuple[Sample, ...]
    more_points: int
    cells: tuple[CellView, ...]
    private: bool
    redacted: bool
    version: str
    created: str

    def count(self, status: str) -> int:
        """How many cells ended so."""
        return sum(cell.status == status for cell in self.cells)


def study_view(
    found: Conclusion,
    page: Path,
    *,
    utility: Mapping[str, float] | None = None,
    include_originals: bool | None = None,
    redact: bool = False,
) -> StudyView:
    """Gather what the page says about a study; arguments as in `write_study`."""
    results = found.results
    records = [result.record for result in results if result.record is not None]
    metric = records[0].metrics[0] if records else None
    drawn = frontier_of(results)  # of a study of defenses alone, it says more than a heat map
    guarded = guard_view(results)  # as it does of a study of guards
    folders = {result.key: _folder(found, result, page) for result in results}
    samples, more = ([], 0) if redact else _samples(found, folders, include_originals)
    return StudyView(
        conclusion=found,
        title=found.study.title or found.study.name,
        axes={axis: tuple(map(label, values)) for axis, values in axes_of(results).items()},
        metric=metric,
        claims=tuple(Judged(claim, _SIGNS[claim.status], forest(claim)) for claim in found.claims),
        figures=tuple(_figures(results, metric))
        if metric and not guarded and not (drawn and set(axes_of(results)) == {AXIS})
        else (),
        utility=_privacy_utility(results, metric, utility or {}) if metric else None,
        frontier=frontier_view(drawn),
        guarded=guarded,
        samples=tuple(samples),
        more_points=more,
        cells=tuple(_cell(result, metric, folders[result.key]) for result in results),
        private=any(record.private for record in records),
        redacted=redact,
        version=records[0].version if records else "",
        created=max((record.created for record in records), default=""),
    )


def _figures(results: Sequence[CellResult], metric: MetricRecord) -> list[Figure]:
    """Lines along every axis of numbers; a heat map for every pair of the others."""
    axes = {axis: values for axis, values in axes_of(results).items() if len(values) > 1}
    numeric = [axis for axis, values in axes.items() if all(_is_number(value) for value in values)]
    named = [axis for axis in axes if axis not in numeric]
    value = f"{metric.name}.mean"
    found = [_lines(results, axis, [a for a in axes if a != axis], axes, metric) for axis in numeric]
    pairs = list(itertools.combinations(named, 2)) or [(axis, "") for axis in named if not numeric]
    for row, column in pairs[:3]:
        table = build_table(results, rows=[row], columns=[column] if column else [], value=value)
        drawn = heat(table)
        if drawn is not None:
            found.append(
                Figure(f"{_name(metric)} by {row}" + (f" and {column}" if column else ""), drawn, notes=_notes(table))
            )
    return [figure for figure in found if figure.heat or figure.panels]


def _lines(
    results: Sequence[CellResult],
    axis: str,
    others: Sequence[str],
    axes: Mapping[str, Sequence[Any]],
    metric: MetricRecord,
) -> Figure:
    """The value along `axis`: a line for each value of one axis, a panel for each combination of the rest."""
    series = next((other for other in others if len(axes[other]) <= SERIES), None)
    facets: list[str] = []
    for other in others:
        if other != series and _product(axes[a] for a in [*facets, other]) <= PANELS:
            facets.append(other)
    tables: list[tuple[str, Table]] = []
    for chosen in itertools.product(*(axes[facet] for facet in facets)):
        where = dict(zip(facets, chosen))
        rows = [series] if series else []
        table = build_table(results, rows=rows, columns=[axis], value=f"{metric.name}.mean", where=where)
        if table.entries:
            tables.append((", ".join(f"{facet}: {label(v)}" for facet, v in where.items()), table))
    panels = lines(tables, _name(metric))
    legend = dict.fromkeys((one.number, one.name) for panel in panels for one in panel.series if one.name)
    notes = _notes(tables[0][1]) if tables else ()
    return Figure(f"{_name(metric)} along {axis}", panels=tuple(panels), legend=tuple(legend), notes=notes)


def _privacy_utility(results: Sequence[CellResult], metric: MetricRecord, utility: Mapping[str, float]) -> Panel | None:
    """The headline against the accuracy of cells where it was measured."""
    points = []
    for result in results:
        score = reading(result, parse_value(f"{metric.name}.mean"), {}).number
        if score is not None and result.key in utility:
            points.append((_place(result), utility[result.key], score))
    return scatter(points, "utility (accuracy)", _name(metric))


def _samples(found: Conclusion, folders: Mapping[str, str], include_originals: bool | None) -> tuple[list[Sample], int]:
    """One picture for each point of the grid, from the first of its cells that has one, and how many are left out."""
    points: dict[str, CellResult] = {}
    for result in found.results:
        if result.record is not None and result.record.ran:
            points.setdefault(plain(result.coordinates), result)
    samples = []
    for result in list(points.values())[:PICTURED]:
        with found.store.fetched(result.key, (RESULT, TENSORS)) as folder:
            sample = _sample(result, folder, folders[result.key], include_originals)
        samples += [sample] if sample is not None else []
    return samples, max(0, len(points) - PICTURED)


def _sample(result: CellResult, folder: Path, link: str, include_originals: bool | None) -> Sample | None:
    if not (folder / RESULT).is_file():
        return None
    audit = load(folder)
    attack = strongest(audit.record)
    order = leaked_order(audit.record, attack) if attack else []
    if attack is None or not order:
        return None
    first, metric = order[0], audit.record.metrics[0]
    pictures = exposed(audit, attack, originals=shows_originals(audit.record, include_originals), only=[first])[first]
    if pictures.rebuilt is None:
        return None
    score = f"{number(attack.scores[metric.name][first], metric.unit)} {metric.unit}".strip()
    outcome = OUTCOMES[attack.outcomes[first] if attack.outcomes else "unscored"]
    return Sample(_place(result), attack.attack, outcome, score, pictures, link)


def _cell(result: CellResult, metric: MetricRecord | None, folder: str) -> CellView:
    record = result.record
    attack = strongest(record) if record else None
    score = reading(result, parse_value(f"{metric.name}.mean"), {}).number if record and metric else None
    return CellView(
        key=result.key,
        coordinates=tuple(label(value) for value in result.coordinates.values()),
        seed=result.seed,
        block=result.block,
        status="done" if record else "failed" if result.failure else "missing",
        score=number(score, metric.unit if metric else ""),
        recovered=f"{attack.recovered} of {record.num_examples}" if record and attack else "–",
        attack=f"{attack.attack}, rung {attack.level}" if attack else "–",
        failure=result.failure or "",
        folder=folder,
    )


def _folder(found: Conclusion, result: CellResult, page: Path) -> str:
    """Where the page finds a cell's files."""
    if result.record is None and result.failure is None:
        return ""
    home = str(found.store.url)
    if "://" in home:
        return f"{home.rstrip('/')}/cells/{result.key}"
    return Path(os.path.relpath(Path(home) / "cells" / result.key, page.resolve().parent)).as_posix()


def _place(result: CellResult) -> str:
    return ", ".join(f"{axis} {label(value)}" for axis, value in result.coordinates.items()) or f"seed {result.seed}"


def _notes(table: Table) -> tuple[str, ...]:
    return tuple(note.replace("* some", "Some") for note in table.notes())


def _name(metric: MetricRecord) -> str:
    return f"Mean {metric.label}" + (f" in {metric.unit}" if metric.unit else "")


def _product(parts: Any) -> int:
    total = 1
    for part in parts:
        total *= len(part)
    return total


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
