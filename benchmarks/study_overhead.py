"""What a study costs beyond its cells: the time around each cell in-process, and what ten thousand cells take.

    python benchmarks/study_overhead.py

Limits: 50 ms a cell; of ten thousand, 5 s to expand and scan them, 10 s to read them all and judge claims by them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from invertigo.auditing import auditor, staging
from invertigo.report.study import write_study as write_page
from invertigo.studies.conclusion import conclude, write_conclusion
from invertigo.studies.expansion import expand
from invertigo.studies.run import run_study, write_study
from invertigo.studies.spec import parse_study
from invertigo.studies.store import RESULT, TENSORS, Store

BASE = {
    "data": {"name": "digits", "count": 1, "public_count": 20},
    "model": {"name": "mlp"},
    "adversary": {"levels": [1]},
    "attacks": ["linear_layer"],
    "decoys": 5,
}
CELLS = 40
CLAIMS = [
    {
        "name": "order",
        "sentence": "Larger batches leak less.",
        "order": {"value": "psnr.mean", "axis": "data.count", "along": [1, 2, 4, 8], "direction": "decreasing"},
    },
    {
        "name": "compare",
        "sentence": "Faster learning leaks more.",
        "compare": {
            "value": "psnr.mean",
            "left": {"local.learning_rate": 0.1},
            "right": {"local.learning_rate": 0.001},
        },
    },
]


def usual() -> dict[str, bytes]:
    """The files of one cell that was run."""
    study = parse_study({"name": "one", "base": BASE})
    with tempfile.TemporaryDirectory() as folder:
        run_study(study, folder)
        home = Path(folder) / "cells" / expand(study)[0].key
        return {name: (home / name).read_bytes() for name in (RESULT, TENSORS)}


def large() -> None:
    axes = {
        "attacks": [{"name": "dlg", "iterations": i} for i in range(1, 26)],
        "local.learning_rate": [i / 1000 for i in range(1, 101)],
        "data.count": [1, 2, 4, 8],
    }
    study, files = parse_study({"name": "large", "base": BASE, "axes": axes, "claims": CLAIMS}), usual()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        write_study(store, study, None)
        clock = Clock()
        cells = clock.time("expanded", lambda: expand(study))
        for cell in cells:
            store.keep(cell, files)
        states = clock.time("scanned when done", lambda: store.scan(cell.key for cell in cells))
        found = clock.time("read and judged", lambda: conclude(folder))
        clock.time("written as flat files", lambda: write_conclusion(found))
        clock.time("drawn on a page", lambda: write_page(found, Path(folder) / "report.html"))
    assert set(states.values()) == {"done"}
    assert all(result.record for result in found.results)
    print(f"{len(cells)} cells: {', '.join(clock.said)} (CPU)")


@dataclass
class Clock:
    """Times one step after another."""

    said: list[str] = field(default_factory=list)

    def time(self, what: str, step: Callable[[], Any]) -> Any:
        """What the step returns."""
        started = time.process_time()
        found = step()
        self.said.append(f"{what} in {time.process_time() - started:.2f} s")
        return found


def overhead() -> None:
    """The time that `run_study` takes, less that inside the audits that it calls."""
    inside: list[float] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            started = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                inside.append(time.process_time() - started)

        return call

    study = parse_study({"name": "small", "base": BASE, "seeds": list(range(CELLS))})
    whole = (staging.stage, auditor.run_audit)
    staging.stage, auditor.run_audit = map(timed, whole)
    try:
        with tempfile.TemporaryDirectory() as folder:
            started = time.process_time()
            run_study(study, folder)
            total = time.process_time() - started
    finally:
        staging.stage, auditor.run_audit = whole
    each, around = sum(inside) / CELLS * 1e3, (total - sum(inside)) / CELLS * 1e3
    print(f"{CELLS} cells of {each:.0f} ms: {around:.1f} ms around each (CPU)")


if __name__ == "__main__":
    large()
    overhead()
