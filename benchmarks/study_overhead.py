"""What a study costs beyond its cells: expanding and scanning ten thousand, and the time around each cell in-process.

    python benchmarks/study_overhead.py

Limits: 5 s for ten thousand cells, 50 ms a cell.
"""

from __future__ import annotations

import tempfile
import time

from invertigo.auditing.auditor import run_audit
from invertigo.auditing.budget import parse_budget
from invertigo.auditing.scenario import Scenario
from invertigo.auditing.staging import stage
from invertigo.studies.expansion import CellSpec, expand
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


def bare(cell: CellSpec) -> None:
    scenario = Scenario.model_validate(cell.config)
    run_audit(
        stage(scenario),
        attacks=scenario.attack_list(),
        levels=scenario.adversary.levels,
        budget=parse_budget(scenario.budget),
        seed=scenario.seed,
        decoys=scenario.decoys,
        progress=None,
        command="",
    )


def overhead() -> None:
    study = parse_study({"name": "small", "base": BASE, "seeds": list(range(CELLS))})
    cells = expand(study)
    bare(cells[0])
    started = time.process_time()
    for cell in cells:
        bare(cell)
    alone = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run_study(study, folder)
    around = (time.process_time() - alone) - (alone - started)
    print(f"{CELLS} cells of {(alone - started) / CELLS * 1e3:.0f} ms: {around / CELLS * 1e3:.1f} ms around each (CPU)")


if __name__ == "__main__":
    large()
    overhead()
