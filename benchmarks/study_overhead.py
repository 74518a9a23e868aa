"""What a study costs beyond its cells: expanding and scanning ten thousand, and the time around each cell in-process.

    python benchmarks/study_overhead.py

Limits: 5 s for ten thousand cells, 50 ms a cell.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

from invertigo.auditing import auditor, staging
from invertigo.studies.expansion import expand
from invertigo.studies.run import run_study
from invertigo.studies.spec import parse_study
from invertigo.studies.store import Store

BASE = {
    "data": {"name": "digits", "count": 1, "public_count": 20},
    "model": {"name": "mlp"},
    "adversary": {"levels": [1]},
    "attacks": ["linear_layer"],
    "decoys": 5,
}
CELLS = 40
RESULT, TENSORS = 30_000, 20_000
"""Bytes of a usual `result.json` and of a few small images."""


def large() -> None:
    axes = {
        "attacks": [{"name": "dlg", "iterations": i} for i in range(1, 26)],
        "local.learning_rate": [i / 1000 for i in range(1, 101)],
        "data.count": [1, 2, 4, 8],
    }
    started = time.process_time()
    cells = expand(parse_study({"name": "large", "base": BASE, "axes": axes}))
    expanded = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        for cell in cells:
            store.keep(cell, {"result.json": b"x" * RESULT, "reconstruction.safetensors": b"x" * TENSORS})
        before = time.process_time()
        states = store.scan(cell.key for cell in cells)
        scanned = time.process_time() - before
    assert set(states.values()) == {"done"}
    print(f"{len(cells)} cells: expanded in {expanded - started:.2f} s, scanned when done in {scanned:.2f} s (CPU)")


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
