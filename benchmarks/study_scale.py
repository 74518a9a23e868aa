"""What large studies cost to read: tables from Parquet, and from every cell.

    python benchmarks/study_scale.py [CELLS...]

Wall and processor seconds and peak memory of each command in a process of its own, start-up included. The cells hold
the result of one real audit each; their scores differ.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from invertigo.studies.expansion import CellSpec, expand
from invertigo.studies.plan import write_plan
from invertigo.studies.run import run_study, write_study
from invertigo.studies.spec import parse_study
from invertigo.studies.store import RESULT, Store

BASE = {
    "data": {"name": "digits", "count": 1, "public_count": 20},
    "model": {"name": "mlp"},
    "adversary": {"levels": [1]},
    "attacks": ["linear_layer"],
    "decoys": 5,
}
CELLS = (10_000,)
TABLE = ["table", "{}", "--rows", "data.count", "--columns", "attacks"]


def usual() -> str:
    """The result of one cell that was run."""
    study = parse_study({"name": "one", "base": BASE})
    with tempfile.TemporaryDirectory() as folder:
        run_study(study, folder)
        return (Path(folder) / "cells" / expand(study)[0].key / RESULT).read_text()


def fill(folder: Path, count: int, result: str) -> None:
    """A study of `count` cells, all done."""
    rates = [i / 100_000 for i in range(1, count // 100 + 1)]
    attacks = [{"name": "dlg", "iterations": i} for i in range(1, 26)]
    axes = {"attacks": attacks, "data.count": [1, 2, 4, 8], "local.learning_rate": rates}
    study, store = parse_study({"name": "large", "base": BASE, "axes": axes}), Store(folder)
    specs = expand(study)
    write_study(store, study, None)
    write_plan(store, specs)
    for number, spec in enumerate(specs):
        store.keep(spec, {RESULT: scored(result, spec, number)})


def scored(result: str, spec: CellSpec, number: int) -> bytes:
    return re.sub(r'("psnr":\s*\[)[^\]]*\]', rf"\g<1>{10 + number % 97 / 10}]", result).encode()


def measured(*command: str) -> tuple[float, float, float]:
    """Wall and processor seconds, and peak memory in MB."""
    code = "from invertigo.cli import main; main()"
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", code, *command], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, command
    return time.monotonic() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    result = usual()
    for count in map(int, sys.argv[1:] or CELLS):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            fill(folder, count, result)
            table = [part.format(name) for part in TABLE]
            steps = {
                "table, every cell read": table,
                "report, which concludes": ["report", name, "--out", f"{name}/report.html", "--redact"],
                "table, from Parquet": table,
                "table by four axes, from Parquet": [*table, "--rows", "local.learning_rate", "--rows", "seed"],
            }
            for what, command in steps.items():
                wall, cpu, memory = measured(*command)
                print(f"| {count:,} | {what} | {wall:.1f} | {cpu:.1f} | {memory:.0f} |", flush=True)


if __name__ == "__main__":
    main()
