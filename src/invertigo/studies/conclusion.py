"""What a study found, read from where it lies: its results, and what became of its claims."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from invertigo.studies.claims import ClaimRecord
from invertigo.studies.frame import frame_files
from invertigo.studies.judgement import judge
from invertigo.studies.plan import in_shard, place_of, read_plan, same_experiment
from invertigo.studies.run import read_study
from invertigo.studies.spec import Study
from invertigo.studies.standing import Standing, standing
from invertigo.studies.store import CellResult, Store, uncollected
from invertigo.types.errors import MissingDataError

CLAIMS = "claims.json"


@dataclass(frozen=True)
class Conclusion:
    """A study with its results, in the order of its axes, its claims, and whether the results are still today's."""

    study: Study
    preset: str | None
    results: Sequence[CellResult]
    claims: Sequence[ClaimRecord]
    store: Store
    standing: Standing = field(default_factory=lambda: Standing(0))
    others: int = 0
    """Cells of another form of the study, with another configuration, at places where nothing else is."""

    @property
    def empty(self) -> bool:
        """Not one cell has a result or a failure."""
        return not any(result.record or result.failure for result in self.results)

    def notes(self) -> list[str]:
        """What a reader must know about where the results come from."""
        apart = f"{self.others} cells in this folder are of another form of the study and are not shown."
        return self.standing.sentences() + ([apart] if self.others else [])


def conclude(place: str | Path, *, matching: bool = False) -> Conclusion:
    """Read the study at a folder or URL, as far as it has come, and hold its claims against it.

    What is there is read, whatever code it was computed with; `Conclusion.standing` says how much of it the present
    code would compute anew, and `matching` leaves that out.

    Raises: MissingDataError, CorruptFileError.
    """
    store = Store(place)
    study, preset = read_study(store)
    with uncollected():
        results, others = _gather(store, study.at(preset))
        found = standing(results)
        if matching:
            results = [_unread(one) if one.key in found.changed else one for one in results]
        return Conclusion(study, preset, results, judge(study.claims, results), store, found, others)


def _gather(store: Store, study: Study) -> tuple[list[CellResult], int]:
    """A result for every place of the grid: of the cell that was planned there, else of an earlier one."""
    planned = read_plan(store, study)
    results = store.results(planned)
    empty = [one for one, result in zip(planned, results) if not (result.record or result.failure)]
    spare = store.place.names("cells") - {one.key for one in planned}
    if not spare:
        return results, 0
    markers = {key: marker for key in sorted(spare) if (marker := store.marker(key))}
    held = {place_of(m["coordinates"], m["seed"], m["block"]): key for key, m in markers.items()}
    wanted = {one.place: held[one.place] for one in empty if one.place in held}
    same = same_experiment(study, empty, {place: markers[key]["config"] for place, key in wanted.items()})
    earlier = {place: store.load(key) for place, key in wanted.items() if place in same and store.done(key)}
    filled = [earlier.get(one.place, result) for one, result in zip(planned, results)]
    return filled, len(wanted) - len(earlier)


def _unread(result: CellResult) -> CellResult:
    return replace(result, record=None, failure=None)


def write_part(place: str | Path, shard: tuple[int, int]) -> list[str]:
    """Write the flat files of part i of n, of its own cells alone, to `parts/i-of-n`, and return their names.

    Parts that end at the same time do not get in each other's way, and none reads what the others did; `conclude` and
    `write_conclusion` take all of it together.

    Raises: OutputError, MissingDataError, CorruptFileError.
    """
    store = Store(place)
    study, preset = read_study(store)
    own = [one for one in read_plan(store, study.at(preset)) if one.key and in_shard(one.key, shard)]
    files = frame_files(store.results(own))
    names = [f"parts/{shard[0]}-of-{shard[1]}/{name}" for name in files]
    for name, content in zip(names, files.values()):
        store.place.write(name, content)
    return names


def write_conclusion(found: Conclusion, *, parquet: bool | None = None) -> list[str]:
    """Write `claims.json`, `results`, `examples` and `timings` beside the cells, and return their names.

    Raises: OutputError; MissingDataError when there is nothing to write, so that what is there stays.
    """
    refuse_empty(found)
    claims = [json.loads(claim.model_dump_json()) for claim in found.claims]
    text = json.dumps(claims, indent=1, ensure_ascii=False) + "\n"
    others = sorted(found.store.place.names("cells") - {result.key for result in found.results})
    frames = frame_files(found.results, parquet=parquet, others=others)
    files = {CLAIMS: text.encode("utf-8"), **frames}
    for name, content in files.items():
        found.store.place.write(name, content)
    return list(files)


def refuse_empty(found: Conclusion) -> None:
    """An empty page must not take the place of a full one. Raises: MissingDataError."""
    if found.empty:
        raise MissingDataError(
            f"There is no result of this study at {found.store.url}, so nothing was written and what was there stays. "
            + " ".join(found.notes())
        )
