"""What a study found, read from where it lies: its results, and what became of its claims."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from invertigo.studies.claims import ClaimRecord
from invertigo.studies.expansion import expand
from invertigo.studies.frame import frame_files
from invertigo.studies.judgement import judge
from invertigo.studies.run import read_study
from invertigo.studies.spec import Study
from invertigo.studies.store import CellResult, Store

CLAIMS = "claims.json"


@dataclass(frozen=True)
class Conclusion:
    """A study with its results, in the order of its axes, and its claims."""

    study: Study
    preset: str | None
    results: Sequence[CellResult]
    claims: Sequence[ClaimRecord]
    store: Store


def conclude(place: str | Path) -> Conclusion:
    """Read the study at a folder or URL, as far as it has come, and hold its claims against it.

    Raises: MissingDataError, CorruptFileError.
    """
    store = Store(place)
    study, preset = read_study(store)
    with _uncollected():
        results = store.results(expand(study, preset))
        return Conclusion(study, preset, results, judge(study.claims, results), store)


@contextmanager
def _uncollected() -> Iterator[None]:
    """No search for garbage: the records of ten thousand cells all stay, and looking through them doubles the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def write_conclusion(found: Conclusion, *, parquet: bool | None = None) -> list[str]:
    """Write `claims.json`, `results`, `examples` and `timings` beside the cells, and return their names.

    Raises: OutputError.
    """
    claims = [json.loads(claim.model_dump_json()) for claim in found.claims]
    text = json.dumps(claims, indent=1, ensure_ascii=False) + "\n"
    files = {CLAIMS: text.encode("utf-8"), **frame_files(found.results, parquet=parquet)}
    for name, content in files.items():
        found.store.place.write(name, content)
    return list(files)
